//! Promise: what gates remember with `memory = "durable"` moves with the partitions: members of a group that join, stop and are
//! killed between two versions of a key change neither the order of its versions nor which of them are handled.

use std::collections::BTreeMap;

use keylane_tests::admin::{Admin, at};
use keylane_tests::flow::Flow;
use keylane_tests::guests::guest;
use keylane_tests::janitor;
use keylane_tests::kafka::{self, Record};
use keylane_tests::keylane::{Keylane, Settings};
use keylane_tests::versions::{consecutive, displaced, durable, handled, version};
use keylane_tests::wait;

const PARTITIONS: i32 = 6;
const KEYS: usize = 24;

/// What happens to a member of the group.
#[derive(Clone, Copy)]
enum Change {
    Joins(&'static str),
    IsStopped(&'static str),
    /// By a `kill -9`.
    IsKilled(&'static str),
}

/// The first member is `one`. Each change moves partitions to another member.
const CHANGES: [Change; 4] =
    [Change::Joins("two"), Change::Joins("three"), Change::IsStopped("one"), Change::IsKilled("two")];

/// Of the five versions of a round, 1, 3, 5 and 4 come before a change, and 2 comes while the partitions move, or afterwards.
#[test]
fn consecutive_versions_are_handled_in_order_by_all_members() {
    const VERSIONS: usize = 5;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut group = Group::start(&flow, consecutive(&flow));
    let send = |keys: &dyn Fn(usize) -> bool, round: usize, versions: &[usize]| {
        flow.send(events(keys, versions.iter().map(|version| VERSIONS * round + version)));
    };
    for (round, change) in CHANGES.into_iter().enumerate() {
        send(&|_| true, round, &[1, 3, 5, 4]);
        let done = VERSIONS * round + 1;
        wait::until("the first version of each key to be handled", wait::STATE_TIMEOUT, || {
            count(&flow) == KEYS * done
        });
        wait::until("the others to wait", wait::STATE_TIMEOUT, || group.parked() == 3 * KEYS);
        group.change(change, || send(&|key| key % 2 == 0, round, &[2]));
        send(&|key| key % 2 == 1, round, &[2]);
        let done = VERSIONS * (round + 1);
        wait::until("all versions to be handled", wait::STATE_TIMEOUT, || count(&flow) >= KEYS * done);
    }
    flow.wait_until_committed();
    group.stop();
    assert_eq!(handled(&flow), of_each_key(&(1..=VERSIONS * CHANGES.len()).collect::<Vec<_>>()));
    assert_eq!(kafka::read_committed(&cluster.bootstrap(), &flow.dead_letters), []);
}

/// The members change in the middle of their work: calls run, transactions are open, and early versions wait. One of twenty
/// events is displaced.
#[test]
fn members_change_while_they_handle_events() {
    const VERSIONS: usize = 1_000;
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let sleepy = guest("sleepy").display().to_string();
    let mut group = Group::start(&flow, consecutive(&flow).set("handlers.t", "component", sleepy));
    let event = |number: usize| {
        version((&key_of(number % KEYS), number / KEYS + 1)).with("sleep-ms", "10").with("emit", "")
    };
    let events: Vec<Record> = displaced(VERSIONS * KEYS, 300).into_iter().map(event).collect();
    let mut parts = events.chunks(events.len() / (2 * CHANGES.len()));
    let mut send = || flow.send(parts.next().expect("two parts for each change").to_vec());
    for change in CHANGES {
        let before = count(&flow);
        send();
        wait::until("some events to be handled", wait::STATE_TIMEOUT, || count(&flow) > before);
        group.change(change, &mut send);
    }
    flow.wait_until_committed();
    group.stop();
    assert_eq!(handled(&flow), of_each_key(&(1..=VERSIONS).collect::<Vec<_>>()));
    assert_eq!(kafka::read_committed(&cluster.bootstrap(), &flow.dead_letters), []);
}

/// Versions 1 and 3 come before a change, and 2 comes while the partitions move, or afterwards: it is stale.
#[test]
fn older_versions_are_stale_for_the_next_owner() {
    let Some(cluster) = kafka::shared() else { return };
    let flow = Flow::new(cluster, PARTITIONS, &[]);
    let mut group = Group::start(&flow, durable(&flow, "newest"));
    let mut expected = Vec::new();
    for (round, change) in CHANGES.into_iter().enumerate() {
        let [first, second, third] = [1, 2, 3].map(|version| 3 * round + version);
        flow.send(events(&|_| true, [first, third]));
        expected.extend([first, third]);
        flow.wait_until_committed();
        group.change(change, || flow.send(events(&|key| key % 2 == 0, [second])));
        flow.send(events(&|key| key % 2 == 1, [second]));
        flow.wait_until_committed();
    }
    group.stop();
    assert_eq!(handled(&flow), of_each_key(&expected));
}

/// The members of a group.
struct Group<'f> {
    flow: &'f Flow<'f>,
    settings: Settings,
    members: Vec<(&'static str, Keylane)>,
}

impl<'f> Group<'f> {
    /// Starts the first member.
    fn start(flow: &'f Flow<'f>, settings: Settings) -> Self {
        let mut group = Self { flow, settings, members: Vec::new() };
        group.join("one");
        group.settle();
        group
    }

    /// Adds a member, as on a machine of its own: its marks are in other files. Returns when the coordinator knows it, and waits for
    /// the other members.
    fn join(&mut self, name: &'static str) {
        let files = janitor::folder("marks").display().to_string();
        let own = self.settings.clone().set("kafka.client", "client.id", name);
        let settings = own
            .set("admin", "listen", "127.0.0.1:0")
            .set("handlers.t.keys", "dir", files)
            // The open transaction of a killed member holds its partitions for this long.
            .set("handlers.t.transactions", "timeout", "5s");
        self.members.push((name, Keylane::run(&settings, &[])));
        wait::until("the new member to join", wait::STATE_TIMEOUT, || {
            self.flow.members.state().members.iter().any(|member| member.client == name)
        });
    }

    /// Changes the members, does what happens meanwhile, and waits until the group has settled.
    fn change(&mut self, change: Change, meanwhile: impl FnOnce()) {
        let before = self.owners();
        let mut stopping = None;
        match change {
            Change::Joins(name) => self.join(name),
            Change::IsStopped(name) => stopping.insert(self.leave(name)).terminate(),
            Change::IsKilled(name) => self.leave(name).kill(),
        }
        meanwhile();
        if let Some(mut stopped) = stopping {
            stopped.expect_exit(0);
        }
        self.settle();
        assert_ne!(self.owners(), before, "no partition has moved");
    }

    fn leave(&mut self, name: &str) -> Keylane {
        let place = self.members.iter().position(|(member, _)| *member == name).expect("a member");
        self.members.remove(place).1
    }

    fn settle(&self) {
        let names: Vec<&str> = self.members.iter().map(|(name, _)| *name).collect();
        self.flow.wait_for_members(&names);
    }

    /// The partitions of each member.
    fn owners(&self) -> BTreeMap<&'static str, Vec<i32>> {
        let state = self.flow.members.state();
        self.members.iter().map(|(name, _)| (*name, state.partitions_of(name))).collect()
    }

    /// The number of events that wait for lower versions, by the status of the members.
    fn parked(&mut self) -> usize {
        let parked = |keylane: &mut Keylane| {
            let partitions = at(&Admin::of(keylane).handler(), "/partitions");
            let parked = partitions.as_array().into_iter().flatten().filter_map(|it| it["parked"].as_u64());
            parked.sum::<u64>()
        };
        let all: u64 = self.members.iter_mut().map(|(_, keylane)| parked(keylane)).sum();
        usize::try_from(all).expect("few events")
    }

    fn stop(self) {
        for (_, mut keylane) in self.members {
            keylane.terminate();
            keylane.expect_exit(0);
        }
    }
}

/// These versions of the keys with these numbers, in the given order for each key.
fn events(keys: &dyn Fn(usize) -> bool, versions: impl IntoIterator<Item = usize>) -> Vec<Record> {
    let of_keys = |number| (0..KEYS).filter(|key| keys(*key)).map(move |key| version((&key_of(key), number)));
    versions.into_iter().flat_map(of_keys).collect()
}

fn key_of(number: usize) -> String {
    format!("key-{number}")
}

/// The number of committed outputs.
fn count(flow: &Flow<'_>) -> usize {
    handled(flow).values().map(Vec::len).sum()
}

fn of_each_key(versions: &[usize]) -> BTreeMap<String, Vec<usize>> {
    (0..KEYS).map(|key| (key_of(key), versions.to_vec())).collect()
}
