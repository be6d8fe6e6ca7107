//! Guests for tests, written as WebAssembly text: no toolchain for guests is needed.

mod keyed;

pub(super) use keyed::{keyed, keyed_and_single};

use std::sync::Arc;
use std::time::Duration;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::batch::Batch;
use super::call::GuestFailure;
use super::clock::Meter;
use super::compiler::Compiler;
use super::engine::{Engine, EngineOptions};
use super::grants::AllowedImports;
use super::handler::{Handler, HandlerOptions};
use super::load::Component;
use super::results::{Results, StateLimits};

const HANDLER_WIT: &str = include_str!("../../../wit/handler.wit");

/// The part of WASI that the guests here import.
const IO_WIT: &str = "package wasi:io@0.2.6; interface poll { resource pollable { block: func(); } }";
const CLOCKS_WIT: &str = "package wasi:clocks@0.2.6;
    interface monotonic-clock {
        use wasi:io/poll@0.2.6.{pollable};
        type duration = u64;
        subscribe-duration: func(when: duration) -> pollable;
    }";
const RANDOM_WIT: &str =
    "package wasi:random@0.2.6; interface random { get-random-bytes: func(len: u64) -> list<u8>; }";
const WORLDS_WIT: &str = "package test:guests;
    interface database { query: func(text: string) -> string; }
    world waiting {
        import wasi:io/poll@0.2.6;
        import wasi:clocks/monotonic-clock@0.2.6;
        export keylane:handler/handler@0.1.0;
    }
    world asking {
        import wasi:clocks/monotonic-clock@0.2.6;
        import wasi:random/random@0.2.6;
        export keylane:handler/batch-handler@0.1.0;
    }
    world keyed-and-single {
        export keylane:handler/keyed-handler@0.1.0;
        export keylane:handler/handler@0.1.0;
    }
    world greedy {
        import database;
        import http: interface { get: func(url: string); }
        import wasi:http/outgoing-handler@0.2.6;
        export keylane:handler/handler@0.1.0;
    }";
const HTTP_WIT: &str = "package wasi:http@0.2.6; interface outgoing-handler { handle: func(); }";

/// A memory, and an allocator whose memory is reset after each call.
const PRELUDE: &str = r#"
    (memory (export "memory") 1)
    (global $heap (mut i32) (i32.const 8192))
    (func (export "cabi_realloc") (param $old i32) (param $held i32) (param $align i32) (param $size i32)
        (result i32)
        (local $at i32)
        (local.set $at (i32.and
            (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $heap (i32.add (local.get $at) (local.get $size)))
        (block $fits (loop $more
            (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
            (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
            unreachable))
        (local.get $at))"#;

/// Builds a core module with the interface of a world.
pub(super) fn module(world: &str, wat: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    for (name, text) in [
        ("io.wit", IO_WIT),
        ("clocks.wit", CLOCKS_WIT),
        ("random.wit", RANDOM_WIT),
        ("http.wit", HTTP_WIT),
        ("handler.wit", HANDLER_WIT),
    ] {
        resolve.push_str(name, text).unwrap();
    }
    let worlds = resolve.push_str("worlds.wit", WORLDS_WIT).unwrap();
    let ours = resolve.packages.iter().find(|(_, package)| package.name.namespace == "keylane").unwrap().0;
    let world = resolve.select_world(&[worlds, ours], Some(world)).unwrap();
    let mut module = wat::parse_str(wat).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// Builds a `batch-handler`: `body` gets the batch in `$batch` and returns the address of the results.
pub(super) fn batch_handler(body: &str) -> Vec<u8> {
    module(
        "keylane:handler/batch-event-handler@0.1.0",
        &format!(
            r#"(module {PRELUDE}
                (func (export "keylane:handler/batch-handler@0.1.0#handle") (param $batch i32) (result i32)
                    {body})
                (func (export "cabi_post_keylane:handler/batch-handler@0.1.0#handle") (param i32)
                    (global.set $heap (i32.const 8192))))"#
        ),
    )
}

/// A body that returns every row as done: `done` is the list that was passed as `lanes`.
pub(super) const ALL_DONE: &str = "
    (i32.store (i32.const 1024) (i32.load offset=16 (local.get $batch)))
    (i32.store (i32.const 1028) (i32.load offset=20 (local.get $batch)))
    (i32.const 1024)";

/// Builds a `handler` whose action is the first byte of the value: `r` retry, `x` reject, `o` an output like the input,
/// `t` trap, `l` loop, `m` allocate memory until the limit, `d` an output with a target that is not configured; any
/// other byte is done.
pub(super) fn obedient() -> Vec<u8> {
    module("keylane:handler/event-handler@0.1.0", &obedient_text("", ""))
}

/// Builds the same handler in the `waiting` world: `w` waits for 20 ms, `W` for an hour.
pub(super) fn waiting() -> Vec<u8> {
    let imports = r#"
        (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration"
            (func $subscribe (param i64) (result i32)))
        (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop (param i32)))
        (func $wait (param $nanos i64) (local $pollable i32)
            (local.set $pollable (call $subscribe (local.get $nanos)))
            (call $block (local.get $pollable))
            (call $drop (local.get $pollable)))"#;
    let extra = r#"
        (if (i32.eq (local.get $wish) (i32.const 119)) (then (call $wait (i64.const 20000000))))
        (if (i32.eq (local.get $wish) (i32.const 87)) (then (call $wait (i64.const 3600000000000))))"#;
    module("test:guests/waiting", &obedient_text(imports, extra))
}

/// Builds a `handler` that prints the value, as a module for WASI preview 1 does.
pub(super) fn printing() -> Vec<u8> {
    let imports = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let extra = "
        (i32.store (i32.const 3072) (local.get $value))
        (i32.store (i32.const 3076) (local.get $value_len))
        (drop (call $fd_write (i32.const 1) (i32.const 3072) (i32.const 1) (i32.const 3080)))";
    module("keylane:handler/event-handler@0.1.0", &obedient_text(imports, extra))
}

/// Builds a `handler` with imports that are not granted.
pub(super) fn greedy() -> Vec<u8> {
    let imports = r#"
        (import "test:guests/database" "query" (func (param i32 i32 i32)))
        (import "http" "get" (func (param i32 i32)))
        (import "wasi:http/outgoing-handler@0.2.6" "handle" (func))"#;
    module("test:guests/greedy", &obedient_text(imports, ""))
}

#[expect(clippy::too_many_lines, reason = "one program")]
fn obedient_text(imports: &str, extra: &str) -> String {
    format!(
        r#"(module
            {imports}
            {PRELUDE}
            (memory $second 1)
            (data (i32.const 2048) "later")
            (data (i32.const 2064) "never")
            (data (i32.const 2080) "totals")
            (data (i32.const 2096) "nowhere")
            (func $boom unreachable)
            (func $take_all
                (loop $more
                    (br_if $more (i32.ne (memory.grow $second (i32.const 16)) (i32.const -1))))
                unreachable)
            (func $output (param $target i32) (param $target_len i32)
                (param $has_key i32) (param $key i32) (param $key_len i32)
                (param $value i32) (param $value_len i32)
                (param $headers i32) (param $headers_len i32)
                (i32.store (i32.const 1104) (local.get $target))
                (i32.store (i32.const 1108) (local.get $target_len))
                (i32.store8 (i32.const 1112) (local.get $has_key))
                (i32.store (i32.const 1116) (local.get $key))
                (i32.store (i32.const 1120) (local.get $key_len))
                (i32.store8 (i32.const 1124) (i32.const 1))
                (i32.store (i32.const 1128) (local.get $value))
                (i32.store (i32.const 1132) (local.get $value_len))
                (i32.store (i32.const 1136) (local.get $headers))
                (i32.store (i32.const 1140) (local.get $headers_len))
                (i32.store (i32.const 1028) (i32.const 1104))
                (i32.store (i32.const 1032) (i32.const 1)))
            (func $handle (export "keylane:handler/handler@0.1.0#handle")
                (param $topic i32) (param $topic_len i32) (param $partition i32) (param $offset i64)
                (param $timestamp i64)
                (param $has_key i32) (param $key i32) (param $key_len i32)
                (param $has_value i32) (param $value i32) (param $value_len i32)
                (param $headers i32) (param $headers_len i32)
                (param $attempt i32) (param $last i32)
                (result i32)
                (local $wish i32)
                (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
                (if (local.get $value_len)
                    (then (local.set $wish (i32.load8_u (local.get $value)))))
                {extra}
                (if (i32.eq (local.get $wish) (i32.const 114)) (then ;; r
                    (i32.store8 (i32.const 1024) (i32.const 1))
                    (i32.store (i32.const 1032) (i32.const 2048))
                    (i32.store (i32.const 1036) (i32.const 5))
                    (i32.store8 (i32.const 1040) (i32.const 1))
                    (i32.store (i32.const 1044) (i32.const 250))))
                (if (i32.eq (local.get $wish) (i32.const 120)) (then ;; x
                    (i32.store8 (i32.const 1024) (i32.const 1))
                    (i32.store8 (i32.const 1028) (i32.const 1))
                    (i32.store (i32.const 1032) (i32.const 2064))
                    (i32.store (i32.const 1036) (i32.const 5))))
                (if (i32.eq (local.get $wish) (i32.const 116)) (then (call $boom)))
                (if (i32.eq (local.get $wish) (i32.const 108)) (then (loop $ever (br $ever))))
                (if (i32.eq (local.get $wish) (i32.const 109)) (then (call $take_all)))
                (if (i32.eq (local.get $wish) (i32.const 111)) (then ;; o
                    (call $output (i32.const 2080) (i32.const 6)
                        (local.get $has_key) (local.get $key) (local.get $key_len)
                        (local.get $value) (local.get $value_len)
                        (local.get $headers) (local.get $headers_len))))
                (if (i32.eq (local.get $wish) (i32.const 100)) (then ;; d
                    (call $output (i32.const 2096) (i32.const 7)
                        (local.get $has_key) (local.get $key) (local.get $key_len)
                        (local.get $value) (local.get $value_len)
                        (local.get $headers) (local.get $headers_len))))
                (i32.const 1024))
            (func (export "cabi_post_keylane:handler/handler@0.1.0#handle") (param i32)
                (global.set $heap (i32.const 8192))))"#
    )
}

pub(super) fn engine() -> Arc<Engine> {
    engine_of(8)
}

pub(super) fn engine_of(max_instances: u32) -> Arc<Engine> {
    Engine::new(EngineOptions { max_instances }).unwrap()
}

/// Creates a handler with the outputs `other` and `totals`.
pub(super) fn handler(engine: &Arc<Engine>, wasm: &[u8], timeout_ms: u64) -> Arc<Handler> {
    handler_with(engine, wasm, options(timeout_ms))
}

pub(super) fn options(timeout_ms: u64) -> HandlerOptions {
    let outputs = vec!["other".to_owned(), "totals".to_owned()];
    HandlerOptions { outputs, timeout: Duration::from_millis(timeout_ms), ..HandlerOptions::new("test") }
}

/// Returns the same options with states of up to this size.
pub(super) fn with_state(max_bytes: usize) -> HandlerOptions {
    HandlerOptions { state: Some(StateLimits { max_bytes }), ..options(5_000) }
}

pub(super) fn handler_with(engine: &Arc<Engine>, wasm: &[u8], options: HandlerOptions) -> Arc<Handler> {
    let component =
        Component::from_bytes(engine, "test.wasm", wasm, AllowedImports::default(), &Compiler::here(), None)
            .unwrap();
    Handler::new(engine, &component, options).unwrap()
}

/// Fills a batch with lanes of values; keys are `k`, offsets count from 100.
pub(super) fn fill(batch: &mut Batch, lanes: &[&[&str]]) {
    batch.begin("orders", 1, false);
    let mut offset = 100;
    for lane in lanes {
        for value in *lane {
            batch.push_row(7, offset, 5, Some(b"k"), Some(value.as_bytes()), std::iter::empty());
            offset += 1;
        }
        batch.end_lane();
    }
}

/// Runs one call on this thread, on an instance of its own.
pub(super) fn call_here(handler: &Arc<Handler>, batch: &Batch) -> (Result<(), GuestFailure>, Results) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let meter = Arc::new(Meter::new(handler.clock().clone()));
    meter.arm(handler.timeout());
    meter.resume();
    let mut results = Results::new(super::OUTPUT_BYTES);
    let result = runtime.block_on(async {
        let mut instance = handler.instance(&meter).await?;
        instance.call(handler, &meter, batch, &mut results).await
    });
    (result, results)
}
