//! Client properties.

use super::{expect_accepted, expect_refused, with};

#[test]
fn properties_pass_through_in_every_notation() {
    let checked = expect_accepted(&with(
        "",
        r#"
[kafka.client]
"client.id" = "me"
socket.keepalive.enable = true
security = { protocol = "PLAINTEXT" }
[kafka.consumer]
fetch.min.bytes = 100
max.partition.fetch.bytes = "200"
[kafka.producer]
compression.type = "zstd"
client.id = "the producer"
"#,
    ));
    let listed = |properties: &super::super::ClientProperties| {
        let mut all: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        all.sort();
        all.join(" ")
    };
    let shared = "security.protocol=PLAINTEXT socket.keepalive.enable=true";
    assert_eq!(listed(&checked.kafka.client), format!("client.id=me {shared}"));
    assert_eq!(
        listed(&checked.kafka.consumer),
        format!("client.id=me fetch.min.bytes=100 max.partition.fetch.bytes=200 {shared}")
    );
    assert_eq!(
        listed(&checked.kafka.producer),
        format!("client.id=the producer compression.type=zstd {shared}")
    );
    assert_eq!(checked.kafka.consumer.get("fetch.message.max.bytes"), Some("200"), "found by either name");
}

#[test]
fn the_more_specific_table_wins_also_under_another_name() {
    let checked = expect_accepted(&with(
        "",
        "[kafka.client]\nlinger.ms = 1\n[kafka.producer]\nqueue.buffering.max.ms = 2",
    ));
    let producer: Vec<_> = checked.kafka.producer.iter().collect();
    assert_eq!(producer, [("queue.buffering.max.ms", "2")]);
}

#[test]
fn one_property_under_two_names_is_refused() {
    expect_refused(
        &with("", "[kafka.producer]\nlinger.ms = 1\nqueue.buffering.max.ms = 2"),
        &["`queue.buffering.max.ms` and `linger.ms` are the same property", "hint: keep one of them"],
    );
    expect_refused(
        &with("", "[kafka.client]\n\"a.b\" = 1\na.b = 2"),
        &["`a.b` and `a.b` are the same property"],
    );
}

#[test]
fn reserved_properties_are_refused_under_every_name() {
    for name in [
        "group.id",
        "enable.auto.commit",
        "auto.commit.enable",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "group.protocol",
        "enable.idempotence",
        "acks",
        "request.required.acks",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "transactional.id",
        "transaction.timeout.ms",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "batch.size",
        "message.send.max.retries",
        "retries",
        "enable.gapless.guarantee",
        "queue.buffering.max.messages",
        "check.crcs",
        "bootstrap.servers",
        "metadata.broker.list",
        "group.instance.id",
        "delivery.report.only.error",
    ] {
        for table in ["client", "consumer", "producer"] {
            let text = with("", &format!("[kafka.{table}]\n{name} = \"1\""));
            expect_refused(&text, &["etc/keylane.toml:10:", &format!("`{name}` can't be set: ")]);
        }
    }
}

#[test]
fn names_of_the_java_client_get_a_remedy() {
    for (name, remedy) in [
        ("max.poll.records", "hint: use `lanes.max_queued` and `max_batch` of a handler"),
        ("fetch.max.wait.ms", "hint: use `fetch.wait.max.ms`"),
        ("key.deserializer", "hint: remove it: handlers receive bytes"),
    ] {
        let expected = format!("`{name}` is a property of Kafka's Java client");
        expect_refused(&with("", &format!("[kafka.client]\n\"{name}\" = 1")), &[&expected, remedy]);
    }
}

#[test]
fn lists_are_refused() {
    expect_refused(
        &with("", "[kafka.client]\ndebug = [\"cgrp\"]"),
        &["expected a string, a whole number, or true or false"],
    );
}
