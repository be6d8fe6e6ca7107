//! Both sides of the process that compiles.
//!
//! Its standard streams are files in memory: the component, the code, and what it says. So neither side ever waits
//! for the other to read, and the parent has one thing to do: wait for the end, or make it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::engine;
use super::super::load::LoadError;
use super::COMMAND;
use super::code::{Code, memory_file};
use super::limits::Limits;
use super::verdict::{CompileFailure, verdict};

/// How often the parent looks whether the child has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Compiling that takes longer is said.
const QUIET: Duration = Duration::from_secs(2);

/// More threads than this would fill the child's address space with their stacks and heaps.
const THREADS_MAX: usize = 4;

/// What is kept of its words.
const WORDS_MAX: u64 = 2 << 10;

/// The parent's side: gives `wasm` to a child and takes what comes of it.
pub(super) fn compile(
    program: &Path,
    limits: &Limits,
    stop: &AtomicBool,
    name: &str,
    wasm: &[u8],
) -> Result<Code, LoadError> {
    let lost = |error: io::Error| CompileFailure::Lost(format!("did not run: {error}"));
    let compiled = run(program, limits, stop, name, wasm).map_err(lost).and_then(|ended| {
        if stop.load(Ordering::Acquire) {
            return Err(CompileFailure::Stopped);
        }
        verdict(ended.status, &ended.words, limits)?;
        Code::seal(ended.code).map_err(lost)
    });
    compiled.map_err(|fault| {
        let name = name.to_owned();
        match fault {
            CompileFailure::Refused(reason) => LoadError::Compile { name, reason },
            CompileFailure::Limit(limit) => LoadError::CompileLimit { name, limit },
            CompileFailure::Stopped => LoadError::Stopped { name },
            CompileFailure::Lost(what) => LoadError::Compiler { name, what },
        }
    })
}

/// A child that has ended.
struct Ended {
    /// `None`: it was ended, because its time was over.
    status: Option<ExitStatus>,
    code: File,
    words: String,
}

fn run(program: &Path, limits: &Limits, stop: &AtomicBool, name: &str, wasm: &[u8]) -> io::Result<Ended> {
    let mut input = memory_file("component")?;
    input.write_all(wasm)?;
    input.rewind()?;
    let code = memory_file("code")?;
    let mut words = memory_file("words")?;
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let child = Command::new(program)
        .arg(COMMAND)
        .args(["--address-space", &limits.address_space.to_string()])
        .args(["--cpu-seconds", &limits.cpu_seconds.to_string()])
        // What it says is the reason why there is no code, and nothing else.
        .args(["--log", "off"])
        // It needs nothing from it, and secrets are passed in it.
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        // Its allocator would begin with a GiB of addresses, half of what it may have.
        .env("MIMALLOC_ARENA_RESERVE", "32MiB")
        // An interrupt from a terminal is for the parent, which decides what becomes of its children.
        .process_group(0)
        .stdin(input)
        .stdout(code.try_clone()?)
        .stderr(words.try_clone()?)
        .spawn()?;
    let status = wait(child, limits.wall, stop, name)?;
    let mut said = Vec::new();
    words.rewind()?;
    words.take(WORDS_MAX).read_to_end(&mut said)?;
    Ok(Ended { status, code, words: String::from_utf8_lossy(&said).trim().to_owned() })
}

/// Counts looks and not the clock: a parent that was stopped for a while charges the child nothing for it.
fn wait(mut child: Child, limit: Duration, stop: &AtomicBool, name: &str) -> io::Result<Option<ExitStatus>> {
    let looks = |time: Duration| time.as_millis() / LOOK.as_millis();
    for look in 0..looks(limit) {
        if let Some(status) = child.try_wait()? {
            if look >= looks(QUIET) {
                let seconds = look * LOOK.as_millis() / 1000;
                tracing::info!(component = name, seconds, "compiled");
            }
            return Ok(Some(status));
        }
        if stop.load(Ordering::Acquire) {
            break;
        }
        if look == looks(QUIET) {
            tracing::info!(component = name, "compiling");
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// The child's side, its whole life: takes the limits upon itself, then compiles what is on standard input and
/// writes the code to standard output. `Err` inside: why the compiler does not take the component. When a limit is
/// hit the process ends.
///
/// # Errors
///
/// It can't do its work, whatever the component is.
pub fn compile_for_parent(limits: &Limits) -> io::Result<Result<(), String>> {
    limits.apply()?;
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    match compile_here(&wasm) {
        Ok(code) => {
            let mut out = io::stdout().lock();
            out.write_all(&code)?;
            // Not left to the end of the process, which hears of no error.
            out.flush()?;
            Ok(Ok(()))
        }
        Err(reason) => Ok(Err(reason)),
    }
}

/// The code of a component, made in this process.
pub(super) fn compile_here(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let engine = engine::for_compiling().map_err(|error| error.to_string())?;
    engine.precompile_component(wasm).map_err(|error| match error.downcast_ref::<wasmtime::OutOfMemory>() {
        // As if the system's allocator had failed elsewhere in the compiler: one end for one cause.
        Some(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<u8>()),
        None => format!("{error:#}"),
    })
}
