//! The process that compiles: the parent's side and the child's side.
//!
//! The child's standard streams are files in memory: the component, the code, and the messages. So neither side ever
//! waits for the other to read, and the parent only waits for the child to exit, or kills it.

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
use super::exit_status::{CompileFailure, interpret};
use super::limits::Limits;

/// How often the parent checks whether the child has exited.
const POLL: Duration = Duration::from_millis(5);

/// Compiling is logged if it takes longer.
const LOG_AFTER: Duration = Duration::from_secs(2);

/// More threads would fill the child's address space with their stacks and heaps.
const THREADS_MAX: usize = 4;

/// The maximum number of bytes that are kept of the child's messages.
const STDERR_MAX: u64 = 2 << 10;

/// Passes `wasm` to a child and returns the result: the parent's side.
pub(super) fn compile(
    program: &Path,
    limits: &Limits,
    stop: &AtomicBool,
    name: &str,
    wasm: &[u8],
) -> Result<Code, LoadError> {
    let child_failed = |error: io::Error| CompileFailure::ChildFailed(format!("did not run: {error}"));
    let compiled = run(program, limits, stop, name, wasm).map_err(child_failed).and_then(|child| {
        if stop.load(Ordering::Acquire) {
            return Err(CompileFailure::Stopped);
        }
        interpret(child.status, &child.stderr, limits)?;
        Code::seal(child.code).map_err(child_failed)
    });
    compiled.map_err(|failure| {
        let name = name.to_owned();
        match failure {
            CompileFailure::Rejected(reason) => LoadError::CompileRejected { name, reason },
            CompileFailure::Limit(limit) => LoadError::CompileLimit { name, limit },
            CompileFailure::Stopped => LoadError::Stopped { name },
            CompileFailure::ChildFailed(what) => LoadError::CompilerProcess { name, what },
        }
    })
}

/// A child that has exited.
struct ExitedChild {
    /// `None`: it was killed, because it exceeded its time or was stopped.
    status: Option<ExitStatus>,
    code: File,
    stderr: String,
}

fn run(
    program: &Path,
    limits: &Limits,
    stop: &AtomicBool,
    name: &str,
    wasm: &[u8],
) -> io::Result<ExitedChild> {
    let mut input = memory_file("component")?;
    input.write_all(wasm)?;
    input.rewind()?;
    let code = memory_file("code")?;
    let mut stderr = memory_file("stderr")?;
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let child = Command::new(program)
        .arg(COMMAND)
        .args(["--address-space", &limits.address_space.to_string()])
        .args(["--cpu-seconds", &limits.cpu_seconds.to_string()])
        // The child needs no variables, and the environment may contain secrets.
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        // By default the allocator first reserves 1 GiB of addresses, half of the limit.
        .env("MIMALLOC_ARENA_RESERVE", "32MiB")
        // An interrupt from a terminal must reach only the parent, which ends its children.
        .process_group(0)
        .stdin(input)
        .stdout(code.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()?;
    let status = wait(child, limits.wall, stop, name)?;
    let mut messages = Vec::new();
    stderr.rewind()?;
    stderr.take(STDERR_MAX).read_to_end(&mut messages)?;
    Ok(ExitedChild { status, code, stderr: String::from_utf8_lossy(&messages).trim().to_owned() })
}

/// Waits for the child. It counts polls instead of time, so that time in which the parent was stopped is not charged to
/// the child.
fn wait(mut child: Child, limit: Duration, stop: &AtomicBool, name: &str) -> io::Result<Option<ExitStatus>> {
    let polls = |time: Duration| time.as_millis() / POLL.as_millis();
    for poll in 0..polls(limit) {
        if let Some(status) = child.try_wait()? {
            if poll >= polls(LOG_AFTER) {
                let seconds = poll * POLL.as_millis() / 1000;
                tracing::info!(component = name, seconds, "component compiled");
            }
            return Ok(Some(status));
        }
        if stop.load(Ordering::Acquire) {
            break;
        }
        if poll == polls(LOG_AFTER) {
            tracing::info!(component = name, "compiling component");
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Applies the limits to this process, then compiles the component on standard input and writes the code to standard
/// output: the child's side. The inner `Err` is why the compiler rejects the component. When a limit is hit, the
/// process is killed or aborts.
///
/// # Errors
///
/// If the process can't do its work, whatever the component is.
pub fn compile_for_parent(limits: &Limits) -> io::Result<Result<(), String>> {
    limits.apply()?;
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    match compile_here(&wasm) {
        Ok(code) => {
            let mut out = io::stdout().lock();
            out.write_all(&code)?;
            // Flushed here, because a flush at the end of the process reports no error.
            out.flush()?;
            Ok(Ok(()))
        }
        Err(reason) => Ok(Err(reason)),
    }
}

/// Compiles a component in this process.
pub(super) fn compile_here(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let engine = engine::for_compiling().map_err(|error| error.to_string())?;
    engine.precompile_component(wasm).map_err(|error| match error.downcast_ref::<wasmtime::OutOfMemory>() {
        // Abort as if the system's allocator had failed elsewhere in the compiler: one exit status for one cause.
        Some(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<u8>()),
        None => format!("{error:#}"),
    })
}
