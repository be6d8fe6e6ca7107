//! The ledger of one ownership: its open events, and the committable offset.
//!
//! Only *open* events are kept, one bit each. Every offset below `next` without an open bit is settled, or does not
//! exist: gaps of any size cost nothing. The bits are kept in chunks of 32,768 offsets (4 KiB). A chunk without an open
//! event is freed at once, so memory depends on the open events. The chunks take at most `max_window` / 8 bytes, plus
//! what one read adds.

use std::collections::VecDeque;

const WORDS: usize = 512;
/// Offsets per chunk: 64 per word.
const CHUNK: i64 = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 15;
/// Chunks kept for reuse: enough that the steady state allocates nothing, and few enough that a partition does not
/// keep the memory of its widest window.
const SPARE_MAX: usize = 8;

/// The open events of one partition, and the claims of earlier owners that were not read yet.
#[derive(Debug, Default)]
pub struct Ledger {
    /// One past the highest offset that was entered or passed: the next offset to read.
    next: i64,
    /// Chunks with open events, by ascending base.
    chunks: Vec<Chunk>,
    /// The cleared bits of freed chunks, at most `SPARE_MAX`.
    spare: Vec<Box<[u64; WORDS]>>,
    open: u64,
    /// Offsets at or past `next` that an earlier owner settled: ascending, disjoint `[from, to)`.
    claims: VecDeque<(i64, i64)>,
}

#[derive(Debug)]
struct Chunk {
    base: i64,
    open: u32,
    /// No word before it has an open bit.
    first_word: usize,
    bits: Box<[u64; WORDS]>,
}

impl Ledger {
    /// Resets the ledger to begin at `start`. `claims` are the offsets beyond it that an earlier owner settled,
    /// ascending `[from, to)`.
    pub fn begin(&mut self, start: i64, claims: &[(i64, i64)]) {
        while let Some(chunk) = self.chunks.pop() {
            self.recycle(chunk);
        }
        self.open = 0;
        self.next = start;
        self.claims.clear();
        self.claims.extend(claims.iter().copied().filter(|&(from, to)| from >= start && to > from));
    }

    /// Returns the committable offset: every offset below it is settled. It is past `next` if a claim begins at `next`.
    pub fn committable(&self) -> i64 {
        if let Some(chunk) = self.chunks.first() {
            return chunk.first_open();
        }
        match self.claims.front() {
            Some(&(from, to)) if from == self.next => to,
            Some(_) | None => self.next,
        }
    }

    /// Returns the next offset to read.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Returns the number of events entered and not settled.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Returns the number of offsets between the committable offset and the highest entered one.
    pub fn window(&self) -> u64 {
        u64::try_from(self.next - self.committable()).unwrap_or(0)
    }

    /// Returns the number of offsets beyond the committable offset that need no processing: settled, claimed or
    /// missing.
    pub fn completed_beyond(&self) -> u64 {
        let committable = self.committable();
        let claimed: i64 = self.claims.iter().map(|&(from, to)| (to - from.max(committable)).max(0)).sum();
        self.window() - self.open + u64::try_from(claimed).expect("no term is negative")
    }

    /// Enters an event that was read. Returns true if it is open, false if an earlier owner settled it.
    ///
    /// Offsets between the previous event and this one count as missing: the caller has verified the position.
    pub fn enter(&mut self, offset: i64) -> bool {
        assert!(offset >= self.next, "offset {offset} was entered before; next is {}", self.next);
        self.next = offset + 1;
        while self.claims.front().is_some_and(|&(_, to)| to <= offset) {
            self.claims.pop_front();
        }
        if let Some(claim) = self.claims.front_mut()
            && claim.0 <= offset
        {
            claim.0 = offset + 1;
            if claim.0 == claim.1 {
                self.claims.pop_front();
            }
            return false;
        }
        self.set_open(offset);
        true
    }

    /// Marks every offset below `offset` that was not entered as missing.
    pub fn pass(&mut self, offset: i64) {
        if offset <= self.next {
            return;
        }
        self.next = offset;
        while let Some(claim) = self.claims.front_mut() {
            claim.0 = claim.0.max(offset);
            if claim.0 < claim.1 {
                break;
            }
            self.claims.pop_front();
        }
    }

    /// Settles an open event.
    pub fn settle(&mut self, offset: i64) {
        let at = self.position(offset).unwrap_or(usize::MAX);
        let chunk = self.chunks.get_mut(at);
        let left = chunk.and_then(|chunk| chunk.clear(offset).then_some(chunk.open));
        assert!(left.is_some(), "offset {offset} was not open");
        self.open -= 1;
        if left == Some(0) {
            let chunk = self.chunks.remove(at); // moves the few chunks after it, once per 32,768 offsets
            self.recycle(chunk);
        }
    }

    /// Returns the runs beyond the committable offset: alternately not settled and settled, from
    /// [`Ledger::committable`] on.
    pub fn runs(&self) -> Runs<'_> {
        Runs { ledger: self, at: self.committable(), chunk: 0, claim: 0 }
    }

    fn set_open(&mut self, offset: i64) {
        let base = base_of(offset);
        if self.chunks.last().is_none_or(|chunk| chunk.base != base) {
            let bits = self.spare.pop().unwrap_or_else(|| Box::new([0; WORDS]));
            self.chunks.push(Chunk { base, open: 0, first_word: 0, bits });
        }
        let chunk = self.chunks.last_mut().expect("a chunk was pushed above");
        chunk.set(offset);
        self.open += 1;
    }

    /// Returns the index of an offset's chunk, or the index to insert it at.
    fn position(&self, offset: i64) -> Result<usize, usize> {
        let base = base_of(offset);
        let Some(first) = self.chunks.first() else { return Err(0) };
        // The chunks are usually dense, so the index can be computed.
        if let Ok(guess) = usize::try_from((base - first.base) >> CHUNK_BITS)
            && self.chunks.get(guess).is_some_and(|chunk| chunk.base == base)
        {
            return Ok(guess);
        }
        self.chunks.binary_search_by_key(&base, |chunk| chunk.base)
    }

    fn recycle(&mut self, mut chunk: Chunk) {
        if self.spare.len() >= SPARE_MAX {
            return;
        }
        if chunk.open > 0 {
            chunk.bits.fill(0);
        }
        self.spare.push(chunk.bits);
    }
}

impl Chunk {
    fn word_index(&self, offset: i64) -> usize {
        usize::try_from(offset - self.base).expect("an offset of this chunk") / 64
    }

    fn set(&mut self, offset: i64) {
        let index = self.word_index(offset);
        if self.open == 0 {
            self.first_word = index;
        }
        if let Some(word) = self.bits.get_mut(index) {
            *word |= bit(offset);
            self.open += 1;
        }
    }

    /// Clears the bit of an offset. Returns true if it was open.
    fn clear(&mut self, offset: i64) -> bool {
        let index = self.word_index(offset);
        let Some(word) = self.bits.get_mut(index) else { return false };
        let was_open = *word & bit(offset) != 0;
        if was_open {
            *word &= !bit(offset);
            self.open -= 1;
        }
        while self.open > 0 && self.bits.get(self.first_word) == Some(&0) {
            self.first_word += 1;
        }
        was_open
    }

    fn first_open(&self) -> i64 {
        self.first_at_or_after(self.base, |word| word).expect("a chunk without an open event is freed")
    }

    /// Returns the first offset from `from` on whose bit is set in `view(word)`.
    fn first_at_or_after(&self, from: i64, view: impl Fn(u64) -> u64) -> Option<i64> {
        let start = self.word_index(from);
        let mut index = start;
        let mut mask = u64::MAX << ((from - self.base) % 64);
        if view(0) == 0 && index < self.first_word {
            // The search is for open bits: there are none before `first_word`.
            index = self.first_word;
            mask = u64::MAX;
        }
        while let Some(&word) = self.bits.get(index) {
            let found = view(word) & mask;
            if found != 0 {
                let within = 64 * i64::try_from(index).expect("at most 512 words");
                return Some(self.base + within + i64::from(found.trailing_zeros()));
            }
            mask = u64::MAX;
            index += 1;
        }
        None
    }
}

fn bit(offset: i64) -> u64 {
    1 << (offset & 63)
}

/// Returns the first offset of the chunk that contains an offset.
fn base_of(offset: i64) -> i64 {
    offset & !(CHUNK - 1)
}

/// Alternating runs beyond the committable offset, as pairs (number of offsets not settled, number of settled offsets
/// after them).
///
/// Both are at least 1. Offsets past the last settled one are in no pair.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    ledger: &'a Ledger,
    at: i64,
    chunk: usize,
    claim: usize,
}

impl Iterator for Runs<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let from = self.first_settled(self.at)?;
        let end = self.first_not_settled(from);
        let open = u64::try_from(from - self.at).ok()?;
        let settled = u64::try_from(end - from).ok()?;
        self.at = end;
        Some((open, settled))
    }
}

impl Runs<'_> {
    /// Returns the first settled offset from `from` on.
    fn first_settled(&mut self, from: i64) -> Option<i64> {
        let mut at = from;
        while at < self.ledger.next {
            match self.chunk_at(at) {
                Some(chunk) if chunk.base <= at => match chunk.first_at_or_after(at, |word| !word) {
                    Some(found) => {
                        at = found;
                        break;
                    }
                    None => at = chunk.base + CHUNK,
                },
                Some(_) | None => break,
            }
        }
        if at < self.ledger.next {
            return Some(at);
        }
        let at = from.max(self.ledger.next);
        while self.ledger.claims.get(self.claim).is_some_and(|&(_, to)| to <= at) {
            self.claim += 1;
        }
        self.ledger.claims.get(self.claim).map(|&(claimed, _)| claimed.max(at))
    }

    /// Returns the first offset from `from` on that is not settled; `from` is settled.
    fn first_not_settled(&mut self, from: i64) -> i64 {
        let mut at = from;
        while at < self.ledger.next {
            let Some(chunk) = self.chunk_at(at) else { break };
            if let Some(found) = chunk.first_at_or_after(at.max(chunk.base), |word| word) {
                return found;
            }
            at = chunk.base + CHUNK;
        }
        // All entered offsets from here on are settled. Claims may continue the run.
        let mut end = from.max(self.ledger.next);
        while let Some(&(claimed, to)) = self.ledger.claims.get(self.claim) {
            if claimed > end {
                break;
            }
            end = end.max(to);
            self.claim += 1;
        }
        end
    }

    /// Returns the first chunk that ends past `at`.
    fn chunk_at(&mut self, at: i64) -> Option<&Chunk> {
        while self.ledger.chunks.get(self.chunk).is_some_and(|chunk| chunk.base + CHUNK <= at) {
            self.chunk += 1;
        }
        self.ledger.chunks.get(self.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(start: i64, claims: &[(i64, i64)]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begin(start, claims);
        ledger
    }

    #[test]
    fn the_prefix_follows_the_lowest_open_event() {
        let mut l = ledger(10, &[]);
        for offset in 10..15 {
            assert!(l.enter(offset));
        }
        l.settle(11);
        l.settle(13);
        assert_eq!((l.committable(), l.next(), l.open()), (10, 15, 3));
        assert_eq!(l.runs().collect::<Vec<_>>(), [(1, 1), (1, 1)]);
        l.settle(10);
        assert_eq!(l.committable(), 12);
        l.settle(12);
        l.settle(14);
        assert_eq!((l.committable(), l.window()), (15, 0));
        assert_eq!(l.runs().count(), 0);
    }

    #[test]
    fn gaps_of_any_size_are_settled_and_free() {
        let mut l = ledger(0, &[]);
        l.enter(0);
        l.enter(5_000_000_000);
        assert_eq!(l.chunks.len(), 2);
        assert_eq!(l.runs().collect::<Vec<_>>(), [(1, 4_999_999_999)]);
        l.settle(0);
        assert_eq!(l.committable(), 5_000_000_000);
        l.pass(6_000_000_000);
        l.settle(5_000_000_000);
        assert_eq!(l.committable(), 6_000_000_000);
    }

    #[test]
    fn claims_are_settled_when_read_and_kept_until_then() {
        let mut l = ledger(5, &[(7, 9), (12, 14)]);
        assert_eq!(l.runs().collect::<Vec<_>>(), [(2, 2), (3, 2)]);
        assert!(l.enter(5));
        assert!(l.enter(6));
        assert!(!l.enter(7));
        assert_eq!(l.runs().collect::<Vec<_>>(), [(2, 2), (3, 2)]);
        l.settle(5);
        l.settle(6);
        assert_eq!((l.committable(), l.completed_beyond()), (9, 2));
        l.enter(9);
        l.pass(13);
        assert_eq!((l.committable(), l.completed_beyond()), (9, 4));
        assert!(!l.enter(13));
        l.settle(9);
        assert_eq!(l.committable(), 14);
    }

    #[test]
    fn the_prefix_passes_a_claim_that_begins_at_it() {
        let mut l = ledger(5, &[(6, 9), (10, 12)]);
        l.enter(5);
        l.settle(5);
        assert_eq!((l.next(), l.committable(), l.window()), (6, 9, 0));
        assert_eq!(l.runs().collect::<Vec<_>>(), [(1, 2)]);
        assert!(!l.enter(6));
        assert_eq!(l.committable(), 9);
    }

    #[test]
    fn the_memory_of_a_wide_window_is_given_back() {
        let mut l = ledger(0, &[]);
        let offsets: Vec<_> = (0..1000).map(|chunk| chunk * CHUNK).collect();
        offsets.iter().for_each(|&offset| assert!(l.enter(offset)));
        assert_eq!(l.chunks.len(), 1000);
        offsets.iter().for_each(|&offset| l.settle(offset));
        assert_eq!((l.chunks.len(), l.spare.len()), (0, SPARE_MAX));
        offsets.iter().for_each(|&offset| assert!(l.enter(offset + 1000 * CHUNK)));
        l.begin(0, &[]);
        assert_eq!((l.chunks.len(), l.spare.len()), (0, SPARE_MAX));
        l.enter(7);
        assert_eq!((l.committable(), l.runs().count()), (7, 0), "reused bits are clear");
    }

    #[test]
    #[should_panic(expected = "was not open")]
    fn an_event_settles_once() {
        let mut l = ledger(0, &[]);
        l.enter(0);
        l.settle(0);
        l.settle(0);
    }
}
