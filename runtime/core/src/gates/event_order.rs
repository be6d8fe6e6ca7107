//! What gates read from an event.

/// Identifies a gate key within its partition, as long as the core has an event of that key. Two keys never have the same
/// number at a time, whatever their hashes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey(pub u64);

/// The hash of the id of an event; [`EventId::NONE`]: it has no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u128);

impl EventId {
    /// The id of an event without an id, which is never a duplicate.
    pub const NONE: EventId = EventId(0);
}

/// The order of an event among those of its gate key.
#[derive(Clone, Copy, Debug)]
pub struct EventOrder {
    /// The gate key.
    pub key: GateKey,
    /// The order value; `None`: the event has none that can be read. `i64::MIN` and `i64::MAX` are never used.
    pub value: Option<i64>,
    /// The id, if duplicates are detected.
    pub id: EventId,
    /// The key whose ids this one is compared with: that of the lane.
    pub id_key: GateKey,
    /// Whether the record has no value.
    pub tombstone: bool,
    /// Whether the filter drops the event. With [`GateRule::Consecutive`](crate::GateRule), such an event takes its place in
    /// its lane, and settles without a call when its turn comes.
    pub filtered: bool,
    /// Whether the record was redriven: it was a dead letter of this handler.
    pub redriven: bool,
    /// What is remembered of the gate key. Ignored if the core has another event of the key: then it knows more.
    pub known: Known,
}

impl EventOrder {
    /// An event without an order value and without an id, of a key of which nothing is known.
    #[must_use]
    pub const fn without_value(key: GateKey) -> EventOrder {
        EventOrder {
            key,
            value: None,
            id: EventId::NONE,
            id_key: key,
            tombstone: false,
            filtered: false,
            redriven: false,
            known: Known::No,
        }
    }
}

/// What is remembered of a gate key, if that is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The core requests it with [`Action::LookUpKey`](crate::Action::LookUpKey).
    No,
    /// Nothing but the mark, or not even that.
    Mark(Option<i64>),
}
