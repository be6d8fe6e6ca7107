//! Describes a failure in one line that names the guest's functions.

use std::fmt::Write as _;

use keylane_core::Fault;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::call::GuestFailure;
use super::host::{Limiter, RANDOM_BYTES_MAX, RESOURCES_MAX};

/// Maximum number of functions named in a message: enough to find the code, few enough for a log line and a header.
const FRAMES_SHOWN: usize = 6;

/// Maximum characters of a function's name: names of generic functions can be very long.
const NAME_MAX: usize = 120;

/// The engine's message when a result or an argument of a host function exceeds its size limit.
const TOO_MUCH_DATA: &str = "fuel allocated for hostcalls has been exhausted";

/// WASI's message when a guest requests more random bytes than the limit.
const TOO_MUCH_RANDOM: &str = "requested len ";

/// Classifies the error of a call.
pub(super) fn failure(error: &wasmtime::Error, limiter: &Limiter) -> GuestFailure {
    let text = format!("{:#}", error.root_cause());
    let in_the_guest = error.downcast_ref::<WasmBacktrace>();
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        return GuestFailure::new(Fault::Timeout, with_frames("deadline exceeded".to_owned(), in_the_guest));
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
        return GuestFailure::new(Fault::Stack, with_frames(text, in_the_guest));
    }
    if let Some(refusal) = limiter.refusal() {
        return GuestFailure::new(Fault::Memory, with_frames(refusal, in_the_guest));
    }
    if let Some(message) = limit_hit(error, &text) {
        return GuestFailure::new(Fault::Limit, with_frames(message, in_the_guest));
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        let message = format!("the guest ended with exit code {}", exit.0);
        return GuestFailure::new(Fault::Trap, with_frames(message, in_the_guest));
    }
    if error.downcast_ref::<Trap>().is_some() || in_the_guest.is_some() {
        return GuestFailure::new(Fault::Trap, with_frames(text, in_the_guest));
    }
    // The guest returned, but with pointers or text that can't be read.
    GuestFailure::new(Fault::Contract, format!("the result can't be read: {text}"))
}

/// Describes the limit of the host that stopped the guest, if one did.
fn limit_hit(error: &wasmtime::Error, text: &str) -> Option<String> {
    if text.contains(TOO_MUCH_DATA) {
        return Some(
            "data limit exceeded: the result, or the data of one host call, exceeds the maximum size of a result"
                .to_owned(),
        );
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Some(format!("handle limit exceeded: more than {RESOURCES_MAX} at once"));
    }
    text.starts_with(TOO_MUCH_RANDOM)
        .then(|| format!("random bytes limit exceeded: more than {} KiB at once", RANDOM_BYTES_MAX >> 10))
}

/// Classifies the error of creating an instance.
pub(super) fn no_instance(error: &wasmtime::Error, limiter: &Limiter) -> GuestFailure {
    let failure = failure(error, limiter);
    let (fault, message) = match failure.fault {
        Fault::Contract if error.is::<PoolConcurrencyLimitError>() => (Fault::Limit, format!("{error:#}")),
        Fault::Contract => (Fault::Contract, format!("{error:#}")),
        Fault::Trap | Fault::Timeout | Fault::Cpu | Fault::Memory | Fault::Stack | Fault::Limit => {
            (failure.fault, failure.message)
        }
    };
    GuestFailure::new(fault, message)
}

fn with_frames(mut message: String, backtrace: Option<&WasmBacktrace>) -> String {
    let frames = backtrace.map_or(&[][..], WasmBacktrace::frames);
    for (position, frame) in frames.iter().take(FRAMES_SHOWN).enumerate() {
        let before = if position == 0 { " in" } else { " <" };
        let name = match frame.func_name() {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)).chars().take(NAME_MAX).collect(),
            None => format!("function {}", frame.func_index()),
        };
        write!(message, "{before} `{name}`").expect("writing to a string can't fail");
    }
    message
}
