//! Promise: loading a component neither takes much memory of the process nor ends it. A child
//! process compiles the component. The result is that of the compiler, or an error that names the
//! file, the limit that was reached, and the remedy.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints its figures")]

mod bombs;
mod bytes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keylane_guest::compiler::{Limit, Limits};
use keylane_guest::{AllowedImports, Cache, Compiler, Component, Engine, EngineOptions, LoadError};

use bytes::Bytes;

const KEYLANE: &str = env!("CARGO_BIN_EXE_keylane");

/// The most that loading may add to the peak memory of this process, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

/// How long a child may take to appear before a test fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Lower than the defaults, so that the limits are hit sooner.
const SMALL: Limits = Limits { address_space: 512 << 20, cpu_seconds: 3, wall: Duration::from_secs(30) };

/// The possible results of loading a bomb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadResult {
    /// The component is loaded.
    Loaded,
    /// The compiler rejects the component.
    Refused,
    /// A limit is hit: memory or time, whichever this machine reaches first.
    Limit,
}

/// Serialises the tests, because each measures its process. Owns a temporary directory, which is
/// removed after the test.
struct Bench {
    folder: PathBuf,
    engine: Arc<Engine>,
    _exclusive: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Bench {
        static EXCLUSIVE: Mutex<()> = Mutex::new(());
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = std::env::temp_dir().join(format!("keylane-bombs-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Bench {
            folder,
            engine: Engine::new(EngineOptions { max_instances: 4 }).unwrap(),
            _exclusive: exclusive,
        }
    }

    fn file(&self, name: &str, module: Bytes) -> PathBuf {
        let file = self.folder.join(name);
        module.in_a_component().write(&file);
        file
    }

    fn load(&self, file: &Path, limits: Limits) -> Result<Component, LoadError> {
        Component::from_file(
            &self.engine,
            file,
            AllowedImports::default(),
            &Compiler::with_limits(KEYLANE, limits),
            None,
        )
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

#[test]
fn the_parent_stays_small_and_receives_a_result() {
    use LoadResult::{Limit, Loaded, Refused};
    let bench = Bench::new();
    let cases: [(&str, Bytes, Limits, &[LoadResult]); 7] = [
        ("nested-loops", bombs::nested_loops(8_000, 1_000), SMALL, &[Limit]),
        ("ifs", bombs::ifs(60_000, 2_000), SMALL, &[Limit]),
        ("one-function", bombs::additions(1_500_000), SMALL, &[Limit]),
        ("empty-functions", bombs::empty_functions(1_000_000), SMALL, &[Limit]),
        // Takes minutes with the compiler's assertions, and seconds without them.
        ("nested-blocks", bombs::nested_blocks(500_000), SMALL, &[Limit, Loaded]),
        ("ordinary", bombs::ordinary_functions(5_000), Limits::default(), &[Loaded]),
        ("jump-tables", bombs::jump_tables(6, 1_000_000), SMALL, &[Refused]),
    ];
    for (name, bomb, limits, allowed) in cases {
        let file = bench.file(&format!("{name}.wasm"), bomb);
        let (loaded, took, growth) = measured(|| bench.load(&file, limits));
        let message = loaded.as_ref().map_or_else(ToString::to_string, |_| "loaded".to_owned());
        println!("{name}: {took:.1?}, the parent grew by {growth} KiB: {message}");
        let result = match loaded {
            Ok(_) => Loaded,
            Err(LoadError::CompileRejected { .. }) => Refused,
            Err(LoadError::CompileLimit { .. }) => Limit,
            Err(_) => panic!("{name}: {message}"),
        };
        assert!(allowed.contains(&result), "{name}: {message}");
        assert!(growth <= GROWTH_MAX, "{name} made the parent grow by {growth} KiB");
    }
}

/// A stop does not wait for the compiler, and leaves no compiler process behind.
#[test]
fn a_stop_ends_the_compiler() {
    let bench = Bench::new();
    let file = bench.file("loops.wasm", bombs::nested_loops(8_000, 1_000));
    let stop = Arc::new(AtomicBool::new(false));
    let compiler = Compiler::new(KEYLANE).stopped_by(Arc::clone(&stop));
    let children = || fs::read_to_string("/proc/thread-self/children").unwrap();
    let error = std::thread::scope(|scope| {
        let stopping = scope.spawn(move || {
            let compiles = || {
                let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
                tasks
                    .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default())
                    .any(|children| !children.trim().is_empty())
            };
            let begun = now();
            while !compiles() {
                assert!(begun.elapsed() < TIMEOUT, "no compiler was started");
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Release);
        });
        let loaded = Component::from_file(&bench.engine, &file, AllowedImports::default(), &compiler, None);
        stopping.join().unwrap();
        loaded.unwrap_err()
    });
    assert!(matches!(&error, LoadError::Stopped { name } if name.ends_with("loops.wasm")), "{error}");
    assert_eq!(children(), "", "the compiler still runs");
}

#[test]
fn an_error_names_the_file_the_limit_and_the_remedy() {
    let bench = Bench::new();
    let file = bench.file("loops.wasm", bombs::nested_loops(8_000, 1_000));
    let cases = [
        (
            Limits { address_space: 128 << 20, ..Limits::default() },
            Limit::Memory(128 << 20),
            "128 MiB of memory",
        ),
        (Limits { cpu_seconds: 1, ..Limits::default() }, Limit::Cpu(1), "1 s of CPU time"),
        (
            Limits { wall: Duration::from_secs(1), ..Limits::default() },
            Limit::Wall(Duration::from_secs(1)),
            "1 s",
        ),
    ];
    for (limits, limit, named) in cases {
        let error = bench.load(&file, limits).unwrap_err();
        assert!(
            matches!(&error, LoadError::CompileLimit { limit: hit, .. } if *hit == limit),
            "{limit:?}: {error}"
        );
        assert_eq!(
            error.to_string(),
            format!(
                "`{}` needs more than {named} to be compiled; typical components need a fraction of that: build \
                 it optimized, remove unused code, and split its largest functions",
                file.display()
            )
        );
    }
}

/// The limits are the defaults.
#[test]
fn a_run_with_a_bomb_ends_with_an_error_and_not_with_a_signal() {
    let bench = Bench::new();
    let bomb = bench.file("ifs.wasm", bombs::ifs(60_000, 2_000));
    let config = bench.folder.join("keylane.toml");
    let text = "runtime.cache_dir = \"compiled\"\nkafka.bootstrap_servers = \"embedded\"\n\
        [[embedded.feed]]\ntopic = \"in\"\nfile = \"-\"\n\
        [handlers.t]\ncomponent = \"ifs.wasm\"\ntopics = [\"in\"]\ngroup_id = \"group\"\n";
    fs::write(&config, text).unwrap();
    let run = Command::new(KEYLANE).arg("run").arg("-c").arg(&config).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    // After the wall-time limit, another start may succeed: the machine may have been slow. The
    // limits of memory and CPU time are the same on every machine.
    let code = if stderr.contains("more than 120 s to be compiled") { 1 } else { 2 };
    assert_eq!(run.status.code(), Some(code), "{stderr}");
    for part in ["handler `t` can't be loaded", &bomb.display().to_string(), "needs more than ", "split its"]
    {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[test]
fn a_cached_component_starts_no_child() {
    let bench = Bench::new();
    let file = bench.file("small.wasm", bombs::ordinary_functions(3));
    let cache = Cache::new(bench.folder.join("compiled"));
    let (keylane, missing) = (Compiler::new(KEYLANE), Compiler::new("/nowhere/keylane"));
    let load = |compiler| {
        Component::from_file(&bench.engine, &file, AllowedImports::default(), compiler, Some(&cache))
    };
    let error = load(&missing).unwrap_err();
    assert!(matches!(error, LoadError::CompilerProcess { .. }), "{error}");
    assert!(
        error.to_string().starts_with(&format!("`{}` could not be compiled: ", file.display())),
        "{error}"
    );
    assert!(!load(&keylane).unwrap().from_cache());
    assert!(load(&missing).unwrap().from_cache());
}

#[test]
fn the_child_inherits_no_environment() {
    let bench = Bench::new();
    let file = bench.file("small.wasm", bombs::ordinary_functions(3));
    let program = bench.folder.join("print-environment");
    fs::write(&program, "#!/bin/sh\ncat /proc/$$/environ >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let error =
        Component::from_file(&bench.engine, &file, AllowedImports::default(), &Compiler::new(&program), None)
            .unwrap_err();
    let LoadError::CompileRejected { reason, .. } = error else { panic!("{error}") };
    let names: Vec<&str> = reason.split('\0').filter_map(|variable| variable.split('=').next()).collect();
    assert_eq!(names, ["MIMALLOC_ARENA_RESERVE", "RAYON_NUM_THREADS", ""], "{reason:?}");
}

/// Runs `work`. Returns its result, its duration, and the peak growth of this process's memory in
/// KiB.
fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration, u64) {
    fs::write("/proc/self/clear_refs", "5").unwrap(); // resets the peak
    let before = memory("VmRSS:");
    let start = now();
    let result = work();
    (result, start.elapsed(), memory("VmHWM:").saturating_sub(before))
}

#[expect(clippy::disallowed_methods, reason = "for printed figures and a timeout")]
fn now() -> Instant {
    Instant::now()
}

/// A field of this process's status, in KiB.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
