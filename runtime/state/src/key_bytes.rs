//! The bytes of record keys.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// The longest key without an allocation: what fits into the size of a pointer, a length and a discriminant.
const SHORT_MAX: usize = 22;

/// The bytes of a record key. A short one is stored in place, so that tables compare it without another access to memory;
/// the copies of a long one share its bytes.
#[derive(Clone)]
pub struct KeyBytes(Bytes);

#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT_MAX]),
    Long(Arc<[u8]>),
}

impl From<&[u8]> for KeyBytes {
    fn from(key: &[u8]) -> KeyBytes {
        let mut bytes = [0; SHORT_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(key);
                KeyBytes(Bytes::Short(length, bytes))
            }
            _ => KeyBytes(Bytes::Long(key.into())),
        }
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &KeyBytes) -> bool {
        **self == **other
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &KeyBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &KeyBytes) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// As the bytes, because tables are searched with them.
impl Hash for KeyBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn keys_of_every_length_are_as_their_bytes() {
        let keys: Vec<Vec<u8>> = (0..40_u8).map(|length| (0..length).collect()).collect();
        let set: HashSet<KeyBytes> = keys.iter().map(|key| KeyBytes::from(&key[..])).collect();
        assert!(keys.iter().all(|key| set.get(&key[..]).is_some_and(|found| **found == **key)));
        let sorted: Vec<KeyBytes> = set.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        assert!(sorted.iter().map(|key| &**key).eq(keys.iter().map(|key| &**key)));
        assert_eq!(size_of::<KeyBytes>(), 24);
    }
}
