//! The bytes of queued events: copied out of the client's buffers at once, so that no fetch buffer is pinned.
//!
//! Records lie back to back in blocks. A block is reused when nothing in it is queued any more; records larger than
//! a block get one of their own, which is given back to the system.

use keylane_core::Place;

const BLOCK_BYTES: usize = 256 << 10;
/// Marks an absent key, value or header value, as on Kafka's own wire.
const ABSENT: u32 = u32::MAX;
/// Key length, value length, length of the headers, number of headers.
const PREAMBLE_BYTES: usize = 16;
/// What the core keeps per queued event, about.
const BOOKKEEPING_BYTES: usize = 64;

/// Bytes of records between fetch and dispatch. One owner, no locks.
#[derive(Debug, Default)]
pub struct Arena {
    blocks: Vec<Block>,
    /// Blocks of the usual size with nothing in them.
    free: Vec<usize>,
    /// Places in `blocks` whose memory was given back.
    vacant: Vec<usize>,
    current: Option<usize>,
    /// The headers of the record being stored: they are dear to walk, so they are walked once.
    packed: Vec<u8>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    live: u32,
}

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
    ) -> (Place, u32) {
        let count = self.pack(headers);
        let payload = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + self.packed.len();
        let size = PREAMBLE_BYTES + payload;
        let index = self.block_with_room(size);
        let block = self.blocks.get_mut(index).expect("a block that exists");
        let at = block.bytes.len();
        for length in [length_of(key), length_of(value), small(self.packed.len()), count] {
            block.bytes.extend_from_slice(&length.to_le_bytes());
        }
        block.bytes.extend_from_slice(key.unwrap_or_default());
        block.bytes.extend_from_slice(value.unwrap_or_default());
        block.bytes.extend_from_slice(&self.packed);
        block.live += 1;
        (place(index, at), small(size + BOOKKEEPING_BYTES))
    }

    /// A record that was stored and not released.
    pub fn get(&self, place: Place) -> StoredRecord<'_> {
        let (index, at) = split(place);
        let block = self.blocks.get(index).expect("places come from `store`");
        let mut bytes = block.bytes.get(at..).expect("places come from `store`");
        let [key, value, headers, count] = [(); 4].map(|()| take_length(&mut bytes));
        let key = take_optional(&mut bytes, key);
        let value = take_optional(&mut bytes, value);
        StoredRecord { key, value, headers: Headers { packed: take(&mut bytes, headers), left: count } }
    }

    /// Forgets a record.
    pub fn release(&mut self, place: Place) {
        let (index, _) = split(place);
        let block = self.blocks.get_mut(index).expect("places come from `store`");
        assert!(block.live > 0, "block {index} holds nothing");
        block.live -= 1;
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

    /// Memory held, in use or not.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes.capacity()).sum()
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
            && self.blocks.get(current).is_some_and(|block| block.bytes.len() + size <= BLOCK_BYTES)
        {
            return current;
        }
        if let Some(full) = self.current.take()
            && self.blocks.get(full).is_some_and(|block| block.live == 0)
        {
            self.free.push(full);
        }
        let next = self.free.pop().unwrap_or_else(|| self.add(BLOCK_BYTES));
        self.current = Some(next);
        next
    }

    fn add(&mut self, capacity: usize) -> usize {
        let block = Block { bytes: Vec::with_capacity(capacity), live: 0 };
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

fn place(index: usize, at: usize) -> Place {
    Place(u64::from(small(index)) << 32 | u64::from(small(at)))
}

fn split(place: Place) -> (usize, usize) {
    let low = place.0 & u64::from(u32::MAX);
    (usize::try_from(place.0 >> 32).unwrap_or(usize::MAX), usize::try_from(low).unwrap_or(usize::MAX))
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

    fn store(arena: &mut Arena, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> Place {
        arena.store(key, value, headers.iter().copied()).0
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
}
