//! The completed set in the commit metadata: format `kl1`.
//!
//! ```text
//! metadata := ""                       nothing is claimed beyond the committed offset
//!           | "kl1:" base64url(P)      without padding
//! P        := 0x02 topic id[16] k0:u8 k1:u8 n:LEB128 bits crc:u32be
//! bits     := n × ( rice(k0, a−1) rice(k1, c−1) )     most significant bit first, zero padded
//!             a: offsets not settled, c: offsets settled after them; the first a begins at the committed offset
//! rice(k, x) := x>>k one-bits, a zero bit, the k low bits of x       if x>>k < 24
//!             | 24 one-bits, the bit length of x in 6 bits, x        otherwise: long runs stay short
//! crc      := CRC-32 of partition:i32be | committed offset:i64be | P without crc
//! ```
//!
//! The checksum binds a set to its topic, partition and offset: metadata that was copied, or kept while a tool moved
//! the offset, claims nothing. Nor does any other invalid set.
//!
//! The topic's id is written even if nothing is claimed: a topic that was recreated has another id, and a late
//! commit of its former readers must not skip its records.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bits::{BitReader, BitWriter};

const PREFIX: &str = "kl1:";
const VERSION: u8 = 2;
const QUOTIENT_LIMIT: u32 = 24;
/// Version, topic id, k0, k1, up to three bytes of count, checksum.
const OVERHEAD_BYTES: usize = 1 + 16 + 2 + 3 + 4;
/// Characters of a set that claims nothing: the overhead without two bytes of the count, in base64.
const EMPTY_CHARACTERS: usize = PREFIX.len() + (4 * (OVERHEAD_BYTES - 2)).div_ceil(3);
/// The largest parameter of the Rice code. Larger parameters gain nothing.
const K_MAX: u8 = 31;

/// The identity that a set is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The topic's id; zeros if the broker returns none.
    pub topic_id: [u8; 16],
    /// Kafka's partition number.
    pub partition: i32,
    /// The offset that the set is committed with.
    pub offset: i64,
}

/// Reused buffers of the encoder.
#[derive(Debug, Default)]
pub struct Encoder {
    /// The runs that may fit, collected once.
    runs: Vec<(u64, u64)>,
    bits: BitWriter,
    packed: Vec<u8>,
}

impl Encoder {
    /// Appends the longest leading part of the set that fits in `limit` characters to `text`.
    ///
    /// `runs` are alternating run lengths, each at least 1: offsets not settled, offsets settled. Returns the number of
    /// settled offsets that the text claims. If that number is 0, only the topic's id is written; without a topic id,
    /// or with too low a limit, nothing is written.
    pub fn encode(
        &mut self,
        identity: &Identity,
        runs: impl Iterator<Item = (u64, u64)>,
        limit: usize,
        text: &mut String,
    ) -> u64 {
        let budget = bit_budget(limit);
        self.collect(runs, budget);
        let mut considered = self.runs.as_slice();
        let mut best = Fit::default();
        for _round in 0..2 {
            let fit = Fit::measure(considered, best_parameters(considered), budget);
            if fit.claimed > best.claimed {
                best = fit;
            }
            if fit.whole || fit.pairs == 0 {
                break;
            }
            // With parameters chosen for the part that fits, more may fit.
            considered = considered.get(..fit.pairs).unwrap_or(considered);
        }
        let names_topic = identity.topic_id != [0; 16] && limit >= EMPTY_CHARACTERS;
        if best.claimed > 0 || names_topic {
            self.write(identity, &best, text);
        }
        best.claimed
    }

    /// Collects as many runs as fit in the best case, and one pair more, which may be truncated.
    fn collect(&mut self, runs: impl Iterator<Item = (u64, u64)>, budget: u64) {
        self.runs.clear();
        let mut left = budget;
        for (open, settled) in runs {
            self.runs.push((open, settled));
            let Some(rest) = left.checked_sub(least_cost(open - 1) + least_cost(settled - 1)) else { break };
            left = rest;
        }
    }

    fn write(&mut self, identity: &Identity, fit: &Fit, text: &mut String) {
        self.packed.clear();
        self.packed.push(VERSION);
        self.packed.extend_from_slice(&identity.topic_id);
        self.packed.extend_from_slice(&[fit.k.0, fit.k.1]);
        write_leb128(&mut self.packed, fit.pairs as u64);
        self.bits.clear();
        for (index, &(open, settled)) in self.runs.iter().take(fit.pairs).enumerate() {
            let settled = if index + 1 == fit.pairs { fit.last_settled } else { settled };
            self.bits.rice(fit.k.0, open - 1);
            self.bits.rice(fit.k.1, settled - 1);
        }
        self.packed.extend_from_slice(self.bits.finish());
        let crc = checksum(identity, &self.packed);
        self.packed.extend_from_slice(&crc.to_be_bytes());
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&self.packed, text);
    }
}

/// Returns the settled offsets `[from, to)` that `metadata` claims beyond `identity.offset`, ascending.
///
/// Returns `None` if the metadata is not a set of ours for exactly this topic, partition and offset, or claims anything
/// at or past `log_end`. Empty metadata is the empty set. A set that was written without a topic id is valid for any
/// id.
pub fn decode(metadata: &[u8], identity: &Identity, log_end: i64) -> Option<Vec<(i64, i64)>> {
    if metadata.is_empty() {
        return Some(Vec::new());
    }
    let (topic_id, body) = unpack(metadata, identity)?;
    if topic_id != identity.topic_id && topic_id != [0; 16] {
        return None;
    }
    let (&[k0, k1], rest) = body.split_first_chunk::<2>()?;
    if k0 > K_MAX || k1 > K_MAX {
        return None;
    }
    let (pairs, bits) = read_leb128(rest)?;
    read_runs(bits, (k0, k1), pairs, identity.offset, log_end)
}

/// Returns whether Keylane made the commit, with exactly this offset, in another topic of the same name.
pub fn is_of_another_topic(metadata: &[u8], identity: &Identity) -> bool {
    let named = |id: [u8; 16]| id != [0; 16];
    unpack(metadata, identity).is_some_and(|(topic_id, _)| {
        named(topic_id) && named(identity.topic_id) && topic_id != identity.topic_id
    })
}

/// Returns the topic's id and the bytes after it, if the checksum matches this partition and offset.
fn unpack(metadata: &[u8], identity: &Identity) -> Option<([u8; 16], Vec<u8>)> {
    let text = metadata.strip_prefix(PREFIX.as_bytes())?;
    let packed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (body, crc) = packed.split_last_chunk::<4>()?;
    if checksum(identity, body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (&VERSION, rest) = body.split_first()? else { return None };
    let (topic_id, rest) = rest.split_first_chunk::<16>()?;
    Some((*topic_id, rest.to_vec()))
}

fn read_runs(bits: &[u8], k: (u8, u8), pairs: u64, start: i64, log_end: i64) -> Option<Vec<(i64, i64)>> {
    if pairs > 4 * bits.len() as u64 {
        return None;
    }
    let mut reader = BitReader::new(bits);
    let mut claims = Vec::new();
    let mut at = start;
    for _ in 0..pairs {
        let open = i64::try_from(reader.rice(k.0)?.checked_add(1)?).ok()?;
        let settled = i64::try_from(reader.rice(k.1)?.checked_add(1)?).ok()?;
        let from = at.checked_add(open)?;
        let to = from.checked_add(settled)?;
        if to > log_end {
            return None;
        }
        claims.push((from, to));
        at = to;
    }
    reader.only_padding_left().then_some(claims)
}

/// Returns the number of bits that the runs may have in a text of at most `limit` characters.
fn bit_budget(limit: usize) -> u64 {
    let bytes = limit.saturating_sub(PREFIX.len()) / 4 * 3;
    8 * bytes.saturating_sub(OVERHEAD_BYTES) as u64
}

/// A leading part of the runs that fits.
#[derive(Clone, Copy, Debug, Default)]
struct Fit {
    k: (u8, u8),
    pairs: usize,
    /// Length of the last settled run, which may be truncated.
    last_settled: u64,
    claimed: u64,
    whole: bool,
}

impl Fit {
    fn measure(runs: &[(u64, u64)], k: (u8, u8), budget: u64) -> Fit {
        let mut fit = Fit { k, whole: true, ..Fit::default() };
        let mut left = budget;
        for &(open, settled) in runs {
            let open_cost = rice_cost(k.0, open - 1);
            if open_cost >= left {
                fit.whole = false;
                break;
            }
            left -= open_cost;
            let taken =
                if rice_cost(k.1, settled - 1) <= left { settled } else { longest_run(k.1, left, settled) };
            if taken == 0 {
                fit.whole = false;
                break;
            }
            left -= rice_cost(k.1, taken - 1);
            fit.pairs += 1;
            fit.last_settled = taken;
            fit.claimed += taken;
            if taken < settled {
                fit.whole = false;
                break;
            }
        }
        fit
    }
}

/// Returns the longest run of at most `limit` that fits in `bits`; 0 if none does.
fn longest_run(k: u8, bits: u64, limit: u64) -> u64 {
    let Some(unary) = bits.checked_sub(u64::from(k) + 1) else { return 0 };
    let quotient = unary.min(u64::from(QUOTIENT_LIMIT) - 1);
    ((quotient << k) + (1 << k)).min(limit)
}

/// Returns the parameters with the shortest encoding of the runs, estimated from their bit lengths.
fn best_parameters(runs: &[(u64, u64)]) -> (u8, u8) {
    let (mut open, mut settled) = (Lengths::new(), Lengths::new());
    for &(open_run, settled_run) in runs {
        open.add(open_run - 1);
        settled.add(settled_run - 1);
    }
    (open.best_parameter(), settled.best_parameter())
}

/// The number of values of each bit length, and their sum.
struct Lengths([(u64, u64); u64::BITS as usize + 1]);

impl Lengths {
    fn new() -> Self {
        Lengths([(0, 0); u64::BITS as usize + 1])
    }

    fn add(&mut self, x: u64) {
        if let Some((count, sum)) = self.0.get_mut(bit_length(x) as usize) {
            *count += 1;
            *sum = sum.saturating_add(x);
        }
    }

    fn best_parameter(&self) -> u8 {
        let used = self.0.iter().filter(|(count, _)| *count > 0);
        let cost =
            |k: u8| -> u64 { used.clone().map(|(count, sum)| count * rice_cost(k, sum / count)).sum() };
        (0..=K_MAX).min_by_key(|&k| cost(k)).unwrap_or(0)
    }
}

fn bit_length(x: u64) -> u32 {
    u64::BITS - x.leading_zeros()
}

fn rice_cost(k: u8, x: u64) -> u64 {
    let quotient = x >> k;
    if quotient < u64::from(QUOTIENT_LIMIT) {
        quotient + 1 + u64::from(k)
    } else {
        u64::from(QUOTIENT_LIMIT + 6 + bit_length(x))
    }
}

/// Returns the number of bits of a value with its best parameter.
fn least_cost(x: u64) -> u64 {
    u64::from(1 + bit_length(x))
}

impl BitWriter {
    fn rice(&mut self, k: u8, x: u64) {
        match u32::try_from(x >> k) {
            Ok(quotient) if quotient < QUOTIENT_LIMIT => {
                self.ones(quotient);
                self.push(x & ((1 << k) - 1), u32::from(k) + 1); // the highest of these bits is the zero bit
            }
            _ => {
                let length = bit_length(x);
                self.ones(QUOTIENT_LIMIT);
                self.push(u64::from(length), 6);
                self.push(x >> 32, length.saturating_sub(32));
                self.push(x & 0xffff_ffff, length.min(32));
            }
        }
    }
}

impl BitReader<'_> {
    fn rice(&mut self, k: u8) -> Option<u64> {
        for quotient in 0..u64::from(QUOTIENT_LIMIT) {
            if self.read(1)? == 0 {
                let low = self.read(u32::from(k))?;
                return Some(quotient << k | low);
            }
        }
        let length = u32::try_from(self.read(6)?).ok()?;
        let x = self.read(length)?;
        // Only the encoding that the writer would choose is valid.
        (x >> k >= u64::from(QUOTIENT_LIMIT) && bit_length(x) == length).then_some(x)
    }
}

fn checksum(identity: &Identity, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&identity.partition.to_be_bytes());
    crc.update(&identity.offset.to_be_bytes());
    crc.update(body);
    crc.finalize()
}

fn write_leb128(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn read_leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(4) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity = Identity { topic_id: [7; 16], partition: 3, offset: 1000 };

    fn round_trip(runs: &[(u64, u64)], limit: usize) -> (String, u64, Vec<(i64, i64)>) {
        let mut text = String::new();
        let claimed = Encoder::default().encode(&ID, runs.iter().copied(), limit, &mut text);
        assert!(text.len() <= limit, "{} characters, limit {limit}", text.len());
        let claims = decode(text.as_bytes(), &ID, i64::MAX).expect("an encoded set can be decoded");
        (text, claimed, claims)
    }

    #[test]
    fn a_set_survives_a_round_trip() {
        let (text, claimed, claims) = round_trip(&[(1, 5), (2, 1), (1, 1_000_000)], 4096);
        assert!(text.starts_with("kl1:"));
        assert_eq!(claimed, 1_000_006);
        assert_eq!(claims, [(1001, 1006), (1008, 1009), (1010, 1_001_010)]);
    }

    #[test]
    fn one_stuck_event_below_a_huge_run_stays_short() {
        let (text, ..) = round_trip(&[(1, 64_000_000)], 4096);
        assert!(text.len() < 60, "{text}");
    }

    #[test]
    fn the_longest_leading_part_is_claimed() {
        let runs: Vec<_> = (0..40_000).map(|i| (1 + i % 3, 1 + i % 5)).collect();
        let (text, claimed, claims) = round_trip(&runs, 4096);
        assert!(text.len() > 4000, "{}", text.len());
        assert_eq!(claimed, claims.iter().map(|&(from, to)| to.abs_diff(from)).sum::<u64>());
        let (_, truncated, _) = round_trip(&[(1, u64::from(u32::MAX))], 54);
        assert!(truncated > 0);
        let mut nothing = String::new();
        assert_eq!(Encoder::default().encode(&ID, [(1, 1)].into_iter(), 8, &mut nothing), 0);
        assert_eq!(nothing, "");
    }

    #[test]
    fn a_set_that_claims_nothing_names_its_topic() {
        let (text, claimed, claims) = round_trip(&[], 4096);
        assert_eq!((text.len(), claimed, claims), (EMPTY_CHARACTERS, 0, vec![]));
        let other = Identity { topic_id: [8; 16], ..ID };
        assert!(is_of_another_topic(text.as_bytes(), &other));
        assert!(!is_of_another_topic(text.as_bytes(), &ID));
        let mut short = String::new();
        Encoder::default().encode(&ID, std::iter::empty(), EMPTY_CHARACTERS - 1, &mut short);
        assert_eq!(short, "", "it exceeds the limit");
    }

    /// A corrupt set, or one of another offset, does not identify its topic.
    #[test]
    fn only_a_valid_set_is_of_another_topic() {
        let (text, ..) = round_trip(&[(1, 5)], 4096);
        let other = Identity { topic_id: [8; 16], ..ID };
        for moved in [Identity { offset: 1001, ..other }, Identity { partition: 4, ..other }] {
            assert!(!is_of_another_topic(text.as_bytes(), &moved), "{moved:?}");
        }
        assert!(!is_of_another_topic(text.as_bytes(), &Identity { topic_id: [0; 16], ..ID }), "no id now");
        for at in 0..text.len() {
            let mut corrupt = text.as_bytes().to_vec();
            corrupt[at] ^= 1;
            assert!(!is_of_another_topic(&corrupt, &other), "byte {at}");
        }
        let mut unnamed = String::new();
        Encoder::default().encode(
            &Identity { topic_id: [0; 16], ..ID },
            [(1, 1)].into_iter(),
            100,
            &mut unnamed,
        );
        assert!(!is_of_another_topic(unnamed.as_bytes(), &other), "written without an id");
    }

    #[test]
    fn an_invalid_or_foreign_set_claims_nothing() {
        let (text, ..) = round_trip(&[(1, 5), (2, 1)], 4096);
        let bytes = text.as_bytes();
        assert!(decode(bytes, &Identity { offset: 1001, ..ID }, i64::MAX).is_none(), "another offset");
        assert!(decode(bytes, &Identity { partition: 4, ..ID }, i64::MAX).is_none(), "another partition");
        assert!(decode(bytes, &Identity { topic_id: [8; 16], ..ID }, i64::MAX).is_none(), "another topic");
        assert!(decode(bytes, &ID, 1008).is_none(), "past the log end");
        assert!(decode(bytes, &ID, 1009).is_some());
        for at in 0..bytes.len() {
            let mut corrupt = bytes.to_vec();
            corrupt[at] ^= 1;
            assert!(decode(&corrupt, &ID, i64::MAX).is_none(), "byte {at}");
            assert!(at == 0 || decode(&bytes[..at], &ID, i64::MAX).is_none(), "truncated at {at}");
        }
        for foreign in [&b"l"[..], b"\xff\xfe", b"kl2:AAAA", b"kl1:", b"kl1:AQ=="] {
            assert!(decode(foreign, &ID, i64::MAX).is_none(), "{foreign:?}");
        }
    }

    #[test]
    fn a_set_written_without_a_topic_id_is_valid_for_any() {
        let unnamed = Identity { topic_id: [0; 16], ..ID };
        let mut text = String::new();
        Encoder::default().encode(&unnamed, [(1, 1)].into_iter(), 100, &mut text);
        assert_eq!(decode(text.as_bytes(), &ID, i64::MAX), Some(vec![(1001, 1002)]));
    }
}
