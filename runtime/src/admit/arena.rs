//! The bytes of records from fetch to outcome. They are copied out of the client's buffers at once, so that no fetch
//! buffer is pinned.
//!
//! Records are stored back to back in blocks. A block is reused when all its records are released. A record larger than
//! a block gets its own block, which is freed on release. An event that waits for a retry may need its record for
//! minutes. When a block becomes the current one, the records of the emptiest block are moved to it, if at least
//! `BLOCKS_MIN` blocks are in use, at least half of their memory is unused, and the records take at most
//! `SPARSE_BYTES`. A slot therefore identifies a record, not an address.

use keylane_core::ArenaSlot;

const BLOCK_BYTES: usize = 256 << 10;
/// A block with at most this many live bytes may be compacted.
const SPARSE_BYTES: usize = BLOCK_BYTES / 4;
/// Below this number of blocks no record is moved.
const BLOCKS_MIN: usize = 32;
/// Marks an absent key, value or header value, as in Kafka's wire format.
const ABSENT: u32 = u32::MAX;
/// Number of fields before the bytes of a record: its slot, the lengths of its key, value and headers, and the number
/// of its headers with the flag [`LOG_APPEND_TIME`].
const PREAMBLE: usize = 5;
const PREAMBLE_BYTES: usize = 4 * PREAMBLE;
/// Flag in the number of headers: the broker set the record's timestamp.
const LOG_APPEND_TIME: u32 = 1 << 31;
/// Approximate bytes that the core needs per queued event.
const BOOKKEEPING_BYTES: usize = 64;

/// The bytes of records between fetch and outcome. One thread owns them, without locks.
#[derive(Debug, Default)]
pub struct Arena {
    blocks: Vec<Block>,
    /// Indexes of empty blocks of the normal size.
    free: Vec<usize>,
    /// Indexes into `blocks` whose memory was freed.
    vacant: Vec<usize>,
    current: Option<usize>,
    /// The location of each record, by slot.
    slots: Vec<Location>,
    free_slots: Vec<u32>,
    /// The headers of the record being stored. Iterating them is expensive, so they are packed once.
    packed: Vec<u8>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    live: u32,
    live_bytes: usize,
}

/// The current location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Location {
    block: u32,
    offset: u32,
    /// Its size in bytes, so that a release does not read the record.
    size: u32,
}

/// Marks a free slot.
const FREE: Location = Location { block: u32::MAX, offset: 0, size: 0 };

/// A header as read. The name is bytes, like the value.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A record as it was read, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaRecord<'a> {
    /// The key; absent and empty differ.
    pub key: Option<&'a [u8]>,
    /// The value; absent: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, packed.
    pub headers: Headers<'a>,
    /// Whether the broker set the record's timestamp.
    pub log_append_time: bool,
}

/// Packed headers, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    packed: &'a [u8],
    left: u32,
}

impl Arena {
    /// Stores a copy of a record. Returns its slot and the number of bytes that it counts as.
    pub fn store<'h>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = Header<'h>>,
        log_append_time: bool,
    ) -> (ArenaSlot, u32) {
        let count = self.pack(headers) | if log_append_time { LOG_APPEND_TIME } else { 0 };
        let payload = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + self.packed.len();
        let size = PREAMBLE_BYTES + payload;
        let index = self.block_with_capacity(size);
        let block = self.blocks.get_mut(index).expect("the block exists");
        let at = Location { block: small(index), offset: small(block.bytes.len()), size: small(size) };
        let slot = take_slot(&mut self.slots, &mut self.free_slots, at);
        for number in [slot, length_of(key), length_of(value), small(self.packed.len()), count] {
            block.bytes.extend_from_slice(&number.to_le_bytes());
        }
        block.bytes.extend_from_slice(key.unwrap_or_default());
        block.bytes.extend_from_slice(value.unwrap_or_default());
        block.bytes.extend_from_slice(&self.packed);
        block.live += 1;
        block.live_bytes += size;
        (ArenaSlot(slot.into()), small(size + BOOKKEEPING_BYTES))
    }

    /// Returns a record that was stored and not released.
    pub fn get(&self, slot: ArenaSlot) -> ArenaRecord<'_> {
        let Location { block, offset, .. } = self.at(slot);
        let block = self.blocks.get(block as usize).expect("slots come from `store`");
        let bytes = block.bytes.get(offset as usize..).expect("slots come from `store`");
        Packed::read(bytes).record
    }

    /// Returns the record of a slot; `None`: it was released.
    pub fn find(&self, slot: ArenaSlot) -> Option<ArenaRecord<'_>> {
        let at = self.slots.get(number_of(slot) as usize).copied().unwrap_or(FREE);
        (at != FREE).then(|| self.get(slot))
    }

    /// Releases a record.
    pub fn release(&mut self, slot: ArenaSlot) {
        let Location { block, size, .. } = self.at(slot);
        let index = block as usize;
        let block = self.blocks.get_mut(index).expect("slots come from `store`");
        block.live -= 1;
        block.live_bytes -= size as usize;
        let number = number_of(slot);
        if let Some(at) = self.slots.get_mut(number as usize) {
            *at = FREE;
            self.free_slots.push(number);
        }
        self.reuse_if_empty(index);
    }

    /// Returns the allocated memory in bytes, in use or not.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes.capacity()).sum()
    }

    fn at(&self, slot: ArenaSlot) -> Location {
        let at = self.slots.get(number_of(slot) as usize).copied().unwrap_or(FREE);
        assert!(at != FREE, "{slot:?} is free");
        at
    }

    fn reuse_if_empty(&mut self, index: usize) {
        let block = self.blocks.get_mut(index).expect("the block exists");
        if block.live > 0 {
            return;
        }
        block.bytes.clear();
        if block.bytes.capacity() > BLOCK_BYTES {
            block.bytes = Vec::new();
            self.vacant.push(index);
        } else if self.current != Some(index) {
            self.free.push(index);
        }
    }

    /// Packs the headers and counts them.
    fn pack<'h>(&mut self, headers: impl Iterator<Item = Header<'h>>) -> u32 {
        self.packed.clear();
        let mut count = 0;
        for (name, value) in headers {
            self.packed.extend_from_slice(&small(name.len()).to_le_bytes());
            self.packed.extend_from_slice(&length_of(value).to_le_bytes());
            self.packed.extend_from_slice(name);
            self.packed.extend_from_slice(value.unwrap_or_default());
            count += 1;
        }
        count
    }

    /// Returns the index of a block with this free capacity. It becomes the current block unless the record is larger
    /// than a block.
    fn block_with_capacity(&mut self, size: usize) -> usize {
        if size > BLOCK_BYTES {
            return self.add(size);
        }
        if let Some(current) = self.current
            && self.has_capacity(current, size)
        {
            return current;
        }
        if let Some(full) = self.current.take() {
            self.reuse_if_empty(full);
        }
        let next = self.free.pop().unwrap_or_else(|| self.add(BLOCK_BYTES));
        self.current = Some(next);
        self.compact_sparsest_block(next);
        if self.has_capacity(next, size) { next } else { self.block_with_capacity(size) }
    }

    fn has_capacity(&self, index: usize, size: usize) -> bool {
        self.blocks.get(index).is_some_and(|block| block.bytes.len() + size <= BLOCK_BYTES)
    }

    /// Moves the records of the emptiest block to the end of block `to`, if enough blocks are in use and at least half
    /// of their memory is unused.
    fn compact_sparsest_block(&mut self, to: usize) {
        let used = self.blocks.len() - self.free.len() - self.vacant.len();
        let live: usize = self.blocks.iter().map(|block| block.live_bytes).sum();
        if used < BLOCKS_MIN || 2 * live > used * BLOCK_BYTES {
            return;
        }
        let sparse = |(index, block): &(usize, &Block)| {
            *index != to
                && block.live > 0
                && block.live_bytes <= SPARSE_BYTES
                && block.bytes.len() <= BLOCK_BYTES
        };
        let sparsest =
            self.blocks.iter().enumerate().filter(sparse).min_by_key(|(_, block)| block.live_bytes);
        if let Some(from) = sparsest.map(|(index, _)| index) {
            self.move_records(from, to);
        }
    }

    fn move_records(&mut self, from: usize, to: usize) {
        let source = self.blocks.get_mut(from).expect("the block exists");
        let bytes = std::mem::take(&mut source.bytes);
        let (live, live_bytes) = (std::mem::take(&mut source.live), std::mem::take(&mut source.live_bytes));
        let target = self.blocks.get_mut(to).expect("the block exists");
        let mut offset = 0;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let packed = Packed::read(rest);
            let here = Location { block: small(from), offset: small(offset), size: small(packed.size) };
            if let Some(at) = self.slots.get_mut(packed.slot as usize).filter(|at| **at == here) {
                *at = Location { block: small(to), offset: small(target.bytes.len()), ..here };
                target.bytes.extend_from_slice(rest.get(..packed.size).unwrap_or_default());
            }
            offset += packed.size;
        }
        target.live += live;
        target.live_bytes += live_bytes;
        if let Some(source) = self.blocks.get_mut(from) {
            source.bytes = bytes;
        }
        self.reuse_if_empty(from);
    }

    fn add(&mut self, capacity: usize) -> usize {
        let block = Block { bytes: Vec::with_capacity(capacity), live: 0, live_bytes: 0 };
        if let Some(index) = self.vacant.pop()
            && let Some(slot) = self.blocks.get_mut(index)
        {
            *slot = block;
            return index;
        }
        self.blocks.push(block);
        self.blocks.len() - 1
    }
}

/// A record as stored in its block.
struct Packed<'a> {
    slot: u32,
    /// Its size in bytes.
    size: usize,
    record: ArenaRecord<'a>,
}

impl<'a> Packed<'a> {
    /// Reads the record at the beginning of `bytes`.
    fn read(bytes: &'a [u8]) -> Packed<'a> {
        let mut rest = bytes;
        let [slot, key, value, headers, count] = [(); PREAMBLE].map(|()| take_length(&mut rest));
        let key = take_optional(&mut rest, key);
        let value = take_optional(&mut rest, value);
        let headers = Headers { packed: take(&mut rest, headers), left: count & !LOG_APPEND_TIME };
        let size = bytes.len() - rest.len();
        let log_append_time = count & LOG_APPEND_TIME != 0;
        Packed { slot, size, record: ArenaRecord { key, value, headers, log_append_time } }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let name = take_length(&mut self.packed);
        let value = take_length(&mut self.packed);
        let name = take(&mut self.packed, name);
        Some((name, take_optional(&mut self.packed, value)))
    }
}

fn take_slot(slots: &mut Vec<Location>, free: &mut Vec<u32>, at: Location) -> u32 {
    let number = free.pop().unwrap_or_else(|| {
        slots.push(FREE);
        small(slots.len() - 1)
    });
    if let Some(slot) = slots.get_mut(number as usize) {
        *slot = at;
    }
    number
}

fn number_of(slot: ArenaSlot) -> u32 {
    u32::try_from(slot.0).expect("slots come from `store`")
}

/// Converts a length or an index to 32 bits. Kafka's own lengths have 31 bits.
fn small(length: usize) -> u32 {
    u32::try_from(length).expect("a record is smaller than 2 GiB")
}

fn length_of(bytes: Option<&[u8]>) -> u32 {
    bytes.map_or(ABSENT, |bytes| small(bytes.len()))
}

fn take_length(bytes: &mut &[u8]) -> u32 {
    let (length, rest) = bytes.split_first_chunk::<4>().expect("`store` wrote a length here");
    *bytes = rest;
    u32::from_le_bytes(*length)
}

fn take<'a>(bytes: &mut &'a [u8], length: u32) -> &'a [u8] {
    let (taken, rest) =
        bytes.split_at_checked(length as usize).expect("`store` wrote this number of bytes here");
    *bytes = rest;
    taken
}

fn take_optional<'a>(bytes: &mut &'a [u8], length: u32) -> Option<&'a [u8]> {
    (length != ABSENT).then(|| take(bytes, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(
        arena: &mut Arena,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> ArenaSlot {
        arena.store(key, value, headers.iter().copied(), false).0
    }

    #[test]
    fn the_timestamp_type_is_kept() {
        let mut arena = Arena::default();
        let (of_broker, _) = arena.store(None, None, [(&b"h"[..], None)].into_iter(), true);
        let of_producer = store(&mut arena, None, None, &[(b"h", None)]);
        assert!(arena.get(of_broker).log_append_time && !arena.get(of_producer).log_append_time);
        assert_eq!(arena.get(of_broker).headers.collect::<Vec<_>>(), [(&b"h"[..], None)]);
    }

    #[test]
    fn records_are_returned_unchanged() {
        let mut arena = Arena::default();
        let headers: [Header<'_>; 3] = [(b"a", Some(b"1")), (b"\xff\x00", None), (b"a", Some(b""))];
        let full = store(&mut arena, Some(b"key"), Some(b"value"), &headers);
        let empty = store(&mut arena, Some(b""), Some(b""), &[]);
        let absent = store(&mut arena, None, None, &[]);
        assert_eq!(arena.get(full).headers.collect::<Vec<_>>(), headers);
        assert_eq!(arena.get(full).key, Some(&b"key"[..]));
        assert_eq!((arena.get(empty).key, arena.get(empty).value), (Some(&b""[..]), Some(&b""[..])));
        assert_eq!((arena.get(absent).key, arena.get(absent).value), (None, None));
    }

    #[test]
    fn blocks_are_reused_and_large_ones_freed() {
        let mut arena = Arena::default();
        let value = vec![7; 1000];
        for _ in 0..10 {
            let slots: Vec<_> = (0..1000).map(|_| store(&mut arena, None, Some(&value), &[])).collect();
            slots.into_iter().for_each(|slot| arena.release(slot));
        }
        assert!(arena.bytes() <= 6 * BLOCK_BYTES, "{} bytes", arena.bytes());
        let before = arena.bytes();
        let large = store(&mut arena, None, Some(&vec![1; 3 << 20]), &[]);
        assert_eq!(arena.get(large).value.map(<[u8]>::len), Some(3 << 20));
        arena.release(large);
        assert_eq!(arena.bytes(), before);
    }

    #[test]
    fn a_few_long_lived_records_do_not_pin_the_memory_of_others() {
        let mut arena = Arena::default();
        let value = vec![7; 1000];
        let mut kept = Vec::new();
        for number in 0..200_000_u32 {
            let key = number.to_le_bytes();
            let slot = store(&mut arena, Some(&key), Some(&value), &[(b"h", Some(&key))]);
            if number % 400 == 0 {
                kept.push((slot, key));
            } else {
                arena.release(slot);
            }
        }
        assert!(arena.bytes() < 12 << 20, "{} bytes for {} records", arena.bytes(), kept.len());
        for (slot, key) in kept {
            let record = arena.get(slot);
            assert_eq!((record.key, record.value), (Some(&key[..]), Some(&value[..])));
            assert_eq!(record.headers.collect::<Vec<_>>(), [(&b"h"[..], Some(&key[..]))]);
            arena.release(slot);
        }
    }
}
