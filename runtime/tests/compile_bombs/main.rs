//! Promise: no component makes the process that loads it large or dead. It is compiled in a child process, and the
//! verdict is the compiler's or one of the child's limits, with the file, the limit and the remedy.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, with figures for people who ask for them"
)]

mod bombs;
mod bytes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keylane::guest::compiler::{Limit, Limits};
use keylane::guest::{Cache, Compiler, Component, Engine, EngineOptions, Granted, LoadError};

use bytes::Bytes;

const KEYLANE: &str = env!("CARGO_BIN_EXE_keylane");

/// What loading may add to this process at its highest, in KiB.
const GROWTH_MAX: u64 = 64 << 10;

/// How long a child may take to appear before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Smaller than what people get, so that the verdicts come sooner.
const SMALL: Limits = Limits { address_space: 512 << 20, cpu_seconds: 3, wall: Duration::from_secs(30) };

/// What may become of a bomb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is loaded.
    Fine,
    /// The compiler does not take it.
    Refused,
    /// It hits a limit: memory or time, whichever this machine comes to first.
    Limit,
}

/// One test at a time: they measure their process. And an empty directory that goes with the test.
struct Alone {
    folder: PathBuf,
    engine: Arc<Engine>,
    _turn: MutexGuard<'static, ()>,
}

impl Alone {
    fn new() -> Alone {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = std::env::temp_dir().join(format!("keylane-bombs-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Alone { folder, engine: Engine::new(EngineOptions { max_instances: 4 }).unwrap(), _turn: turn }
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
            Granted::default(),
            &Compiler::with_limits(KEYLANE, limits),
            None,
        )
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

#[test]
fn the_parent_stays_small_and_gets_its_verdict() {
    use Verdict::{Fine, Limit, Refused};
    let alone = Alone::new();
    let cases: [(&str, Bytes, Limits, &[Verdict]); 7] = [
        ("nested-loops", bombs::nested_loops(8_000, 1_000), SMALL, &[Limit]),
        ("ifs", bombs::ifs(60_000, 2_000), SMALL, &[Limit]),
        ("one-function", bombs::additions(1_500_000), SMALL, &[Limit]),
        ("empty-functions", bombs::empty_functions(1_000_000), SMALL, &[Limit]),
        // Minutes with the compiler's assertions, seconds without.
        ("nested-blocks", bombs::nested_blocks(500_000), SMALL, &[Limit, Fine]),
        ("ordinary", bombs::ordinary_functions(5_000), Limits::default(), &[Fine]),
        ("jump-tables", bombs::jump_tables(6, 1_000_000), SMALL, &[Refused]),
    ];
    for (name, bomb, limits, allowed) in cases {
        let file = alone.file(&format!("{name}.wasm"), bomb);
        let (loaded, took, growth) = measured(|| alone.load(&file, limits));
        let said = loaded.as_ref().map_or_else(ToString::to_string, |_| "fine".to_owned());
        println!("{name}: {took:.1?}, the parent grew by {growth} KiB: {said}");
        let verdict = match loaded {
            Ok(_) => Fine,
            Err(LoadError::Compile { .. }) => Refused,
            Err(LoadError::CompileLimit { .. }) => Limit,
            Err(_) => panic!("{name}: {said}"),
        };
        assert!(allowed.contains(&verdict), "{name}: {said}");
        assert!(growth <= GROWTH_MAX, "{name} made the parent grow by {growth} KiB");
    }
}

/// A stop does not wait for a compiler, and leaves none behind.
#[test]
fn a_stop_ends_the_compiling() {
    let alone = Alone::new();
    let file = alone.file("loops.wasm", bombs::nested_loops(8_000, 1_000));
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
                assert!(begun.elapsed() < PATIENCE, "no compiler was started");
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Release);
        });
        let loaded = Component::from_file(&alone.engine, &file, Granted::default(), &compiler, None);
        stopping.join().unwrap();
        loaded.unwrap_err()
    });
    assert!(matches!(&error, LoadError::Stopped { name } if name.ends_with("loops.wasm")), "{error}");
    assert_eq!(children(), "", "the compiler is still there");
}

#[test]
fn an_error_names_the_file_the_limit_and_the_remedy() {
    let alone = Alone::new();
    let file = alone.file("loops.wasm", bombs::nested_loops(8_000, 1_000));
    let cases = [
        (
            Limits { address_space: 128 << 20, ..Limits::default() },
            Limit::Memory(128 << 20),
            "128 MiB of memory",
        ),
        (Limits { cpu_seconds: 1, ..Limits::default() }, Limit::Cpu(1), "1 s of processor time"),
        (
            Limits { wall: Duration::from_secs(1), ..Limits::default() },
            Limit::Wall(Duration::from_secs(1)),
            "1 s",
        ),
    ];
    for (limits, limit, named) in cases {
        let error = alone.load(&file, limits).unwrap_err();
        assert!(
            matches!(&error, LoadError::CompileLimit { limit: hit, .. } if *hit == limit),
            "{limit:?}: {error}"
        );
        assert_eq!(
            error.to_string(),
            format!(
                "`{}` needs more than {named} to be compiled; what people write needs a small part of that: build \
                 it optimised, leave out what is not used, and split its largest functions",
                file.display()
            )
        );
    }
}

/// With the limits that people get.
#[test]
fn a_run_with_a_bomb_ends_with_an_error_and_not_with_a_signal() {
    let alone = Alone::new();
    let bomb = alone.file("ifs.wasm", bombs::ifs(60_000, 2_000));
    let config = alone.folder.join("keylane.toml");
    let text = "runtime.cache_dir = \"compiled\"\nkafka.bootstrap_servers = \"embedded\"\n\
        [[embedded.feed]]\ntopic = \"in\"\nfile = \"-\"\n\
        [handlers.t]\ncomponent = \"ifs.wasm\"\ntopics = [\"in\"]\ngroup_id = \"group\"\n";
    fs::write(&config, text).unwrap();
    let run = Command::new(KEYLANE).arg("run").arg("-c").arg(&config).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    // A slow machine may do with the next start; no machine has more memory or processor time for it.
    let code = if said.contains("more than 120 s to be compiled") { 1 } else { 2 };
    assert_eq!(run.status.code(), Some(code), "{said}");
    for part in ["handler `t` can't be loaded", &bomb.display().to_string(), "needs more than ", "split its"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn what_the_cache_holds_starts_no_child() {
    let alone = Alone::new();
    let file = alone.file("small.wasm", bombs::ordinary_functions(3));
    let cache = Cache::new(alone.folder.join("compiled"));
    let (keylane, nobody) = (Compiler::new(KEYLANE), Compiler::new("/nowhere/keylane"));
    let load =
        |compiler| Component::from_file(&alone.engine, &file, Granted::default(), compiler, Some(&cache));
    let error = load(&nobody).unwrap_err();
    assert!(matches!(error, LoadError::Compiler { .. }), "{error}");
    assert!(
        error.to_string().starts_with(&format!("`{}` could not be compiled: ", file.display())),
        "{error}"
    );
    assert!(!load(&keylane).unwrap().from_cache());
    assert!(load(&nobody).unwrap().from_cache());
}

#[test]
fn the_child_gets_nothing_of_the_environment() {
    let alone = Alone::new();
    let file = alone.file("small.wasm", bombs::ordinary_functions(3));
    let program = alone.folder.join("notify");
    fs::write(&program, "#!/bin/sh\ncat /proc/$$/environ >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let told = Component::from_file(&alone.engine, &file, Granted::default(), &Compiler::new(&program), None)
        .unwrap_err();
    let LoadError::Compile { reason, .. } = told else { panic!("{told}") };
    let names: Vec<&str> = reason.split('\0').filter_map(|variable| variable.split('=').next()).collect();
    assert_eq!(names, ["MIMALLOC_ARENA_RESERVE", "RAYON_NUM_THREADS", ""], "{reason:?}");
}

/// What it gives, how long it takes, and how much larger this process was meanwhile than before, in KiB.
fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration, u64) {
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the highest is counted from here on
    let before = memory("VmRSS:");
    let start = now();
    let done = work();
    (done, start.elapsed(), memory("VmHWM:").saturating_sub(before))
}

#[expect(clippy::disallowed_methods, reason = "for figures that are printed, and to give up")]
fn now() -> Instant {
    Instant::now()
}

/// A line of this process's status, in KiB.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
