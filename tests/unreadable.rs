//! Promise: a partition that can't be read is reported, loses no event, and continues by itself
//! once the cause is removed.

use keylane_tests::check;
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::Keylane;
use keylane_tests::restricted_user;
use serde_json::Value;

/// The right to read a topic is denied and restored, with and without events that arrive meanwhile.
#[test]
fn reading_continues_when_the_right_is_restored() {
    for (rights, meanwhile) in [(&["Read"][..], 100), (&["Read"], 0), (&["Read", "Describe"], 100)] {
        let Some(cluster) = kafka::dedicated(&restricted_user::options()) else { return };
        let flow = Flow::new(&cluster, 2, &[]);
        let mut keylane =
            Keylane::run(&restricted_user::settings(&cluster, flow.settings(&guest("echo"), "alice")), &[]);
        let mut produced = 0;
        let mut produce = |count: usize| {
            let event = |number| Record::new(format!("key-{number}"), "v");
            flow.producer()
                .send_all(&flow.input, (produced..produced + count).map(event))
                .expect("acknowledged");
            produced += count;
        };
        produce(100);
        flow.wait_until_committed();
        restricted_user::change_acl(
            &cluster,
            &["--add", "--deny-principal", "User:alice"],
            rights,
            &flow.input,
        );
        let denied = |line: &Value| line["level"] == "ERROR" && line["remedy"].to_string().contains("READ");
        keylane.wait_for("the denial to be reported", denied);
        produce(meanwhile);
        restricted_user::change_acl(
            &cluster,
            &["--remove", "--force", "--deny-principal", "User:alice"],
            rights,
            &flow.input,
        );
        produce(100);
        flow.wait_until_committed();
        keylane.wait_for("the recovery to be reported", |line| line["message"] == "partition resumed");
        keylane.terminate();
        keylane.expect_exit(0);
        keylane.assert_lines_are_limited();
        let report = check::check(&flow.history());
        report.assert_clean();
        assert_eq!((report.outcomes, report.repeats), (produced, [].into()));
    }
}
