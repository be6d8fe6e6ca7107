//! Staging, calling and checking allocate per call, never per event.
#![expect(unsafe_code, reason = "a counting allocator needs it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use keylane_core::LaneEnd;
use keylane_guest::{
    AllowedImports, Call, CallEvent, CallObserver, CallStatus, Compiler, Component, Engine, EngineOptions,
    Handler, HandlerOptions, OUTPUT_BYTES, Workers,
};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const ROWS: u64 = 1_000_000;
const ROWS_PER_CALL: u64 = 64;

/// Three were observed: the future of the call, the engine's state of a fiber, and the returned
/// list `done`.
const ALLOCATIONS_PER_CALL_MAX: u64 = 6;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller follows the rules of this trait, which are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A `batch-handler` that returns every row as done.
const NO_OP: &str = r#"(module
    (memory (export "memory") 4)
    (global $heap (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param $old i32) (param $held i32) (param $align i32) (param $size i32)
        (result i32)
        (local $at i32)
        (local.set $at (i32.and
            (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $heap (i32.add (local.get $at) (local.get $size)))
        (local.get $at))
    (func (export "keylane:handler/batch-handler@0.1.0#handle") (param $batch i32) (result i32)
        (i32.store (i32.const 1024) (i32.load offset=16 (local.get $batch)))
        (i32.store (i32.const 1028) (i32.load offset=20 (local.get $batch)))
        (i32.const 1024))
    (func (export "cabi_post_keylane:handler/batch-handler@0.1.0#handle") (param i32)
        (global.set $heap (i32.const 4096))))"#;

fn no_op() -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("handler.wit", include_str!("../../wit/handler.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("batch-event-handler")).unwrap();
    let mut module = wat::parse_str(NO_OP).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

struct Observer(SyncSender<Box<Call>>);

impl CallObserver for Observer {
    fn notify(&self, events: &mut Vec<CallEvent>) {
        for event in events.drain(..) {
            let CallEvent::Ended(call) = event else { panic!("{event:?}") };
            self.0.send(call).unwrap();
        }
    }
}

fn fill(call: &mut Call, first: u64) {
    let headers = [
        (&b"event-type"[..], Some(&b"order"[..])),
        (b"trace", Some(b"0123456789abcdef")),
        (b"odd \xff", None),
    ];
    call.batch.begin("orders", 1, false);
    for offset in first..first + ROWS_PER_CALL {
        call.batch.push_row(0, offset, 5, Some(b"key"), Some(&[7; 100]), headers.into_iter());
        if offset % 8 == 7 {
            call.batch.end_lane();
        }
    }
}

#[test]
fn a_million_rows_allocate_per_call_and_not_per_row() {
    let engine = Engine::new(EngineOptions { max_instances: 4 }).unwrap();
    let compiler = Compiler::new(env!("CARGO_BIN_EXE_keylane"));
    let component =
        Component::from_bytes(&engine, "no-op.wasm", &no_op(), AllowedImports::default(), &compiler, None)
            .unwrap();
    let handler = Handler::new(&engine, &component, HandlerOptions::new("no-op")).unwrap();
    let workers = Workers::start(&engine, 1).unwrap();
    let (sender, ended) = sync_channel(4);
    let mut submitted = vec![Call::new(handler, Arc::new(Observer(sender)), OUTPUT_BYTES)];

    let mut rows = 0;
    let mut before = 0;
    let calls = ROWS / ROWS_PER_CALL;
    for number in 0..calls {
        if number == 10 {
            before = ALLOCATIONS.load(Ordering::Relaxed); // the buffers have their final size
        }
        fill(&mut submitted[0], rows);
        workers.submit(&mut submitted, 1);
        let call = ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(call.status, CallStatus::Returned);
        assert_eq!(call.results.lane_ends(), [LaneEnd { done: 8, verdict: None }; 8]);
        rows += ROWS_PER_CALL;
        submitted.push(call);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let per_call = allocations as f64 / (calls - 10) as f64;
    assert!(per_call <= ALLOCATIONS_PER_CALL_MAX as f64, "{per_call} allocations per call");
}
