//! A `keyed-handler` whose action is in the value of the event.

use super::{PRELUDE, module};

/// Builds a `keyed-handler` whose action is the first byte of the value: `k` keeps the state, `p` replaces it by the value
/// of the event, `e` by the empty one, `a` appends the value to it, `x` deletes it; `r` requests a retry, `t` traps.
/// Unless the second byte is `q`, a row that is done has an output: its value is the state that the row was called
/// with, and its target is `totals`, or one that is not configured if the second byte is `d`.
const HANDLE: &str = r#"
    (data (i32.const 2048) "later")
    (data (i32.const 2080) "totals")
    (data (i32.const 2096) "nowhere")
    (func $boom unreachable)
    (func $put (param $from i32) (param $len i32)
        (i32.store8 (i32.const 1036) (i32.const 1))
        (i32.store (i32.const 1040) (local.get $from))
        (i32.store (i32.const 1044) (local.get $len)))
    (func $append (param $event i32) (local $old i32) (local $len i32) (local $value_len i32)
        (local.set $old (i32.const 4096))
        (if (i32.load8_u offset=72 (local.get $event)) (then
            (local.set $len (i32.load offset=80 (local.get $event)))
            (memory.copy (local.get $old) (i32.load offset=76 (local.get $event)) (local.get $len))))
        (local.set $value_len (i32.load offset=52 (local.get $event)))
        (memory.copy (i32.add (local.get $old) (local.get $len))
            (i32.load offset=48 (local.get $event)) (local.get $value_len))
        (call $put (local.get $old) (i32.add (local.get $len) (local.get $value_len))))
    (func $output (param $event i32) (param $target i32) (param $target_len i32)
        (i32.store (i32.const 1104) (local.get $target))
        (i32.store (i32.const 1108) (local.get $target_len))
        (i64.store (i32.const 1124) (i64.load offset=72 (local.get $event)))
        (i32.store (i32.const 1132) (i32.load offset=80 (local.get $event)))
        (i32.store (i32.const 1028) (i32.const 1104))
        (i32.store (i32.const 1032) (i32.const 1)))
    (func (export "keylane:handler/keyed-handler@0.1.0#handle") (param $event i32) (result i32)
        (local $wish i32) (local $second i32)
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 128))
        (local.set $wish (i32.load8_u (i32.load offset=48 (local.get $event))))
        (if (i32.gt_u (i32.load offset=52 (local.get $event)) (i32.const 1)) (then
            (local.set $second (i32.load8_u offset=1 (i32.load offset=48 (local.get $event))))))
        (if (i32.eq (local.get $wish) (i32.const 116)) (then (call $boom))) ;; t
        (if (i32.eq (local.get $wish) (i32.const 114)) (then ;; r
            (i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store (i32.const 1032) (i32.const 2048))
            (i32.store (i32.const 1036) (i32.const 5))
            (return (i32.const 1024))))
        (if (i32.eq (local.get $wish) (i32.const 112)) (then ;; p
            (call $put (i32.load offset=48 (local.get $event)) (i32.load offset=52 (local.get $event)))))
        (if (i32.eq (local.get $wish) (i32.const 101)) (then (call $put (i32.const 0) (i32.const 0)))) ;; e
        (if (i32.eq (local.get $wish) (i32.const 97)) (then (call $append (local.get $event)))) ;; a
        (if (i32.eq (local.get $wish) (i32.const 120)) (then (i32.store8 (i32.const 1036) (i32.const 2)))) ;; x
        (if (i32.eq (local.get $second) (i32.const 100)) ;; d
            (then (call $output (local.get $event) (i32.const 2096) (i32.const 7)))
            (else (if (i32.ne (local.get $second) (i32.const 113)) ;; q
                (then (call $output (local.get $event) (i32.const 2080) (i32.const 6))))))
        (i32.const 1024))
    (func (export "cabi_post_keylane:handler/keyed-handler@0.1.0#handle") (param i32)
        (global.set $heap (i32.const 8192)))"#;

fn text(more: &str) -> String {
    format!("(module {PRELUDE} {HANDLE} {more})")
}

/// Builds it.
pub(crate) fn keyed() -> Vec<u8> {
    module("keylane:handler/keyed-event-handler@0.1.0", &text(""))
}

/// Builds it with a `handler` that traps.
pub(crate) fn keyed_and_single() -> Vec<u8> {
    let params = "i32 i32 i32 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";
    let single = format!(
        r#"(func (export "keylane:handler/handler@0.1.0#handle") (param {params}) (result i32) unreachable)"#
    );
    module("test:guests/keyed-and-single", &text(&single))
}
