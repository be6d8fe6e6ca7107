//! The suffix of `client.id` by which the members of a group recognize each other's delivery. A member with at-least-once
//! delivery commits offsets without the records of transactions, so both must not run in one group.

use crate::librdkafka::GroupMember;
use crate::status::DeliveryMode;

const SUFFIXES: [(DeliveryMode, &str); 2] =
    [(DeliveryMode::AtLeastOnce, ";a1"), (DeliveryMode::Transactional, ";t1")];

/// Returns the `client.id` of a member.
pub(super) fn with_suffix(client_id: &str, delivery: DeliveryMode) -> String {
    let suffix = SUFFIXES.iter().find(|(of, _)| *of == delivery).map_or("", |(_, suffix)| suffix);
    format!("{client_id}{suffix}")
}

/// Splits the `client.id` of a member. `None`: it has no suffix, because another program is the member.
pub(super) fn split(client_id: &str) -> (&str, Option<DeliveryMode>) {
    let mut known =
        SUFFIXES.iter().filter_map(|(delivery, suffix)| Some((client_id.strip_suffix(suffix)?, *delivery)));
    known.next().map_or((client_id, None), |(client_id, delivery)| (client_id, Some(delivery)))
}

/// Returns the `client.id` of a member as it is configured.
pub fn configured_client_id(client_id: &str) -> &str {
    split(client_id).0
}

/// Returns a member that does not have transactional delivery, by its name for log lines. `own`: the
/// `group.instance.id` of this process: the coordinator may still have the `client.id` of its predecessor.
pub(super) fn without_transactions<'m>(
    members: impl IntoIterator<Item = &'m GroupMember>,
    own: Option<&str>,
) -> Option<String> {
    let is_own = |member: &GroupMember| own.is_some() && member.instance_id.as_deref() == own;
    let mut others = members
        .into_iter()
        .filter(|member| !is_own(member) && split(&member.client_id).1 != Some(DeliveryMode::Transactional));
    others.next().map(|member| format!("{} at {}", split(&member.client_id).0, member.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client_id: &str, instance_id: Option<&str>) -> GroupMember {
        GroupMember {
            client_id: client_id.to_owned(),
            host: "10.0.0.1".to_owned(),
            member_id: String::new(),
            instance_id: instance_id.map(str::to_owned),
            partitions: Vec::new(),
        }
    }

    #[test]
    fn the_suffix_is_added_and_removed() {
        for (delivery, _) in SUFFIXES {
            assert_eq!(split(&with_suffix("a;b", delivery)), ("a;b", Some(delivery)));
        }
        assert_eq!(split("other"), ("other", None));
    }

    #[test]
    fn members_without_transactions_are_named() {
        let named = |client_id, instance_id: Option<&str>| {
            without_transactions(
                &[member("keylane/h:1;t1", None), member(client_id, instance_id)],
                Some("pod-1"),
            )
        };
        assert_eq!(named("keylane/h:2;t1", None), None);
        assert_eq!(named("keylane/h:2;a1", None).as_deref(), Some("keylane/h:2 at 10.0.0.1"));
        assert_eq!(named("other", None).as_deref(), Some("other at 10.0.0.1"));
        assert_eq!(named("keylane/h:2;a1", Some("pod-1")), None, "its own former entry");
        assert!(named("keylane/h:2;a1", Some("pod-2")).is_some());
    }
}
