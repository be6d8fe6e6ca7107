//! What the counters of a handler show while its instances start, work, rest and end.

use super::*;
use crate::counters::GuestUsage;

/// The memory of an instance of [`testing::obedient`] that has not grown: two memories of one page each.
const TWO_PAGES: u64 = 2 << 16;

/// Returns the numbers of idle and busy instances, and their memory.
fn of(handler: &Handler) -> (u32, u32, u64) {
    let GuestUsage { memory_bytes, idle_instances, busy_instances, http } = handler.counters().snapshot();
    assert_eq!(http, None, "no grant, no counters");
    (idle_instances, busy_instances, memory_bytes)
}

#[test]
fn an_instance_is_counted_from_its_start_to_its_end() {
    let mut bench = Bench::new(&testing::waiting(), 2, 8, 60_000);
    assert_eq!(of(&bench.handler), (0, 0, 0), "the instance that was created to try the start is gone");
    let waits = bench.submit(&[&["W"]]);
    bench.suspended();
    assert_eq!(of(&bench.handler), (0, 1, TWO_PAGES));
    bench.run(&[&["a"]]);
    assert_eq!(of(&bench.handler), (1, 1, 2 * TWO_PAGES), "a returned instance is idle and keeps its memory");
    bench.workers.cancel(waits);
    bench.terminated();
    assert_eq!(of(&bench.handler), (1, 0, TWO_PAGES), "a cancelled call takes its instance with it");
    let handler = bench.handler.clone();
    drop(bench);
    assert_eq!(of(&handler), (0, 0, 0), "the pool is gone");
}

#[test]
fn an_idle_instance_that_works_again_is_busy() {
    let mut bench = Bench::new(&testing::waiting(), 1, 8, 60_000);
    bench.run(&[&["a"]]);
    assert_eq!(of(&bench.handler), (1, 0, TWO_PAGES));
    let waits = bench.submit(&[&["W"]]);
    bench.suspended();
    assert_eq!(of(&bench.handler), (0, 1, TWO_PAGES), "the same instance");
    bench.workers.cancel(waits);
    bench.terminated();
    assert_eq!(of(&bench.handler), (0, 0, 0));
}

#[test]
fn grown_memory_stays_counted_until_the_instance_ends() {
    let mut bench = Bench::new(&testing::obedient(), 1, 8, 60_000);
    let large = "a".repeat(200_000);
    bench.run(&[&[&large]]);
    let grown = 5 << 16; // the value and the allocator need four pages of the first memory
    assert_eq!(of(&bench.handler), (1, 0, grown));
    bench.run(&[&["a"]]);
    assert_eq!(of(&bench.handler), (1, 0, grown), "linear memory never shrinks");
    assert_eq!(failure(&bench.run(&[&["m"]])).fault, Fault::Memory);
    assert_eq!(of(&bench.handler), (0, 0, 0), "the failed instance was dropped");
}

#[test]
fn an_instance_that_is_not_reused_is_not_idle() {
    let engine = testing::engine_of(2);
    let options = HandlerOptions { fresh_instances: true, ..testing::options(5_000) };
    let handler = testing::handler_with(&engine, &testing::obedient(), options);
    let mut bench = Bench::with(&engine, handler, 1);
    bench.run(&[&["a"]]);
    assert_eq!(of(&bench.handler), (0, 0, 0));
}

#[test]
fn an_instance_that_is_replaced_by_one_of_another_handler_is_gone() {
    let engine = testing::engine_of(1);
    let [first, second] = [(); 2].map(|()| testing::handler(&engine, &testing::obedient(), 5_000));
    let mut bench = Bench::with(&engine, first.clone(), 1);
    bench.run(&[&["a"]]);
    assert_eq!((of(&first), of(&second)), ((1, 0, TWO_PAGES), (0, 0, 0)));
    bench.handler = second.clone();
    bench.run(&[&["a"]]);
    assert_eq!((of(&first), of(&second)), ((0, 0, 0), (1, 0, TWO_PAGES)));
}
