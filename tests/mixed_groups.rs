//! Promise: a process with transactional delivery takes no partition while its group has a member without it: that member
//! would commit offsets without the records of transactions.

use keylane_tests::admin::{Admin, at};
use keylane_tests::campaign::{self, Delivery};
use keylane_tests::check::once::{self, Expected, History};
use keylane_tests::flow::Flow;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::wait;
use serde_json::Value;

const PARTITIONS: i32 = 4;
const EVENTS: usize = 200;

fn send(flow: &Flow<'_>, numbers: std::ops::Range<usize>) {
    let event = |number: usize| Record::new(format!("key-{}", number % 50), format!("{number} x"));
    flow.producer().send_all(&flow.input, numbers.map(event)).expect("acknowledged");
}

fn is_refusal(line: &Value) -> bool {
    line["message"] == "partition start not resolved yet"
        && line["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("without transactional delivery (plain at "))
}

#[test]
fn a_transactional_member_waits_until_the_others_have_left() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut plain = Keylane::run(&campaign::settings(&flow, "plain", Delivery::AtLeastOnce), &[]);
    flow.wait_for_members(&["plain"]);
    let settings = campaign::settings(&flow, "transactional", Delivery::Transactional);
    let settings = settings.set("admin", "listen", "127.0.0.1:0");
    let mut transactional = Keylane::run(&settings, &[]);
    let shown = Admin::of(&mut transactional);
    transactional.wait_for("the other member", is_refusal);
    let handler = shown.handler();
    for partition in handler["partitions"].as_array().expect("a list") {
        assert_eq!(partition["state"], "starting", "{handler}");
        assert_eq!(partition["blocked"]["reason"], "start_unknown", "{handler}");
    }
    send(&flow, 0..EVENTS);
    wait::until("events of the partitions that it was not given", wait::STATE_TIMEOUT, || {
        !kafka::read_all(&cluster.bootstrap(), &flow.output).is_empty()
    });
    assert_eq!(at(&shown.handler(), "/totals/settled"), 0);
    assert!(!transactional.lines().iter().any(|line| line["message"] == "ownership started"));

    plain.terminate();
    plain.expect_exit(0);
    flow.wait_for_members(&["transactional"]);
    send(&flow, EVENTS..2 * EVENTS);
    flow.wait_until_committed();
    transactional.terminate();
    transactional.expect_exit(0);
    once::check(&History::read(&flow, |_| Expected::Outputs(1))).assert_clean();
}

/// The process owns all partitions: an assign without new ones is a reason to look at the group, too.
#[test]
fn a_member_that_joins_later_is_reported() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 1, &[]);
    let mut transactional = Keylane::run(&campaign::settings(&flow, "first", Delivery::Transactional), &[]);
    flow.wait_for_members(&["first"]);
    let mut plain = Keylane::run(&campaign::settings(&flow, "plain", Delivery::AtLeastOnce), &[]);
    transactional.wait_for("the other member", |line| {
        is_refusal(line)
            || line["message"]
                == "no partition is taken: the group has a member without transactional delivery"
                && line["member"].as_str().is_some_and(|member| member.starts_with("plain at "))
    });
    for keylane in [&mut plain, &mut transactional] {
        keylane.terminate();
        keylane.expect_exit(0);
    }
}
