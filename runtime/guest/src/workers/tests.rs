mod counted;
mod hostile;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use keylane_core::{CallId, Fault, LaneEnd, Verdict};

use super::*;
use crate::call::{CallEvent, CallObserver, CallStatus, GuestFailure};
use crate::handler::{Handler, HandlerOptions};
use crate::{OUTPUT_BYTES, testing};

/// A limit that is far longer than anything here takes: it is reached only if something is broken.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Observer(SyncSender<CallEvent>);

impl CallObserver for Observer {
    fn notify(&self, events: &mut Vec<CallEvent>) {
        events.drain(..).for_each(|event| self.0.send(event).unwrap());
    }
}

struct Bench {
    workers: Workers,
    observer: Arc<Observer>,
    events: Receiver<CallEvent>,
    handler: Arc<Handler>,
    next: u32,
}

impl Bench {
    fn new(wasm: &[u8], threads: usize, max_instances: u32, timeout_ms: u64) -> Bench {
        let engine = testing::engine_of(max_instances);
        let handler = testing::handler(&engine, wasm, timeout_ms);
        Bench::with(&engine, handler, threads)
    }

    fn with(engine: &Engine, handler: Arc<Handler>, threads: usize) -> Bench {
        let workers = Workers::start(engine, threads).unwrap();
        let (sender, events) = sync_channel(1_000);
        Bench { workers, observer: Arc::new(Observer(sender)), events, handler, next: 0 }
    }

    fn call(&mut self, lanes: &[&[&str]]) -> Box<Call> {
        let mut call = Call::new(self.handler.clone(), self.observer.clone(), OUTPUT_BYTES);
        call.key = CallKey { event_loop: 1, call: CallId { slot: self.next, reuse_count: 9 } };
        self.next += 1;
        testing::fill(&mut call.batch, lanes);
        call
    }

    fn submit(&mut self, lanes: &[&[&str]]) -> CallKey {
        let call = self.call(lanes);
        let key = call.key;
        self.workers.submit(&mut vec![call], 1);
        key
    }

    fn event(&self) -> CallEvent {
        self.events.recv_timeout(TIMEOUT).unwrap()
    }

    fn ended(&self) -> Box<Call> {
        let event = self.event();
        let CallEvent::Ended(call) = event else { panic!("{event:?}") };
        call
    }

    fn suspended(&self) -> CallId {
        let event = self.event();
        let CallEvent::Suspended(call) = event else { panic!("{event:?}") };
        call
    }

    fn terminated(&self) -> Box<Call> {
        let event = self.event();
        let CallEvent::Terminated(call) = event else { panic!("{event:?}") };
        call
    }

    /// Runs one call to its end.
    fn run(&mut self, lanes: &[&[&str]]) -> Box<Call> {
        self.submit(lanes);
        self.ended()
    }
}

fn done(rows: u32) -> LaneEnd {
    LaneEnd { done: rows, verdict: None }
}

fn failure(call: &Call) -> &GuestFailure {
    let CallStatus::Failed(failure) = &call.status else { panic!("{:?}", call.status) };
    failure
}

#[test]
fn a_batch_handler_gets_all_rows_at_once_and_its_instance_serves_again() {
    let mut bench = Bench::new(&testing::batch_handler(testing::ALL_DONE), 2, 8, 5_000);
    for _ in 0..3 {
        let call = bench.run(&[&["a", "b"], &["c"]]);
        assert_eq!(call.status, CallStatus::Returned);
        assert_eq!(call.results.lane_ends(), [done(2), done(1)]);
        assert!(!call.was_suspended);
        assert!(call.work_time > Duration::ZERO);
    }
    assert!(bench.workers.idle_instances() <= 2, "at most one for each worker");
}

#[test]
fn a_handler_is_called_row_by_row_and_a_lane_stops_at_its_first_failure() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 5_000);
    let call = bench.run(&[&["o1", "o2"], &["a", "r", "o3"], &["x"], &["o4"]]);
    assert_eq!(call.status, CallStatus::Returned);
    let ends = call.results.lane_ends();
    let stopped = |done, verdict| LaneEnd { done, verdict: Some(verdict) };
    let later = Verdict::Retry { after: Some(Duration::from_millis(250)) };
    assert_eq!(ends, [done(2), stopped(1, later), stopped(0, Verdict::Reject), done(1)]);
    let reasons: Vec<_> = call.results.stopped_lanes().iter().map(|r| (r.lane, r.reason.as_str())).collect();
    assert_eq!(reasons, [(1, "later"), (2, "never")]);
    let outputs: Vec<_> = call.results.outputs().map(|o| (o.row, o.target, o.value.unwrap())).collect();
    assert_eq!(outputs, [(0, 1, &b"o1"[..]), (1, 1, b"o2"), (6, 1, b"o4")]);
}

#[test]
fn headers_are_passed_to_and_from_a_handler() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 5_000);
    let mut call = bench.call(&[]);
    call.batch.begin("orders", 3, true);
    call.batch.push_row(0, 1, -1, None, Some(b"x"), [(&b"lost"[..], None)].into_iter());
    call.batch.end_lane();
    let headers = [(&b"a"[..], Some(&b"1"[..])), (b"a", None), (b"keylane-x", Some(b"no"))];
    call.batch.push_row(0, 2, -1, None, Some(b"o"), headers.into_iter());
    call.batch.end_lane();
    bench.workers.submit(&mut vec![call], 1);
    let call = bench.ended();
    let output = call.results.outputs().next().unwrap();
    assert_eq!((output.row, output.key), (1, None));
    assert_eq!(output.headers().collect::<Vec<_>>(), [("a", Some(&b"1"[..])), ("a", None)]);
    assert_eq!(call.results.reserved_headers(), 1);
}

#[test]
fn a_trap_names_the_functions_keeps_the_rows_before_it_and_drops_the_instance() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 5_000);
    let call = bench.run(&[&["o1"], &["a", "t", "o2"], &["a"]]);
    let failure = failure(&call);
    assert_eq!(failure.fault, Fault::Trap);
    assert_eq!(failure.message, "wasm trap: wasm `unreachable` instruction executed in `boom` < `handle`");
    assert_eq!(failure.row, Some(2));
    assert_eq!(call.results.lane_ends(), [done(1), done(1), done(0)], "the last lane was not reached");
    assert_eq!(call.results.rows_with_effects(), [0]);
    assert_eq!(bench.workers.idle_instances(), 0);
    assert_eq!(bench.run(&[&["a"]]).status, CallStatus::Returned);
    assert_eq!(bench.workers.idle_instances(), 1);
}

#[test]
fn an_endless_loop_is_stopped_at_its_deadline() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 100);
    // The loop yields now and then. On a busy machine, the deadline may pass before it runs again.
    let mut calls = std::iter::repeat_with(|| bench.run(&[&["a", "l"]])).take(20);
    let in_handle = "deadline exceeded in `handle`";
    let call = calls.find(|call| failure(call).message == in_handle).expect("one is stopped while it runs");
    drop(calls);
    let failure = failure(&call);
    assert_eq!(failure.fault, Fault::Timeout);
    assert_eq!(failure.row, Some(1));
    assert!(!call.was_suspended, "yielding is not waiting");
    assert_eq!(bench.workers.idle_instances(), 0);
}

#[test]
fn a_loop_that_yields_uses_up_its_cpu_time() {
    let engine = testing::engine_of(2);
    let options = HandlerOptions { cpu_budget: Duration::from_millis(50), ..testing::options(60_000) };
    let mut bench = Bench::with(&engine, testing::handler_with(&engine, &testing::obedient(), options), 1);
    let call = bench.run(&[&["a", "l"]]);
    let failure = failure(&call);
    assert_eq!((failure.fault, failure.row), (Fault::Cpu, Some(1)));
    assert_eq!(failure.message, "the budget of 50ms of CPU time is used up");
}

#[test]
fn a_call_gets_a_fresh_instance_if_it_needs_one() {
    let mut bench = Bench::new(&testing::obedient(), 1, 2, 5_000);
    assert!(bench.run(&[&["a"]]).ran_on_fresh_instance, "there was no instance before");
    assert!(!bench.run(&[&["a"]]).ran_on_fresh_instance);
    let mut call = bench.call(&[&["t"]]);
    call.needs_fresh_instance = true;
    bench.workers.submit(&mut vec![call], 1);
    let call = bench.ended();
    assert!(call.ran_on_fresh_instance && call.failed_fresh());
    let behind_another_row = bench.run(&[&["a", "t"]]);
    assert!(!behind_another_row.failed_fresh(), "the instance had served the row before");
}

#[test]
fn instances_are_replaced_when_they_are_old_or_large() {
    let engine = testing::engine_of(2);
    let few = HandlerOptions { reuse_max_calls: Some(2), ..testing::options(5_000) };
    let small = HandlerOptions { reuse_max_memory: 0, ..testing::options(5_000) };
    let each = HandlerOptions { fresh_instances: true, ..testing::options(5_000) };
    for (options, wanted) in
        [(few, [true, false, true]), (small, [true, true, true]), (each, [true, true, true])]
    {
        let handler = testing::handler_with(&engine, &testing::obedient(), options);
        let mut bench = Bench::with(&engine, handler, 1);
        let fresh = [(); 3].map(|()| bench.run(&[&["a"]]).ran_on_fresh_instance);
        assert_eq!(fresh, wanted);
    }
}

#[test]
fn growth_of_the_second_memory_hits_the_limit_over_both_memories() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 60_000);
    let call = bench.run(&[&["m"]]);
    let failure = failure(&call);
    assert_eq!(failure.fault, Fault::Memory);
    // Two memories of one page each; the second grows by 16 pages at a time.
    let steps = (64 * 16 - 2) / 16 + 1;
    let requested = (2 + 16 * steps) << 16;
    assert_eq!(
        failure.message,
        format!(
            "memory limit exceeded: the guest requested {requested} bytes in total, the limit is 67108864 \
             in `take_all` < `handle`"
        )
    );
}

#[test]
fn a_row_with_an_unknown_target_ends_its_lane_only() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 5_000);
    let call = bench.run(&[&["a", "d", "a"], &["a"]]);
    assert_eq!(call.status, CallStatus::Returned);
    let unpublishable = LaneEnd { done: 1, verdict: Some(Verdict::Unpublishable) };
    assert_eq!(call.results.lane_ends(), [unpublishable, LaneEnd { done: 1, verdict: None }]);
    assert_eq!(
        call.results.stopped_lanes()[0].reason,
        "the output `nowhere` is not configured: the handler has `other`, `totals`"
    );
}

#[test]
fn a_call_that_waits_does_not_block_its_worker() {
    let mut bench = Bench::new(&testing::waiting(), 1, 8, 60_000);
    let slow = bench.submit(&[&["w"]]);
    assert_eq!(bench.suspended(), slow.call);
    let hour = bench.submit(&[&["W"]]);
    // One worker with two waiting calls: a third still gets its turn.
    let mut events = vec![bench.event(), bench.event()];
    bench.submit(&[&["a"]]);
    events.push(bench.event());
    let ended: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            CallEvent::Ended(call) => Some((call.key, call.was_suspended, &call.status)),
            CallEvent::Suspended(call) => {
                assert_eq!(*call, hour.call);
                None
            }
            CallEvent::Terminated(call) => panic!("{call:?}"),
        })
        .collect();
    assert_eq!(ended.len(), 2);
    for (key, was_suspended, status) in ended {
        assert_eq!((was_suspended, status), (key == slow, &CallStatus::Returned), "{key:?}");
    }
    bench.workers.cancel(hour);
    assert_eq!(bench.terminated().key, hour);
}

#[test]
fn a_cancelled_call_is_terminated_with_its_store_and_its_buffers_come_back() {
    let mut bench = Bench::new(&testing::waiting(), 2, 8, 60_000);
    let key = bench.submit(&[&["o", "W"]]);
    assert_eq!(bench.suspended(), key.call);
    bench.workers.cancel(key);
    let call = bench.terminated();
    assert_eq!(call.key, key);
    assert_eq!(call.status, CallStatus::NotRun);
    assert!(call.results.lane_ends().is_empty(), "its results are discarded");
    assert_eq!(bench.workers.idle_instances(), 0);

    bench.workers.submit(&mut vec![call], 1);
    assert_eq!(bench.suspended(), key.call, "the same buffers are used again");
    bench.workers.cancel(key);
    bench.terminated();
}

#[test]
fn a_call_that_computes_is_cancelled_at_the_next_tick() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 60_000);
    let key = bench.submit(&[&["l"]]);
    let queued = bench.submit(&[&["a"]]);
    bench.workers.cancel(queued);
    assert_eq!(bench.terminated().key, queued, "a queued call is terminated at once");
    bench.workers.cancel(key);
    assert_eq!(bench.terminated().key, key);
}

#[test]
fn a_call_that_waits_past_its_deadline_is_a_timeout() {
    let mut bench = Bench::new(&testing::waiting(), 1, 8, 50);
    let key = bench.submit(&[&["a", "W"], &["a"]]);
    assert_eq!(bench.suspended(), key.call);
    let call = bench.ended();
    assert_eq!(
        failure(&call),
        &GuestFailure {
            fault: Fault::Timeout,
            message: "deadline of 50ms exceeded while waiting".to_owned(),
            row: Some(1)
        }
    );
    assert_eq!(call.results.lane_ends(), [done(1), done(0)]);
    assert!(call.was_suspended);
}

/// One call waits while another one computes on the same thread: only the time of the other one counts as work.
#[test]
fn waiting_is_not_working() {
    let engine = testing::engine_of(8);
    let [slow, looping] =
        [60_000, 500].map(|timeout_ms| testing::handler(&engine, &testing::waiting(), timeout_ms));
    let mut bench = Bench::with(&engine, slow, 1);
    let waits = bench.submit(&[&["W"]]);
    assert_eq!(bench.suspended(), waits.call);
    bench.handler = looping;
    let computed = bench.run(&[&["l"]]);
    assert_eq!(failure(&computed).fault, Fault::Timeout);
    bench.workers.cancel(waits);
    let suspended = bench.terminated();
    assert_eq!(suspended.key, waits);
    let (suspended, computed) = (suspended.work_time, computed.work_time);
    assert!(suspended < computed, "it worked {suspended:?} of {computed:?}");
}

#[test]
fn every_deadline_is_enforced_regardless_of_older_calls() {
    let engine = testing::engine_of(8);
    let [slow, fast] =
        [60_000, 50].map(|timeout_ms| testing::handler(&engine, &testing::waiting(), timeout_ms));
    let mut bench = Bench::with(&engine, slow, 1);
    let waits = bench.submit(&[&["W"]]);
    assert_eq!(bench.suspended(), waits.call);
    bench.handler = fast;
    for _ in 0..2 {
        let key = bench.submit(&[&["W"]]);
        assert_eq!(bench.suspended(), key.call);
        let call = bench.ended();
        assert_eq!((call.key, failure(&call).fault), (key, Fault::Timeout));
    }
    bench.workers.cancel(waits);
    assert_eq!(bench.terminated().key, waits);
}

#[test]
fn no_more_calls_are_taken_than_instances_may_live() {
    let mut bench = Bench::new(&testing::waiting(), 2, 2, 60_000);
    let first = bench.submit(&[&["W"]]);
    let second = bench.submit(&[&["W"]]);
    bench.suspended();
    bench.suspended();
    let mut third = vec![bench.call(&[&["a"]])];
    bench.workers.submit(&mut third, 1);
    assert_eq!(third.len(), 1, "the call stays");
    bench.workers.cancel(first);
    bench.terminated();
    bench.workers.submit(&mut third, 1);
    assert_eq!(bench.ended().status, CallStatus::Returned);
    bench.workers.cancel(second);
    bench.terminated();
}

#[test]
fn an_idle_instance_of_one_handler_is_replaced_by_another() {
    let engine = testing::engine_of(1);
    let workers = Workers::start(&engine, 2).unwrap();
    let (sender, events) = sync_channel(10);
    let observer = Arc::new(Observer(sender));
    let handlers = [testing::obedient(), testing::batch_handler(testing::ALL_DONE)]
        .map(|wasm| testing::handler(&engine, &wasm, 5_000));
    for round in 0..6 {
        let mut call = Call::new(handlers[round % 2].clone(), observer.clone(), OUTPUT_BYTES);
        testing::fill(&mut call.batch, &[&["a"]]);
        workers.submit(&mut vec![call], 1);
        let event = events.recv_timeout(TIMEOUT).unwrap();
        let CallEvent::Ended(call) = event else { panic!("{event:?}") };
        assert_eq!(call.status, CallStatus::Returned);
        assert_eq!(workers.idle_instances(), 1);
    }
}

#[test]
fn a_shutdown_returns_every_call() {
    let mut bench = Bench::new(&testing::waiting(), 2, 8, 60_000);
    for value in ["W", "W", "l", "l", "a"] {
        bench.submit(&[&[value]]);
    }
    bench.suspended();
    bench.suspended();
    bench.workers.shutdown();
    for _ in 0..5 {
        bench.terminated();
    }
    let mut late = vec![bench.call(&[&["a"]])];
    bench.workers.submit(&mut late, 1);
    assert_eq!(late.len(), 1);
}
