//! Checks the first committed transaction: the brokers must have stored its offsets together with their metadata, which
//! contains the completed sets. Apache Kafka does; a proxy or another implementation of the protocol may not.

use super::{StoredOffset, TransactionOffset};

/// Returns the reason to stop, if the offsets of a committed transaction were not stored. Another member may have committed
/// since, so a later offset, and other metadata, prove nothing.
pub(super) fn lost(sent: &[TransactionOffset], stored: &[StoredOffset]) -> Option<String> {
    sent.iter().zip(stored).find_map(|(sent, stored)| {
        let topic = sent.topic.to_string_lossy();
        let at = format!("{topic}/{}", sent.partition);
        match stored {
            Some((offset, metadata)) if *offset == sent.offset => {
                (metadata.is_empty() && !sent.metadata.is_empty()).then(|| {
                    format!("the brokers dropped the metadata of a committed offset of {at}, {}", sent.offset)
                })
            }
            Some((offset, _)) if *offset > sent.offset => None,
            Some((offset, _)) => {
                Some(format!("the brokers have committed {} for {at}, and return {offset}", sent.offset))
            }
            None => {
                Some(format!("the brokers have committed {} for {at}, and return no offset", sent.offset))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(metadata: &str) -> TransactionOffset {
        TransactionOffset { topic: c"in".into(), partition: 3, offset: 10, metadata: metadata.into() }
    }

    fn reason(metadata: &str, stored: Option<(i64, &str)>) -> Option<String> {
        let stored = stored.map(|(offset, metadata)| (offset, metadata.as_bytes().to_vec()));
        lost(&[sent(metadata)], &[stored])
    }

    #[test]
    fn what_was_committed_is_there() {
        for stored in [(10, "set"), (10, "that of another member"), (11, "")] {
            assert_eq!(reason("set", Some(stored)), None, "{stored:?}");
        }
        assert_eq!(reason("", Some((10, ""))), None);
    }

    #[test]
    fn what_is_lost_is_named() {
        for stored in [Some((10, "")), Some((9, "set")), None] {
            let reason = reason("set", stored).expect("a reason");
            assert!(reason.contains("in/3") && reason.contains("10"), "{reason}");
        }
    }
}
