//! Promise: everything that can be requested without membership is requested before any group is
//! joined. A broker that hangs or is unavailable delays only the requests that it alone can answer.
//! A signal takes effect meanwhile.

use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::kafka::{self, Cluster, Options, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::restricted_user;
use keylane_tests::wait;

/// One of two handlers can start, the other one can't. The group of the first must not get a
/// member, which would hold its partitions until its session timed out.
#[test]
fn a_handler_that_can_not_start_leaves_no_member_behind() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, 3, &[]);
    let missing = kafka::unique("missing");
    let component = guest("noop");
    let settings = flow
        .settings(&component, "first")
        .set("handlers.z", "component", component.display().to_string())
        .set("handlers.z", "topics", vec![missing.as_str()])
        .set("handlers.z", "group_id", kafka::unique("other"))
        .set("handlers.z.retry", "on_exhausted", "stop");
    let mut keylane = Keylane::run(&settings, &[]);
    keylane.expect_exit(1);
    assert!(keylane.tail().contains(&missing), "{}", keylane.tail());
    let groups = cluster.run_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--bootstrap-server", &cluster.bootstrap(), "--list"],
    );
    let groups = groups.expect("the tool runs");
    assert!(!groups.lines().any(|group| group == flow.group), "the group was joined: {groups}");
}

/// One broker hangs. A process that starts meanwhile handles the events of the other brokers.
#[test]
fn a_broker_that_hangs_delays_only_its_own_partitions() {
    let Some(cluster) = kafka::dedicated(&Options { brokers: 3, ..Options::default() }) else { return };
    let flow = Flow::new(&cluster, 3, &[]);
    let topic = create_spread_topic(&cluster);
    produce(&flow, &topic);
    // The group is created first, so that its coordinator is known. That broker keeps running.
    let settings = settings_for(&flow, &topic);
    Keylane::run(&settings, &["--until-end"]).expect_exit(0);
    produce(&flow, &topic);
    let coordinator = flow.members.coordinator(&cluster.admin());
    let hanging = (1..=3).find(|&id| id != coordinator).expect("there are three brokers");
    let hanging = usize::try_from(hanging).expect("brokers are numbered from 1");

    cluster.freeze(hanging);
    let mut keylane = Keylane::run(&settings, &[]);
    let mut expected = [200; 3];
    expected[hanging - 1] = 100;
    wait::until("the other partitions to be done", wait::STATE_TIMEOUT, || {
        committed_offsets(&flow, &topic) == expected
    });
    cluster.thaw(hanging);
    wait::until("all to be done", wait::STATE_TIMEOUT, || committed_offsets(&flow, &topic) == [200; 3]);
    keylane.terminate();
    keylane.expect_exit(0);
}

/// One broker is advertised under a name that this machine can't resolve, as in a network that
/// resolves only some of the names of a cluster.
#[test]
fn a_broker_whose_name_does_not_resolve_delays_only_its_own_partitions() {
    let unresolvable = 3;
    let options = Options { brokers: 3, unresolvable: Some(unresolvable), ..restricted_user::options() };
    let Some(cluster) = kafka::dedicated(&options) else { return };
    let mut flow = Flow::new(&cluster, 3, &[]);
    let admin = cluster.admin();
    // The first request for commits creates the topic that determines coordinators. The coordinator depends on the
    // group's name: another group may have another coordinator.
    assert_eq!(flow.lag(), 0);
    while flow.members.coordinator(&admin) == 3 {
        flow = flow.again();
    }
    let topic = create_spread_topic(&cluster);
    produce(&flow, &topic);

    let mut keylane = Keylane::run(&restricted_user::settings(&cluster, settings_for(&flow, &topic)), &[]);
    wait::until("the other partitions to be done", wait::STATE_TIMEOUT, || {
        committed_offsets(&flow, &topic) == [100, 100, 0]
    });
    let names_it =
        |line: &serde_json::Value| line["level"] != "INFO" && line.to_string().contains("kafka.invalid");
    keylane.wait_for("the name to be reported", names_it);
    assert!(!keylane.has_ended(), "ended although other partitions can be read{}", keylane.tail());
    keylane.terminate();
    keylane.expect_exit(0);
    // No event of that broker was skipped: an instance that resolves the name continues.
    Keylane::run(&settings_for(&flow, &topic), &["--until-end"]).expect_exit(0);
    assert_eq!(committed_offsets(&flow, &topic), [100; 3]);
}

/// Creates a topic with each partition on only one broker: partition 0 on broker 1, and so on.
fn create_spread_topic(cluster: &Cluster) -> String {
    let topic = kafka::unique("spread");
    let bootstrap = cluster.bootstrap();
    let create =
        ["--bootstrap-server", &bootstrap, "--create", "--topic", &topic, "--replica-assignment", "1,2,3"];
    cluster.run_tool("org.apache.kafka.tools.TopicCommand", &create).expect("the topic can be created");
    topic
}

/// Produces 100 events to each partition of the topic.
fn produce(flow: &Flow<'_>, topic: &str) {
    let event = |number: i32| Record::new(format!("key-{number}"), "done").to(number % 3);
    flow.producer().send_all(topic, (0..300).map(event)).expect("acknowledged");
}

/// The settings of an instance that reads this topic.
fn settings_for(flow: &Flow<'_>, topic: &str) -> Settings {
    let settings = flow.settings(&guest("noop"), "t").set("handlers.t", "topics", vec![topic]);
    settings.set("handlers.t.dead_letters", "topic", flow.dead_letters.as_str())
}

/// The committed offset of each partition of the topic.
fn committed_offsets(flow: &Flow<'_>, topic: &str) -> [i64; 3] {
    let committed = flow.members.committed(topic, 3);
    let offsets: Vec<i64> = committed.iter().map(|committed| committed.offset.unwrap_or(0)).collect();
    offsets.try_into().expect("the topic has three partitions")
}

/// No broker listens: Keylane waits, logs it at intervals, and stops at once on a signal.
#[test]
fn a_signal_takes_effect_while_brokers_are_awaited() {
    for (arguments, code) in [(&[][..], 0), (&["--until-end"], 1)] {
        let settings = Settings::new("127.0.0.1:9").handler(&guest("noop"), "in", "group");
        let settings = settings.set("handlers.t.retry", "on_exhausted", "stop");
        let mut keylane = Keylane::run(&settings, arguments);
        keylane.wait_for("the wait to be logged", |line| line["message"] == "waiting for the brokers");
        keylane.interrupt();
        keylane.expect_exit(code);
        let logged =
            keylane.lines().iter().filter(|line| line["message"] == "waiting for the brokers").count();
        assert!(logged < 10, "{}", keylane.tail());
    }
}
