//! A consumer group as text.

use super::table::{line, shown};
use crate::status::{DeliveryMode, GroupPartitionStatus, GroupStatus, TopicPartition};

/// Formats a group: its members, numbered, then its partitions with the numbers of their owners.
pub(super) fn of(group: &GroupStatus) -> String {
    let mut text = String::new();
    let members = match group.members.len() {
        0 => "no members".to_owned(),
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    let assignor =
        group.assignor.as_ref().map_or(String::new(), |assignor| format!("  assignor {}", shown(assignor)));
    let coordinator = group
        .coordinator
        .as_ref()
        .map_or(String::new(), |coordinator| format!("  coordinator {}", shown(coordinator)));
    line(
        &mut text,
        &format!(
            "handler {}  group {}  {}  protocol {}{assignor}{coordinator}  {members}",
            shown(&group.handler),
            shown(&group.group),
            shown(&group.state),
            shown(&group.protocol),
        ),
    );
    if group.state.ends_with("Rebalance") {
        line(&mut text, "  a rebalance is in progress: partitions have no owner until it ends");
    }
    if !group.members.is_empty() {
        of_members(&mut text, group);
    }
    if !group.partitions.is_empty() {
        of_partitions(&mut text, group);
    }
    text
}

fn of_members(text: &mut String, group: &GroupStatus) {
    let header = ["member", "client id", "delivery", "host", "instance id", "member id", "partitions"];
    let header = header.map(str::to_owned);
    let rows = group.members.iter().zip(1..).map(|(member, number): (_, usize)| {
        [
            number.to_string(),
            shown(&member.client_id),
            delivery(member.delivery).to_owned(),
            shown(&member.host),
            member.instance_id.as_deref().map_or("-".to_owned(), shown),
            shown(&member.member_id),
            ranges(&member.partitions),
        ]
    });
    table(text, &[header].into_iter().chain(rows).collect::<Vec<_>>(), &[]);
}

fn delivery(delivery: Option<DeliveryMode>) -> &'static str {
    match delivery {
        Some(DeliveryMode::AtLeastOnce) => "at-least-once",
        Some(DeliveryMode::Transactional) => "transactional",
        None => "-",
    }
}

fn of_partitions(text: &mut String, group: &GroupStatus) {
    let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let header = ["partition", "committed", "log end", "lag", "owner"].map(str::to_owned);
    let rows = group.partitions.iter().map(|partition| {
        [
            format!("{}/{}", shown(&partition.topic), partition.partition),
            number(partition.committed),
            number(partition.log_end),
            partition.lag.map_or("-".to_owned(), |lag| lag.to_string()),
            owner(group, partition),
        ]
    });
    table(text, &[header].into_iter().chain(rows).collect::<Vec<_>>(), &[1, 2, 3]);
}

/// Describes the owner of a partition by the number of the member, because members may have the same client id.
fn owner(group: &GroupStatus, partition: &GroupPartitionStatus) -> String {
    let Some(owner) = &partition.owner else { return "none".to_owned() };
    let at = group.members.iter().position(|member| member.member_id == owner.member_id);
    let number = at.map_or("-".to_owned(), |at| (at + 1).to_string());
    format!("{number} {} at {}", shown(&owner.client_id), shown(&owner.host))
}

/// Formats partitions, which are in order, by topic and with ranges of numbers: `orders 0-3,7; returns 1`.
fn ranges(partitions: &[TopicPartition]) -> String {
    let mut topics = Vec::new();
    for of_topic in partitions.chunk_by(|a, b| a.topic == b.topic) {
        let runs = of_topic.chunk_by(|a, b| a.partition + 1 == b.partition).filter_map(|run| match run {
            [] => None,
            [one] => Some(one.partition.to_string()),
            [first, .., last] => Some(format!("{}-{}", first.partition, last.partition)),
        });
        let topic = of_topic.first().map_or(String::new(), |first| shown(&first.topic));
        topics.push(format!("{topic} {}", runs.collect::<Vec<_>>().join(",")));
    }
    if topics.is_empty() { "none".to_owned() } else { topics.join("; ") }
}

/// Adds rows with columns as wide as their widest cell. The columns with these indexes are aligned to the right.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]], right: &[usize]) {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        line(text, &format!("  {}", cells.collect::<Vec<_>>().join("  ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{GroupMemberStatus, GroupOwner};

    fn member(number: i32, partitions: &[(&str, i32)]) -> GroupMemberStatus {
        GroupMemberStatus {
            client_id: "keylane".to_owned(),
            delivery: (number == 1).then_some(DeliveryMode::AtLeastOnce),
            host: format!("10.0.0.{number}"),
            member_id: format!("keylane-{number}"),
            instance_id: (number == 2).then(|| "pod-2".to_owned()),
            partitions: partitions
                .iter()
                .map(|(topic, partition)| TopicPartition {
                    topic: (*topic).to_owned(),
                    partition: *partition,
                })
                .collect(),
        }
    }

    fn partition(number: i32, owner: Option<i32>, committed: Option<i64>) -> GroupPartitionStatus {
        GroupPartitionStatus {
            topic: "orders".to_owned(),
            partition: number,
            committed,
            log_end: Some(1_000),
            lag: committed.and_then(|committed| u64::try_from(1_000 - committed).ok()),
            owner: owner.map(|number| GroupOwner {
                client_id: "keylane".to_owned(),
                host: format!("10.0.0.{number}"),
                member_id: format!("keylane-{number}"),
            }),
            error: None,
        }
    }

    fn group(state: &str, members: Vec<GroupMemberStatus>) -> GroupStatus {
        GroupStatus {
            handler: "billing".to_owned(),
            group: "billing-v1".to_owned(),
            state: state.to_owned(),
            protocol: "Classic".to_owned(),
            assignor: (!members.is_empty()).then(|| "cooperative-sticky".to_owned()),
            coordinator: Some("10.0.0.9:9092".to_owned()),
            members,
            partitions: Vec::new(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn members_with_the_same_client_id_are_distinguished_by_their_numbers() {
        let first = member(1, &[("orders", 0), ("orders", 1), ("orders", 2), ("orders", 9), ("returns", 4)]);
        let mut group = group("Stable", vec![first, member(2, &[("orders", 17)])]);
        group.partitions = vec![
            partition(0, Some(1), Some(41)),
            partition(17, Some(2), None),
            partition(18, None, Some(1_000)),
        ];
        assert_eq!(
            of(&group),
            "\
handler billing  group billing-v1  Stable  protocol Classic  assignor cooperative-sticky  coordinator 10.0.0.9:9092  2 members
  member  client id  delivery       host      instance id  member id  partitions
  1       keylane    at-least-once  10.0.0.1  -            keylane-1  orders 0-2,9; returns 4
  2       keylane    -              10.0.0.2  pod-2        keylane-2  orders 17
  partition  committed  log end  lag  owner
  orders/0          41     1000  959  1 keylane at 10.0.0.1
  orders/17          -     1000    -  2 keylane at 10.0.0.2
  orders/18       1000     1000    0  none
"
        );
    }

    #[test]
    fn a_rebalance_explains_partitions_without_owner() {
        let text = of(&group("PreparingRebalance", vec![member(1, &[])]));
        assert!(text.contains("PreparingRebalance") && text.contains("a rebalance is in progress"), "{text}");
        assert!(text.ends_with("keylane-1  none\n"), "{text}");
        let text = of(&group("Empty", Vec::new()));
        let expected = "handler billing  group billing-v1  Empty  protocol Classic  coordinator 10.0.0.9:9092  no members\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn text_of_others_is_shown_without_control_characters() {
        let mut member = member(1, &[]);
        member.client_id = "\x1b[31mred\n".to_owned();
        let text = of(&group("Stable", vec![member]));
        assert!(text.contains(" [31mred ") && !text.contains('\x1b'), "{text:?}");
    }
}
