//! Endless loops around the handler of a guest, and excessive requests to the host.

use super::*;
use crate::compiler::Compiler;
use crate::grants::AllowedImports;
use crate::load::Component;

/// Builds a `batch-handler` for a world with clocks and randomness, from the code of `realloc`, of
/// the handler itself, and of its post-return function.
fn hostile(realloc: &str, body: &str, post_return: &str) -> Vec<u8> {
    testing::module(
        "test:guests/asking",
        &format!(
            r#"(module
                (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration"
                    (func $subscribe (param i64) (result i32)))
                (import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc} (i32.const 8192))
                (func (export "keylane:handler/batch-handler@0.1.0#handle") (param $batch i32) (result i32)
                    {body} {done})
                (func (export "cabi_post_keylane:handler/batch-handler@0.1.0#handle") (param i32) {post_return}))"#,
            done = testing::ALL_DONE
        ),
    )
}

const ENDLESS_LOOP: &str = "(loop $ever (br $ever))";

fn failure_of(wasm: &[u8]) -> (Fault, String) {
    let call = Bench::new(wasm, 1, 2, 200).run(&[&["a"]]);
    let CallStatus::Failed(failure) = call.status else { panic!("{:?}", call.status) };
    (failure.fault, failure.message)
}

#[test]
fn a_loop_around_the_handler_is_stopped_at_the_deadline_too() {
    for (realloc, post_return) in [(ENDLESS_LOOP, ""), ("", ENDLESS_LOOP)] {
        let (fault, message) = failure_of(&hostile(realloc, "", post_return));
        assert_eq!(fault, Fault::Timeout, "{message}");
    }
}

#[test]
fn a_loop_in_the_start_function_is_refused_before_any_event() {
    let engine = testing::engine();
    let wasm = testing::module(
        "keylane:handler/batch-event-handler@0.1.0",
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func $init {ENDLESS_LOOP}) (start $init)
                (func (export "keylane:handler/batch-handler@0.1.0#handle") (param i32) (result i32) unreachable))"#
        ),
    );
    let component = Component::from_bytes(
        &engine,
        "orders.wasm",
        &wasm,
        AllowedImports::default(),
        &Compiler::here(),
        None,
    )
    .unwrap();
    let error = Handler::new(&engine, &component, HandlerOptions::new("orders")).unwrap_err().to_string();
    assert!(error.starts_with("`orders.wasm` fails to start: "), "{error}");
}

#[test]
fn requests_to_the_host_have_limits() {
    let two_million_handles = "(local $left i32) (local.set $left (i32.const 2000000))
        (loop $more
            (drop (call $subscribe (i64.const 3600000000000)))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    let four_gibibytes = "(call $random (i64.const 4294967296) (i32.const 4096))";
    let a_result_of_two_gibibytes = "(i32.store (i32.const 1024) (i32.const 8192))
        (i32.store (i32.const 1028) (i32.const 2147483647))
        (return (i32.const 1024))";
    for (body, fault, message) in [
        (two_million_handles, Fault::Limit, "handle limit exceeded: more than 1024 at once"),
        (four_gibibytes, Fault::Limit, "random bytes limit exceeded: more than 64 KiB at once"),
        (
            a_result_of_two_gibibytes,
            Fault::Contract,
            "the result can't be read: list pointer/length out of bounds",
        ),
    ] {
        let failed = failure_of(&hostile("", body, ""));
        assert!(failed.0 == fault && failed.1.starts_with(message), "{failed:?} instead of {message}");
    }
}
