//! Which lane a record belongs to (SEMANTICS: lanes, lane key, `no_key`).

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use keylane_core::Admission;

use super::Header;
use super::json_scalar;
use crate::config::{LaneKey, NoKey, Ordering};

/// Finds lanes by a hash with a seed of this process: nobody outside can aim keys at one lane.
#[derive(Debug)]
pub struct LaneRule {
    ordering: Ordering,
    from: From,
    no_key: NoKey,
    seed: RandomState,
}

/// Where a lane key is.
#[derive(Debug)]
enum From {
    Key,
    /// The last header with this name.
    Header(Vec<u8>),
    /// What this pointer leads to, name by name.
    Json(Vec<String>),
}

impl LaneRule {
    /// A rule with a fresh seed.
    pub fn new(ordering: Ordering, lane_key: &LaneKey, no_key: NoKey) -> Self {
        let from = match lane_key {
            LaneKey::Key => From::Key,
            LaneKey::Header(name) => From::Header(name.clone().into_bytes()),
            LaneKey::Json(pointer) => From::Json(json_scalar::pointer(pointer)),
        };
        LaneRule { ordering, from, no_key, seed: RandomState::default() }
    }

    /// The lane of a record. An empty key is a key.
    pub fn admission<'h, H: Iterator<Item = Header<'h>>>(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl FnOnce() -> H,
    ) -> Admission {
        match self.ordering {
            Ordering::Partition => return Admission::Lane(0),
            Ordering::Unordered => return Admission::NoLane,
            Ordering::Key => {}
        }
        let hash = match &self.from {
            From::Key => key.map(|key| self.seed.hash_one(key)),
            From::Header(name) => {
                let value = headers().filter(|(known, _)| known == name).last().and_then(|(_, value)| value);
                value.map(|value| self.seed.hash_one(value))
            }
            From::Json(pointer) => {
                json_scalar::hash(value.unwrap_or_default(), pointer, &|scalar| self.seed.hash_one(scalar))
            }
        };
        match (hash, self.no_key) {
            (Some(hash), _) => Admission::Lane(hash),
            (None, NoKey::Spread) => Admission::NoLane,
            (None, NoKey::Partition) => Admission::Lane(self.seed.hash_one(None::<&[u8]>)),
            (None, NoKey::Reject) => Admission::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(rule: &LaneRule, key: Option<&[u8]>) -> Admission {
        rule.admission(key, None, std::iter::empty)
    }

    fn by_json(rule: &LaneRule, value: &str) -> Admission {
        rule.admission(None, Some(value.as_bytes()), std::iter::empty)
    }

    #[test]
    fn absent_and_empty_keys_differ() {
        let rule = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Partition);
        assert_eq!(admission(&rule, Some(b"a")), admission(&rule, Some(b"a")));
        assert_ne!(admission(&rule, Some(b"a")), admission(&rule, Some(b"b")));
        assert_ne!(admission(&rule, Some(b"")), admission(&rule, None));
        assert_eq!(admission(&rule, None), admission(&rule, None));
        let spread = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&spread, None), Admission::NoLane);
        let reject = LaneRule::new(Ordering::Key, &LaneKey::Key, NoKey::Reject);
        assert_eq!(admission(&reject, None), Admission::Rejected);
    }

    #[test]
    fn other_orderings_do_not_look_at_the_key() {
        let partition = LaneRule::new(Ordering::Partition, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&partition, Some(b"a")), admission(&partition, None));
        let unordered = LaneRule::new(Ordering::Unordered, &LaneKey::Key, NoKey::Spread);
        assert_eq!(admission(&unordered, Some(b"a")), Admission::NoLane);
    }

    #[test]
    fn the_last_header_of_the_name_counts() {
        let rule = LaneRule::new(Ordering::Key, &LaneKey::Header("tenant".to_owned()), NoKey::Reject);
        let of = |headers: &[Header<'static>]| {
            let headers = headers.to_vec();
            rule.admission(Some(b"key"), None, move || headers.into_iter())
        };
        let (a, b): (Header<'_>, Header<'_>) = ((b"tenant", Some(b"a")), (b"tenant", Some(b"b")));
        assert_eq!(of(&[a, b]), of(&[b]));
        assert_ne!(of(&[a]), of(&[b]));
        assert_eq!(of(&[(b"tenant", None)]), Admission::Rejected);
        assert_eq!(of(&[(b"other", Some(b"a"))]), Admission::Rejected);
    }

    #[test]
    fn a_scalar_in_the_value_counts_with_its_type() {
        let rule = LaneRule::new(Ordering::Key, &LaneKey::Json("/customer/id".to_owned()), NoKey::Reject);
        let one = by_json(&rule, r#"{"customer": {"id": 1}}"#);
        assert_eq!(one, by_json(&rule, r#"{"x": [1, {"id": 2}], "customer": {"name": "A", "id": 1.0}}"#));
        assert_ne!(one, by_json(&rule, r#"{"customer": {"id": "1"}}"#));
        for none in ["", "no JSON", "{}", r#"{"customer": {"id": {}}}"#, r#"{"customer": {"id": null}}"#] {
            assert_eq!(by_json(&rule, none), Admission::Rejected, "{none}");
        }
    }
}
