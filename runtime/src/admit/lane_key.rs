//! The lane of a record.

use std::cell::RefCell;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use keylane_core::Admission;
use keylane_state::record_key::{self, KeyPart};

use super::json_scalar;
use super::{ArenaRecord, Header};
use crate::config::{LaneKey, NoKey, Ordering};

/// Maps records to lanes by a hash with a random seed, so that producers can't aim keys at one lane.
#[derive(Debug)]
pub struct LaneRule {
    ordering: Ordering,
    from: KeySource,
    no_key: NoKey,
    seed: RandomState,
    /// Number of events without the configured lane key, if that is not the record key.
    without_lane_key: u64,
}

/// The source of a lane key.
#[derive(Debug)]
enum KeySource {
    Key,
    /// The last header with this name.
    Header(Vec<u8>),
    /// The scalar at this JSON pointer, given as its reference tokens.
    Json(Vec<String>),
    /// The scalar at this JSON pointer, after [`REGISTRY_PREFIX`].
    RegistryJson(Vec<String>),
    /// All of these.
    Composite(Vec<KeySource>),
}

/// Bytes before the JSON of schema registry serializers: a zero byte, and the schema id in four bytes.
const REGISTRY_PREFIX: usize = 5;
/// The byte order mark of UTF-8, which some editors and platforms write at the start of a text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl LaneRule {
    /// Creates a rule with a new random seed.
    pub fn new(ordering: Ordering, lane_key: &LaneKey, no_key: NoKey) -> Self {
        LaneRule {
            ordering,
            from: KeySource::new(lane_key),
            no_key,
            seed: RandomState::default(),
            without_lane_key: 0,
        }
    }

    /// Returns the number of events without the configured lane key, if that is not the record key.
    pub fn without_lane_key(&self) -> u64 {
        self.without_lane_key
    }

    /// Returns whether events without a lane key lose their order and are not rejected.
    pub fn loses_order_silently(&self) -> bool {
        self.no_key == NoKey::Spread
    }

    /// Returns whether the rule reads JSON from the first byte of a value that seems to have the prefix of a schema
    /// registry serializer.
    pub fn overlooks_registry(&self, value: Option<&[u8]>) -> bool {
        let has_prefix =
            value.is_some_and(|value| value.len() > REGISTRY_PREFIX && value.first() == Some(&0));
        has_prefix && self.from.is_json()
    }

    /// Returns the lane of a record. An empty key counts as a key.
    pub fn admission<'h, H: Iterator<Item = Header<'h>>>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Fn() -> H,
    ) -> Admission {
        match self.ordering {
            Ordering::Partition => return Admission::Lane(0),
            Ordering::Unordered => return Admission::Unkeyed,
            Ordering::Key => {}
        }
        let hash = self.from.hash(&self.seed, key, value, &headers);
        self.without_lane_key += u64::from(hash.is_none() && !matches!(self.from, KeySource::Key));
        match (hash, self.no_key) {
            (Some(hash), _) => Admission::Lane(hash),
            (None, NoKey::Spread) => Admission::Unkeyed,
            (None, NoKey::Partition) => Admission::Lane(self.seed.hash_one(None::<&[u8]>)),
            (None, NoKey::Reject) => Admission::NoLaneKey,
        }
    }
}

impl LaneRule {
    /// Returns the key of the lane of a record, for reports: the bytes of a key or header, or the text of a JSON
    /// scalar. The parts of a composite key are separated by the character U+001F. `None`: the lane is not that of a
    /// key.
    pub fn lane_key(&self, record: &ArenaRecord<'_>) -> Option<Vec<u8>> {
        if self.ordering != Ordering::Key {
            return None;
        }
        let mut lane_key = Vec::new();
        self.from.append(record, &mut lane_key)?;
        Some(lane_key)
    }
}

impl KeySource {
    fn new(lane_key: &LaneKey) -> KeySource {
        match lane_key {
            LaneKey::Key => KeySource::Key,
            LaneKey::Header(name) => KeySource::Header(name.clone().into_bytes()),
            LaneKey::Json(pointer) => KeySource::Json(json_scalar::pointer(pointer)),
            LaneKey::RegistryJson(pointer) => KeySource::RegistryJson(json_scalar::pointer(pointer)),
            LaneKey::Composite(parts) => KeySource::Composite(parts.iter().map(KeySource::new).collect()),
        }
    }

    fn is_json(&self) -> bool {
        match self {
            KeySource::Json(_) => true,
            KeySource::Composite(parts) => parts.iter().any(KeySource::is_json),
            KeySource::Key | KeySource::Header(_) | KeySource::RegistryJson(_) => false,
        }
    }

    /// Returns the hash of the lane key; `None`: the event does not have all parts of it.
    fn hash<'h, H: Iterator<Item = Header<'h>>>(
        &self,
        seed: &RandomState,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &impl Fn() -> H,
    ) -> Option<u64> {
        let scalar = |json: &[u8], pointer: &[String]| {
            let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
            json_scalar::hash(json, pointer, &|scalar| seed.hash_one(scalar))
        };
        match self {
            KeySource::Key => key.map(|key| seed.hash_one(key)),
            KeySource::Header(name) => {
                let value = headers().filter(|(known, _)| known == name).last().and_then(|(_, value)| value);
                value.map(|value| seed.hash_one(value))
            }
            KeySource::Json(pointer) => scalar(value.unwrap_or_default(), pointer),
            KeySource::RegistryJson(pointer) => {
                let value = value.filter(|value| value.first() == Some(&0))?;
                scalar(value.get(REGISTRY_PREFIX..)?, pointer)
            }
            KeySource::Composite(parts) => parts.iter().try_fold(0, |before: u64, part| {
                let hash = part.hash(seed, key, value, headers)?;
                Some(seed.hash_one((before, hash)))
            }),
        }
    }
}

impl LaneRule {
    /// Appends the key that the state of the record's lane has in a changelog. Two records have the same one if and only if
    /// their lane keys are equal. The record has a lane.
    pub fn record_key(&self, record: &ArenaRecord<'_>, key: &mut Vec<u8>) {
        if self.ordering == Ordering::Partition {
            return record_key::push_key(KeyPart::Partition, key);
        }
        let start = key.len();
        let found = match &self.from {
            KeySource::Composite(parts) => {
                record_key::begin_composite(key);
                parts.iter().try_for_each(|source| source.append_part(record, record_key::push_part, key))
            }
            KeySource::Key | KeySource::Header(_) | KeySource::Json(_) | KeySource::RegistryJson(_) => {
                self.from.append_part(record, record_key::push_key, key)
            }
        };
        if found.is_none() {
            key.truncate(start);
            record_key::push_key(KeyPart::NoKey, key);
        }
    }

    /// Returns a text that determines the record keys of events: the ordering and the lane key.
    pub fn description(ordering: Ordering, lane_key: &LaneKey, no_key: NoKey) -> String {
        match (ordering, no_key) {
            (Ordering::Partition, _) => "ordering = \"partition\"".to_owned(),
            (Ordering::Unordered, _) => "ordering = \"unordered\"".to_owned(),
            (Ordering::Key, NoKey::Partition) => format!("{lane_key}, or one lane for events without it"),
            (Ordering::Key, NoKey::Spread | NoKey::Reject) => lane_key.to_string(),
        }
    }
}

impl KeySource {
    /// Appends the lane key of a record with `push`, if it is not composite; `None`: the record has none.
    fn append_part(
        &self,
        record: &ArenaRecord<'_>,
        push: fn(KeyPart<'_>, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Option<()> {
        match self {
            KeySource::Key => push(KeyPart::Bytes(record.key?), out),
            KeySource::Header(name) => {
                let (_, value) = record.headers.filter(|(known, _)| known == name).last()?;
                push(KeyPart::Bytes(value?), out);
            }
            KeySource::Json(pointer) => append_scalar_part(record.value?, pointer, push, out)?,
            KeySource::RegistryJson(pointer) => {
                let value = record.value.filter(|value| value.first() == Some(&0))?;
                append_scalar_part(value.get(REGISTRY_PREFIX..)?, pointer, push, out)?;
            }
            KeySource::Composite(_) => unreachable!("a part of a composite key is not composite"),
        }
        Some(())
    }
}

fn append_scalar_part(
    json: &[u8],
    pointer: &[String],
    push: fn(KeyPart<'_>, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> Option<()> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let start = out.len();
    let out = RefCell::new(out);
    json_scalar::hash(json, pointer, &|scalar| {
        // A repeated field is found several times, and the hash of the lane is that of its last value.
        out.borrow_mut().truncate(start);
        scalar.as_key_part(&|part| push(part, &mut out.borrow_mut()));
        0
    })?;
    Some(())
}

/// Separates the parts of a composite key in reports.
const SEPARATOR: u8 = 0x1f;

impl KeySource {
    /// Appends the lane key of a record; `None`: the record does not have all parts of it.
    fn append(&self, record: &ArenaRecord<'_>, lane_key: &mut Vec<u8>) -> Option<()> {
        match self {
            KeySource::Key => lane_key.extend_from_slice(record.key?),
            KeySource::Header(name) => {
                let (_, value) = record.headers.filter(|(known, _)| known == name).last()?;
                lane_key.extend_from_slice(value?);
            }
            KeySource::Json(pointer) => append_scalar(record.value?, pointer, lane_key)?,
            KeySource::RegistryJson(pointer) => {
                append_scalar(record.value?.get(REGISTRY_PREFIX..)?, pointer, lane_key)?;
            }
            KeySource::Composite(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        lane_key.push(SEPARATOR);
                    }
                    part.append(record, lane_key)?;
                }
            }
        }
        Some(())
    }
}

fn append_scalar(json: &[u8], pointer: &[String], lane_key: &mut Vec<u8>) -> Option<()> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let text = RefCell::new(String::new());
    json_scalar::hash(json, pointer, &|scalar| {
        *text.borrow_mut() = scalar.to_string();
        0
    })?;
    lane_key.extend_from_slice(text.into_inner().as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(rule: &mut LaneRule, key: Option<&[u8]>) -> Admission {
        rule.admission(key, None, std::iter::empty)
    }

    fn by_json(rule: &mut LaneRule, value: &str) -> Admission {
        rule.admission(None, Some(value.as_bytes()), std::iter::empty)
    }

    #[test]
    fn absent_and_empty_keys_differ() {
        let mut rule = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Partition);
        assert_eq!(admission(&mut rule, Some(b"a")), admission(&mut rule, Some(b"a")));
        assert_ne!(admission(&mut rule, Some(b"a")), admission(&mut rule, Some(b"b")));
        assert_ne!(admission(&mut rule, Some(b"")), admission(&mut rule, None));
        assert_eq!(admission(&mut rule, None), admission(&mut rule, None));
        let mut spread = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&mut spread, None), Admission::Unkeyed);
        let mut reject = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Reject);
        assert_eq!(admission(&mut reject, None), Admission::NoLaneKey);
    }

    #[test]
    fn other_orderings_ignore_the_key() {
        let mut partition = LaneRule::new(Ordering::Partition, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&mut partition, Some(b"a")), admission(&mut partition, None));
        let mut unordered = LaneRule::new(Ordering::Unordered, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&mut unordered, Some(b"a")), Admission::Unkeyed);
    }

    #[test]
    fn the_last_header_with_the_name_is_used() {
        let mut rule = LaneRule::new(Ordering::Key, &LaneKey::Header("tenant".to_owned()), NoKey::Reject);
        let mut of =
            |headers: &[Header<'static>]| rule.admission(Some(b"key"), None, || headers.iter().copied());
        let (a, b): (Header<'_>, Header<'_>) = ((b"tenant", Some(b"a")), (b"tenant", Some(b"b")));
        assert_eq!(of(&[a, b]), of(&[b]));
        assert_ne!(of(&[a]), of(&[b]));
        assert_eq!(of(&[(b"tenant", None)]), Admission::NoLaneKey);
        assert_eq!(of(&[(b"other", Some(b"a"))]), Admission::NoLaneKey);
    }

    #[test]
    fn a_scalar_is_compared_with_its_type() {
        let mut rule = LaneRule::new(Ordering::Key, &LaneKey::Json("/customer/id".to_owned()), NoKey::Reject);
        let one = by_json(&mut rule, r#"{"customer": {"id": 1}}"#);
        assert_eq!(one, by_json(&mut rule, r#"{"x": [1, {"id": 2}], "customer": {"name": "A", "id": 1.0}}"#));
        assert_ne!(one, by_json(&mut rule, r#"{"customer": {"id": "1"}}"#));
        for none in ["", "no JSON", "{}", r#"{"customer": {"id": {}}}"#, r#"{"customer": {"id": null}}"#] {
            assert_eq!(by_json(&mut rule, none), Admission::NoLaneKey, "{none}");
        }
    }

    #[test]
    fn prefixes_of_the_json_are_skipped() {
        let id = |text: &[u8]| [text, br#"{"id": 7}"#].concat();
        let mut json = LaneRule::new(Ordering::Key, &LaneKey::Json("/id".to_owned()), NoKey::Spread);
        let mut by = |value: &[u8]| json.admission(None, Some(value), std::iter::empty);
        assert_eq!(by(&id(b"")), by(&id(BYTE_ORDER_MARK)));
        assert_eq!(by(&id(b"\0\0\0\0\x05")), Admission::Unkeyed);
        assert_eq!(json.without_lane_key(), 1);
        assert!(json.overlooks_registry(Some(&id(b"\0\0\0\0\x05"))) && !json.overlooks_registry(Some(b"{}")));
        let mut registry =
            LaneRule::new(Ordering::Key, &LaneKey::RegistryJson("/id".to_owned()), NoKey::Reject);
        let mut by = |value: &[u8]| registry.admission(None, Some(value), std::iter::empty);
        assert_eq!(by(&id(b"\0\0\0\0\x05")), by(&id(b"\0\0\0\x01\x06")));
        assert_eq!([by(&id(b"")), by(b"\0\0"), by(b"")], [Admission::NoLaneKey; 3]);
    }

    #[test]
    fn all_parts_of_a_composite_key_are_used() {
        let parts = vec![LaneKey::Header("tenant".to_owned()), LaneKey::Json("/id".to_owned())];
        let mut rule = LaneRule::new(Ordering::Key, &LaneKey::Composite(parts), NoKey::Reject);
        let mut of = |tenant: Option<&'static str>, value: &str| {
            let headers: Vec<Header<'static>> =
                tenant.iter().map(|tenant| (&b"tenant"[..], Some(tenant.as_bytes()))).collect();
            rule.admission(None, Some(value.as_bytes()), || headers.iter().copied())
        };
        let one = of(Some("a"), r#"{"id": 1}"#);
        assert_eq!(one, of(Some("a"), r#"{"id": 1, "x": 2}"#));
        assert_ne!(one, of(Some("b"), r#"{"id": 1}"#));
        assert_ne!(one, of(Some("a"), r#"{"id": 2}"#));
        assert_eq!(of(None, r#"{"id": 1}"#), Admission::NoLaneKey);
        assert_eq!(of(Some("a"), "{}"), Admission::NoLaneKey);
    }

    #[test]
    fn the_lane_key_of_a_report_is_that_of_the_lane() {
        let mut arena = crate::admit::Arena::default();
        let headers: [Header<'_>; 1] = [(b"tenant", Some(b"a"))];
        let value = br#"{"id": 7.0, "name": "x"}"#;
        let (slot, _) = arena.store(Some(b"key"), Some(value), headers.into_iter(), false);
        let of = |lane_key: &LaneKey| {
            LaneRule::new(Ordering::Key, lane_key, NoKey::Spread).lane_key(&arena.get(slot))
        };
        let (header, json) = (LaneKey::Header("tenant".to_owned()), LaneKey::Json("/id".to_owned()));
        assert_eq!(of(&LaneKey::Key).as_deref(), Some(&b"key"[..]));
        assert_eq!(of(&LaneKey::Composite(vec![header, json])).as_deref(), Some(&b"a\x1f7"[..]));
        assert_eq!(of(&LaneKey::Header("none".to_owned())), None);
        let partition = LaneRule::new(Ordering::Partition, &LaneKey::Key, NoKey::Spread);
        assert_eq!(partition.lane_key(&arena.get(slot)), None, "a lane is the whole partition");
    }

    /// The values of the field `id` of an event: more than one if the field is repeated.
    const IDS: [&[&str]; 20] = [
        &["1"],
        &["1.0"],
        &["\"1\""],
        &["true"],
        &["\"true\""],
        &["1e18"],
        &["1000000000000000000"],
        &["1.5"],
        &["\"1.5\""],
        &["-0.0"],
        &["0"],
        &["\"\""],
        &["1e300"],
        &["null"],
        &["1", "\"1\""],
        &["\"1\"", "1"],
        &["0", "true", "1.0"],
        &["1", "null"],
        &["null", "1"],
        &["1", "{}"],
    ];

    #[test]
    fn records_have_the_same_record_key_if_and_only_if_they_have_the_same_lane() {
        let mut arena = crate::admit::Arena::default();
        let json = LaneKey::Json("/id".to_owned());
        for lane_key in [
            json.clone(),
            LaneKey::Composite(vec![json.clone(), LaneKey::Key]),
            LaneKey::Composite(vec![LaneKey::Key, json]),
            LaneKey::Key,
        ] {
            let mut rule = LaneRule::new(Ordering::Key, &lane_key, NoKey::Partition);
            let mut all = Vec::new();
            for ids in IDS {
                for key in [None, Some(&b""[..]), Some(b"1")] {
                    let fields: Vec<String> = ids.iter().map(|id| format!("\"id\": {id}")).collect();
                    let value = format!("{{{}}}", fields.join(", ")).into_bytes();
                    let (slot, _) = arena.store(key, Some(&value), std::iter::empty(), false);
                    let mut record_key = Vec::new();
                    rule.record_key(&arena.get(slot), &mut record_key);
                    let lane = rule.admission(key, Some(&value), std::iter::empty);
                    all.push((lane, record_key, format!("{lane_key}: {ids:?}, {key:?}")));
                }
            }
            for (lane, record_key, name) in &all {
                for (other_lane, other_key, other_name) in &all {
                    assert_eq!(lane == other_lane, record_key == other_key, "{name}; {other_name}");
                }
            }
        }
    }
}
