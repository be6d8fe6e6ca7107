//! The bytes of events from fetch to their ending: copied out of the client's buffers at once, so that no fetch buffer is
//! pinned.
//!
//! Records lie back to back in blocks. A block is reused when nothing in it is needed any more; records larger than
//! a block get one of their own, which is given back to the system. An event that waits for a retry may need its record
//! for minutes: when blocks are mostly holes, what is left in the emptiest one is moved together with newer records. A
//! place therefore names a record, not an address.

use keylane_core::ArenaSlot;

const BLOCK_BYTES: usize = 256 << 10;
/// A block with so little left in it may be emptied.
const SPARSE_BYTES: usize = BLOCK_BYTES / 4;
/// Below this many blocks nothing is moved.
const BLOCKS_MIN: usize = 32;
/// Marks an absent key, value or header value, as on Kafka's own wire.
const ABSENT: u32 = u32::MAX;
/// Number of the place, key length, value length, length of the headers, number of headers and [`LOG_APPEND_TIME`].
const PREAMBLE: usize = 5;
const PREAMBLE_BYTES: usize = 4 * PREAMBLE;
/// Stands beside the number of headers: the record's time is that of the broker which stored it.
const LOG_APPEND_TIME: u32 = 1 << 31;
/// What the core keeps per queued event, about.
const BOOKKEEPING_BYTES: usize = 64;

/// Bytes of records between fetch and ending. One owner, no locks.
#[derive(Debug, Default)]
pub struct Arena {
    blocks: Vec<Block>,
    /// Blocks of the usual size with nothing in them.
    free: Vec<usize>,
    /// Positions in `blocks` whose memory was given back.
    vacant: Vec<usize>,
    current: Option<usize>,
    /// By the number of a place.
    places: Vec<At>,
    free_places: Vec<u32>,
    /// The headers of the record being stored: they are dear to walk, so they are walked once.
    packed: Vec<u8>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    live: u32,
    live_bytes: usize,
}

/// Where a record is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    block: u32,
    offset: u32,
    /// Bytes that it takes there: to forget a record is no reason to look at it.
    size: u32,
}

/// Nowhere: the place is free.
const NOWHERE: At = At { block: u32::MAX, offset: 0, size: 0 };

/// A header as it came: the name is bytes, too.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A record as it was read, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord<'a> {
    /// Absent and empty differ.
    pub key: Option<&'a [u8]>,
    /// Absent: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers still packed.
    pub headers: Headers<'a>,
    /// Its time is that of the broker which stored it.
    pub log_append_time: bool,
}

/// Packed headers, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    packed: &'a [u8],
    left: u32,
}

impl Arena {
    /// Copies a record in. Gives its place and the bytes it counts as.
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
        let index = self.block_with_room(size);
        let block = self.blocks.get_mut(index).expect("a block that exists");
        let at = At { block: small(index), offset: small(block.bytes.len()), size: small(size) };
        let place = take_place(&mut self.places, &mut self.free_places, at);
        for number in [place, length_of(key), length_of(value), small(self.packed.len()), count] {
            block.bytes.extend_from_slice(&number.to_le_bytes());
        }
        block.bytes.extend_from_slice(key.unwrap_or_default());
        block.bytes.extend_from_slice(value.unwrap_or_default());
        block.bytes.extend_from_slice(&self.packed);
        block.live += 1;
        block.live_bytes += size;
        (ArenaSlot(place.into()), small(size + BOOKKEEPING_BYTES))
    }

    /// A record that was stored and not released.
    pub fn get(&self, place: ArenaSlot) -> StoredRecord<'_> {
        let At { block, offset, .. } = self.at(place);
        let block = self.blocks.get(block as usize).expect("places come from `store`");
        let bytes = block.bytes.get(offset as usize..).expect("places come from `store`");
        Packed::read(bytes).record
    }

    /// Forgets a record.
    pub fn release(&mut self, place: ArenaSlot) {
        let At { block, size, .. } = self.at(place);
        let index = block as usize;
        let block = self.blocks.get_mut(index).expect("places come from `store`");
        block.live -= 1;
        block.live_bytes -= size as usize;
        let number = number_of(place);
        if let Some(at) = self.places.get_mut(number as usize) {
            *at = NOWHERE;
            self.free_places.push(number);
        }
        self.reuse_if_empty(index);
    }

    /// Memory held, in use or not.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes.capacity()).sum()
    }

    fn at(&self, place: ArenaSlot) -> At {
        let at = self.places.get(number_of(place) as usize).copied().unwrap_or(NOWHERE);
        assert!(at != NOWHERE, "{place:?} holds nothing");
        at
    }

    fn reuse_if_empty(&mut self, index: usize) {
        let block = self.blocks.get_mut(index).expect("a block that exists");
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

    /// Index of a block with so much room; it is the current one unless the record is larger than a block.
    fn block_with_room(&mut self, size: usize) -> usize {
        if size > BLOCK_BYTES {
            return self.add(size);
        }
        if let Some(current) = self.current
            && self.has_room(current, size)
        {
            return current;
        }
        if let Some(full) = self.current.take() {
            self.reuse_if_empty(full);
        }
        let next = self.free.pop().unwrap_or_else(|| self.add(BLOCK_BYTES));
        self.current = Some(next);
        self.empty_a_sparse_block(next);
        if self.has_room(next, size) { next } else { self.block_with_room(size) }
    }

    fn has_room(&self, index: usize, size: usize) -> bool {
        self.blocks.get(index).is_some_and(|block| block.bytes.len() + size <= BLOCK_BYTES)
    }

    /// If most of the memory is holes, moves what is left in the emptiest block to the end of another.
    fn empty_a_sparse_block(&mut self, to: usize) {
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
        let source = self.blocks.get_mut(from).expect("a block that exists");
        let bytes = std::mem::take(&mut source.bytes);
        let (live, live_bytes) = (std::mem::take(&mut source.live), std::mem::take(&mut source.live_bytes));
        let target = self.blocks.get_mut(to).expect("a block that exists");
        let mut offset = 0;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let packed = Packed::read(rest);
            let here = At { block: small(from), offset: small(offset), size: small(packed.size) };
            if let Some(at) = self.places.get_mut(packed.place as usize).filter(|at| **at == here) {
                *at = At { block: small(to), offset: small(target.bytes.len()), ..here };
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

/// A record as it lies in its block.
struct Packed<'a> {
    place: u32,
    /// Bytes that it takes there.
    size: usize,
    record: StoredRecord<'a>,
}

impl<'a> Packed<'a> {
    /// The record that begins here.
    fn read(bytes: &'a [u8]) -> Packed<'a> {
        let mut rest = bytes;
        let [place, key, value, headers, count] = [(); PREAMBLE].map(|()| take_length(&mut rest));
        let key = take_optional(&mut rest, key);
        let value = take_optional(&mut rest, value);
        let headers = Headers { packed: take(&mut rest, headers), left: count & !LOG_APPEND_TIME };
        let size = bytes.len() - rest.len();
        let log_append_time = count & LOG_APPEND_TIME != 0;
        Packed { place, size, record: StoredRecord { key, value, headers, log_append_time } }
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

fn take_place(places: &mut Vec<At>, free: &mut Vec<u32>, at: At) -> u32 {
    let number = free.pop().unwrap_or_else(|| {
        places.push(NOWHERE);
        small(places.len() - 1)
    });
    if let Some(place) = places.get_mut(number as usize) {
        *place = at;
    }
    number
}

fn number_of(place: ArenaSlot) -> u32 {
    u32::try_from(place.0).expect("places come from `store`")
}

/// Kafka's own lengths are 31 bits.
fn small(length: usize) -> u32 {
    u32::try_from(length).expect("a record is below 2 GiB")
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
    let (taken, rest) = bytes.split_at_checked(length as usize).expect("`store` wrote so many bytes here");
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
    fn whose_time_it_is_comes_back() {
        let mut arena = Arena::default();
        let (of_broker, _) = arena.store(None, None, [(&b"h"[..], None)].into_iter(), true);
        let of_producer = store(&mut arena, None, None, &[(b"h", None)]);
        assert!(arena.get(of_broker).log_append_time && !arena.get(of_producer).log_append_time);
        assert_eq!(arena.get(of_broker).headers.collect::<Vec<_>>(), [(&b"h"[..], None)]);
    }

    #[test]
    fn bytes_come_back_as_they_went_in() {
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
    fn blocks_are_reused_and_large_ones_given_back() {
        let mut arena = Arena::default();
        let value = vec![7; 1000];
        for _ in 0..10 {
            let places: Vec<_> = (0..1000).map(|_| store(&mut arena, None, Some(&value), &[])).collect();
            places.into_iter().for_each(|place| arena.release(place));
        }
        assert!(arena.bytes() <= 6 * BLOCK_BYTES, "{} bytes", arena.bytes());
        let before = arena.bytes();
        let large = store(&mut arena, None, Some(&vec![1; 3 << 20]), &[]);
        assert_eq!(arena.get(large).value.map(<[u8]>::len), Some(3 << 20));
        arena.release(large);
        assert_eq!(arena.bytes(), before);
    }

    #[test]
    fn a_few_records_that_stay_do_not_hold_the_memory_of_all_the_others() {
        let mut arena = Arena::default();
        let value = vec![7; 1000];
        let mut stay = Vec::new();
        for number in 0..200_000_u32 {
            let key = number.to_le_bytes();
            let place = store(&mut arena, Some(&key), Some(&value), &[(b"h", Some(&key))]);
            if number % 400 == 0 {
                stay.push((place, key));
            } else {
                arena.release(place);
            }
        }
        assert!(arena.bytes() < 12 << 20, "{} bytes for {} records", arena.bytes(), stay.len());
        for (place, key) in stay {
            let record = arena.get(place);
            assert_eq!((record.key, record.value), (Some(&key[..]), Some(&value[..])));
            assert_eq!(record.headers.collect::<Vec<_>>(), [(&b"h"[..], Some(&key[..]))]);
            arena.release(place);
        }
    }
}
