//! The header of a file: what it is a cache of, and up to where.
//!
//! ```text
//! header := 0x02 partition:i32be id id offset:optional at_end_ms:optional
//! id     := 0x00 | 0x01 bytes[16]
//! optional := 0x00 | 0x01 number:i64be
//! ```

use std::time::Duration;

use super::types::FileIdentity;

/// Format 1 had values without times.
const FORMAT: u8 = 2;

/// How far a file's time may be ahead of the clock, which may have been set back a little.
const AHEAD_MAX_MS: i64 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) partition: i32,
    pub(super) identity: FileIdentity,
    /// Every record of the changelog below this offset is in the file.
    pub(super) through: Option<i64>,
    /// When the file was last complete to the end of the changelog, in milliseconds since 1970.
    pub(super) at_end_ms: Option<i64>,
}

impl Header {
    pub(super) fn new(partition: i32, identity: FileIdentity) -> Header {
        Header { partition, identity, through: None, at_end_ms: None }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.partition.to_be_bytes());
        for id in [self.identity.changelog_id, self.identity.input_id] {
            bytes.push(u8::from(id.is_some()));
            bytes.extend(id.iter().flatten());
        }
        for number in [self.through, self.at_end_ms] {
            bytes.push(u8::from(number.is_some()));
            bytes.extend(number.iter().flat_map(|number| number.to_be_bytes()));
        }
        bytes
    }

    /// Returns `None` for bytes that this version has not written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Header> {
        let rest = &mut bytes.strip_prefix(&[FORMAT])?;
        let partition = i32::from_be_bytes(chunk(rest)?);
        let changelog_id = optional(rest)?;
        let input_id = optional(rest)?;
        let through = optional(rest)?.map(i64::from_be_bytes);
        let at_end_ms = optional(rest)?.map(i64::from_be_bytes);
        let identity = FileIdentity { changelog_id, input_id };
        rest.is_empty().then_some(Header { partition, identity, through, at_end_ms })
    }

    /// Returns the offset from which the changelog must be read.
    ///
    /// # Errors
    /// Why the file can't be used.
    pub(super) fn verify(
        &self,
        partition: i32,
        identity: FileIdentity,
        now_ms: i64,
        trusted_for: Duration,
    ) -> Result<i64, String> {
        if self.partition != partition {
            return Err(format!("it is the file of partition {}", self.partition));
        }
        verify_id("changelog", self.identity.changelog_id, identity.changelog_id)?;
        verify_id("input topic", self.identity.input_id, identity.input_id)?;
        let (Some(through), Some(at_end_ms)) = (self.through, self.at_end_ms) else {
            return Err("it was never complete to the end of the changelog".to_owned());
        };
        let age_ms = now_ms.saturating_sub(at_end_ms);
        if age_ms < -AHEAD_MAX_MS {
            return Err(format!(
                "it was written {} s in the future: the clock was set back",
                -(age_ms / 1000)
            ));
        }
        let trusted_ms = i64::try_from(trusted_for.as_millis()).unwrap_or(i64::MAX);
        if age_ms >= trusted_ms {
            let trusted_s = trusted_for.as_secs();
            return Err(format!(
                "it was last complete {} s ago, and the limit is {trusted_s} s",
                age_ms / 1000
            ));
        }
        Ok(through)
    }
}

fn verify_id(of: &str, file: Option<[u8; 16]>, now: Option<[u8; 16]>) -> Result<(), String> {
    match (file, now) {
        (Some(file), Some(now)) if file == now => Ok(()),
        (Some(_), Some(_)) => {
            Err(format!("it belongs to a former {of}: the topic was deleted and created again"))
        }
        (None, _) | (_, None) => Err(format!("the topic id of the {of} is unknown")),
    }
}

fn chunk<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (chunk, behind) = rest.split_first_chunk::<LENGTH>()?;
    *rest = behind;
    Some(*chunk)
}

/// `Some(None)`: the field is absent. `None`: it can't be decoded.
fn optional<const LENGTH: usize>(rest: &mut &[u8]) -> Option<Option<[u8; LENGTH]>> {
    match chunk(rest)? {
        [0] => Some(None),
        [1] => Some(Some(chunk(rest)?)),
        [_] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: FileIdentity = FileIdentity { changelog_id: Some([1; 16]), input_id: Some([2; 16]) };
    const DAY: Duration = Duration::from_secs(86_400);

    fn header() -> Header {
        Header { partition: 3, identity: IDENTITY, through: Some(70), at_end_ms: Some(1_000_000) }
    }

    #[test]
    fn a_header_is_decoded_as_it_was_encoded() {
        let unknown = FileIdentity { changelog_id: None, input_id: Some([2; 16]) };
        for header in [header(), Header::new(-1, unknown), Header { through: None, ..header() }] {
            let bytes = header.encode();
            assert_eq!(Header::decode(&bytes), Some(header));
            assert_eq!(Header::decode(&bytes[1..]), None);
            for length in 0..bytes.len() {
                assert_eq!(Header::decode(&bytes[..length]), None);
            }
        }
    }

    #[test]
    fn a_file_is_used_only_if_it_is_complete_recent_and_of_the_same_topics() {
        let check = |header: Header, identity, now_ms, expected: Result<i64, &str>| {
            let verified = header.verify(3, identity, now_ms, DAY);
            assert_eq!(verified.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
        };
        check(header(), IDENTITY, 1_000_000, Ok(&70).copied());
        check(header(), IDENTITY, 1_000_000 + 86_399_999, Ok(70));
        let old = Err("it was last complete 86400 s ago, and the limit is 86400 s");
        check(header(), IDENTITY, 1_000_000 + 86_400_000, old);
        check(header(), IDENTITY, 940_000, Ok(70));
        check(header(), IDENTITY, 0, Err("it was written 1000 s in the future: the clock was set back"));
        let never = Err("it was never complete to the end of the changelog");
        check(Header { through: None, ..header() }, IDENTITY, 1_000_000, never);
        check(Header { at_end_ms: None, ..header() }, IDENTITY, 1_000_000, never);
        let other = Header { partition: 4, ..header() };
        check(other, IDENTITY, 1_000_000, Err("it is the file of partition 4"));
        let recreated = FileIdentity { changelog_id: Some([9; 16]), ..IDENTITY };
        let former = Err("it belongs to a former changelog: the topic was deleted and created again");
        check(header(), recreated, 1_000_000, former);
        let unknown = FileIdentity { input_id: None, ..IDENTITY };
        check(header(), unknown, 1_000_000, Err("the topic id of the input topic is unknown"));
        let unknown = Header { identity: unknown, ..header() };
        check(unknown, IDENTITY, 1_000_000, Err("the topic id of the input topic is unknown"));
    }
}
