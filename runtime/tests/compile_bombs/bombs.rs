//! Core modules that are small, valid or almost valid, and expensive to compile.

use crate::bytes::{Bytes, leb128};

const I32: u8 = 0x7f;
const LOOP: [u8; 2] = [0x03, 0x40];
const BLOCK: [u8; 2] = [0x02, 0x40];
const IF: [u8; 2] = [0x04, 0x40];
const END: [u8; 1] = [0x0b];
const BR_IF_0: [u8; 2] = [0x0d, 0];
const BR_TABLE: [u8; 1] = [0x0e];
const I32_ADD: [u8; 1] = [0x6a];
const DROP: [u8; 1] = [0x1a];

/// Nested loops, each of which changes one of many variables.
pub(crate) fn nested_loops(depth: usize, locals: usize) -> Bytes {
    let mut body = Bytes::default().then(i32_locals(locals));
    for level in 0..depth {
        let local = level % locals;
        body = body.then([&LOOP, &get(local)[..], &i32_const(1), &I32_ADD, &set(local)].concat());
    }
    let body = body.repeat(depth, [&get(0), &BR_IF_0[..], &END].concat());
    one_function(body)
}

/// Sequential `if` blocks: every join merges every variable.
pub(crate) fn ifs(number: usize, locals: usize) -> Bytes {
    let mut body = Bytes::default().then(i32_locals(locals));
    for index in 0..number {
        let (condition, changed) = (get(index % locals), set((index * 7 + 1) % locals));
        body = body.then([&condition, &IF[..], &i32_const(1), &changed, &END].concat());
    }
    one_function(body)
}

/// One long function.
pub(crate) fn additions(number: usize) -> Bytes {
    let addition = [i32_const(1).as_slice(), &I32_ADD].concat();
    let body = Bytes::default().then(i32_locals(0)).then(i32_const(0)).repeat(number, addition).then(DROP);
    one_function(body)
}

/// Many empty functions, for the cost per function.
pub(crate) fn empty_functions(number: usize) -> Bytes {
    let empty = [2, 0, END[0]];
    module(
        Bytes::default().number(number).repeat(number, [0]),
        Bytes::default().number(number).repeat(number, empty),
    )
}

/// Blocks nested as deeply as a file of this size allows.
pub(crate) fn nested_blocks(depth: usize) -> Bytes {
    let body = Bytes::default().then(i32_locals(0)).repeat(depth, BLOCK).repeat(depth, END);
    one_function(body)
}

/// Not a bomb, but a large ordinary program: functions of half a kilobyte with loops and branches.
pub(crate) fn ordinary_functions(number: usize) -> Bytes {
    let mut body = Bytes::default().then(i32_locals(8));
    for round in 0..20 {
        let (a, b) = (round % 8, (round * 3 + 1) % 8);
        body = body.then([&LOOP, &get(a)[..], &get(b), &I32_ADD, &set(b)].concat());
        body = body.then([&get(b), &IF[..], &get(a), &i32_const(1), &I32_ADD, &set(a), &END].concat());
        body = body.then([&get(a), &BR_IF_0[..], &END].concat());
    }
    let function = Bytes::default().sized(body.then(END)).flat();
    module(
        Bytes::default().number(number).repeat(number, [0]),
        Bytes::default().number(number).repeat(number, function),
    )
}

/// Jumps with more targets than the engine accepts.
pub(crate) fn jump_tables(number: usize, targets: usize) -> Bytes {
    let mut body = Bytes::default().then(i32_locals(0)).repeat(number, BLOCK);
    for _ in 0..number {
        body = body.then(i32_const(0)).then(BR_TABLE).number(targets).repeat(targets + 1, [0]).then(END);
    }
    one_function(body)
}

/// `body`: the declarations of its variables, and its instructions without the final `end`.
fn one_function(body: Bytes) -> Bytes {
    module(Bytes::default().then([1, 0]), Bytes::default().then([1]).sized(body.then(END)))
}

/// All functions have type 0, without parameters or results.
fn module(functions: Bytes, code: Bytes) -> Bytes {
    let types = Bytes::default().then([1, 0x60, 0, 0]);
    let section = |module: Bytes, id: u8, content: Bytes| module.then([id]).sized(content);
    let module = Bytes::default().then(b"\0asm\x01\0\0\0");
    section(section(section(module, 1, types), 3, functions), 10, code)
}

fn i32_locals(number: usize) -> Vec<u8> {
    match number {
        0 => vec![0],
        _ => [&[1], leb128(number).as_slice(), &[I32]].concat(),
    }
}

/// Numbers up to 63 only: one byte, below the sign bit.
fn i32_const(number: u8) -> [u8; 2] {
    [0x41, number]
}

fn get(local: usize) -> Vec<u8> {
    [&[0x20], leb128(local).as_slice()].concat()
}

fn set(local: usize) -> Vec<u8> {
    [&[0x21], leb128(local).as_slice()].concat()
}
