//! A field of an event: a header, or a scalar in a JSON value.

use std::fmt;

/// A field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventField {
    /// The value of the last header with this name.
    Header(String),
    /// The scalar at this JSON pointer (RFC 6901) in the value.
    Json(String),
}

impl EventField {
    /// Parses `header:NAME` or `json:/pointer`.
    pub(super) fn parse(text: &str) -> Option<EventField> {
        if let Some(name) = text.strip_prefix("header:") {
            return (!name.is_empty() && name.trim() == name).then(|| EventField::Header(name.to_owned()));
        }
        let pointer = text.strip_prefix("json:")?;
        is_pointer(pointer).then(|| EventField::Json(pointer.to_owned()))
    }
}

impl fmt::Display for EventField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventField::Header(name) => write!(f, "header:{name}"),
            EventField::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

/// Returns whether a text is a JSON pointer (RFC 6901).
pub(super) fn is_pointer(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/')) && is_escaped(text)
}

/// Returns whether `~` occurs only in `~0` (for itself) and `~1` (for a slash), as RFC 6901 requires.
fn is_escaped(pointer: &str) -> bool {
    pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}
