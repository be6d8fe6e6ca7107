//! `read_in_step` with partitions of any density, compared with a simple model: each event is handled, and none is dispatched
//! while the first unhandled event of another partition is further behind it than allowed.
#![expect(clippy::indexing_slicing, reason = "an index out of range fails the test")]

mod shell;

use std::collections::VecDeque;
use std::time::Duration;

use keylane_core::{CallId, Config, Input, Partition};
use proptest::prelude::*;
use shell::{REQUEST, Shell};

const AHEAD_MAX_MS: i64 = 30_000;
/// Times that differ by less are not told apart.
const GRAIN_MS: i64 = AHEAD_MAX_MS / 16;

/// The records of a partition: offsets and timestamps.
type Log = VecDeque<(i64, i64)>;

/// A log whose records are up to this far apart.
fn log(distance_ms: i64, records: usize) -> impl Strategy<Value = Log> {
    prop::collection::vec(0..distance_ms, 1..records).prop_map(|distances| {
        let mut time = 0;
        distances
            .into_iter()
            .zip(0..)
            .map(|(distance, offset)| {
                time += distance;
                (offset, time)
            })
            .collect()
    })
}

struct Model {
    shell: Shell,
    unread: Vec<Log>,
    unhandled: Vec<Log>,
    /// The calls that were checked, oldest first.
    running: Vec<CallId>,
}

impl Model {
    fn new(logs: Vec<Log>, max_queued: u32) -> Model {
        let read_in_step = Some(Duration::from_millis(AHEAD_MAX_MS.unsigned_abs()));
        let mut shell = Shell::new(Config { read_in_step, max_queued, max_batch: 4, ..Config::default() });
        shell.wall_ms = i64::MAX / 2;
        shell.give(Input::CapacityAdded { calls: 2 });
        let partitions: Vec<_> =
            (0..).take(logs.len()).map(|number| Partition { topic: 0, number }).collect();
        shell.give(Input::AssignRequested { request: REQUEST, partitions: &partitions });
        partitions.iter().for_each(|&partition| shell.start_at(partition, 0, b""));
        Model { shell, unread: logs.clone(), unhandled: logs, running: Vec::new() }
    }

    /// Reads up to `count` records of one of the partitions that may be read. The end is reported on its own, or with rows.
    fn read(&mut self, pick: usize, count: usize) {
        let partition = self.shell.reads[pick % self.shell.reads.len()];
        let log = &mut self.unread[at(partition)];
        let next = log.front().map(|record| record.0);
        let rows: Vec<_> = log.drain(..log.len().min(count)).collect();
        let end = rows.last().map_or(next, |last| Some(last.0 + 1)).filter(|_| log.is_empty());
        if !rows.is_empty() {
            self.shell.fetch_timed(partition, &rows, end);
        } else {
            self.shell.reads.retain(|permitted| *permitted != partition);
        }
    }

    /// The oldest call ends.
    fn end(&mut self) {
        for &(partition, _) in &self.shell.call().rows {
            self.unhandled[at(partition)].pop_front();
        }
        self.running.remove(0);
        self.shell.end(&[]);
    }

    /// Checks the calls that have begun since the last check.
    fn check(&mut self) {
        for call in self.shell.calls.iter().skip(self.running.len()) {
            self.running.push(call.id);
            for &(partition, offset) in &call.rows {
                let time_of = |log: &Log| log.iter().find(|event| event.0 == offset).map(|event| event.1);
                let time = time_of(&self.unhandled[at(partition)]).expect("no event runs twice");
                let others = self.unhandled.iter().enumerate().filter(|(other, _)| *other != at(partition));
                let slowest = others.filter_map(|(_, log)| log.front()).map(|first| first.1).min();
                let limit = slowest.map_or(i64::MAX, |slowest| slowest + AHEAD_MAX_MS + GRAIN_MS);
                assert!(time <= limit, "{partition} {offset} at {time} runs; the slowest: {slowest:?}");
            }
        }
    }
}

fn at(partition: Partition) -> usize {
    usize::try_from(partition.number).expect("numbers are not negative")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn partitions_of_any_density_are_merged(
        logs in (log(20_000, 40), log(2_000, 200), log(300, 600)),
        max_queued in 1..200_u32,
        steps in prop::collection::vec((any::<bool>(), any::<usize>(), 1..60_usize), 64),
    ) {
        let mut model = Model::new(vec![logs.0, logs.1, logs.2], max_queued);
        for &(reads, pick, count) in steps.iter().cycle() {
            if model.unhandled.iter().all(VecDeque::is_empty) {
                break;
            }
            let idle = model.shell.calls.is_empty();
            assert!(!(idle && model.shell.reads.is_empty()), "a dead-lock: {:?}", model.shell.core.view());
            if !model.shell.reads.is_empty() && (reads || idle) {
                model.read(pick, count);
            } else if !idle {
                model.end();
            }
            model.check();
        }
    }
}
