//! Repository rules that no linter checks: module layers, file length, and forbidden words.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keylane_tests::keylane::workspace;

/// The modules of the runtime, lowest layer first. A module uses only modules of lower layers.
const LAYERS: [&[&str]; 5] = [
    &["logging", "status"],
    &["config", "librdkafka"],
    &["source", "admit", "changelog", "guest", "sink"],
    &["app"],
    &["cli"],
];

/// The maximum number of lines of a file.
const LINES_MAX: usize = 500;

/// The core has no clock, no I/O and no threads: these names must not occur in it.
const NOT_IN_THE_CORE: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
    "rdkafka",
    "tokio",
    "wasmtime",
];

#[test]
fn layers_use_only_what_is_below_them() {
    let root = workspace().join("runtime/src");
    let mut wrong = Vec::new();
    for file in rust_files("runtime/src") {
        let inside = file.strip_prefix(&root).expect("a file of the runtime");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let own = first.trim_end_matches(".rs");
        let text = fs::read_to_string(&file).expect("a readable file");
        let allowed = allowed(own);
        let used = used_modules(&text);
        wrong.extend(used.difference(&allowed).map(|other| format!("{} uses {other}", inside.display())));
    }
    assert!(wrong.is_empty(), "uses of the same or a higher layer:\n{}", wrong.join("\n"));
}

/// A module and all modules of lower layers; `main` and `lib` may use all.
fn allowed(own: &str) -> BTreeSet<&'static str> {
    let layer = LAYERS.iter().position(|layer| layer.contains(&own));
    let below = LAYERS.iter().take(layer.unwrap_or(LAYERS.len())).copied().flatten().copied();
    let itself = LAYERS.iter().copied().flatten().copied().filter(|module| *module == own);
    below.chain(itself).collect()
}

/// The modules after `crate::` or `keylane::`, also in braces, outside of comments.
fn used_modules(text: &str) -> BTreeSet<&'static str> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut used = BTreeSet::new();
    for start in ["crate::", "keylane::"] {
        for (_, rest) in code.match_indices(start).map(|(at, _)| code.split_at(at + start.len())) {
            let names = if let Some(list) = rest.strip_prefix('{') { top_level(list) } else { vec![rest] };
            let modules = LAYERS.iter().copied().flatten().copied();
            used.extend(modules.filter(|module| names.iter().any(|name| first_word(name) == *module)));
        }
    }
    used
}

/// The parts of `a, b::{c, d}, e} …` that are not inside inner braces.
fn top_level(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

fn first_word(text: &str) -> &str {
    text.trim_start().split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or("")
}

#[test]
fn uses_are_found() {
    let text = "use crate::{\n  app::X, config::{self, guest}, };\n// crate::cli\ncrate::sink::go(); keylane_core::source";
    assert_eq!(used_modules(text), ["app", "config", "sink"].into());
    assert_eq!(allowed("guest"), ["config", "logging", "status", "librdkafka", "guest"].into());
    assert_eq!(allowed("main").len(), 11);
}

#[test]
fn the_core_has_no_io() {
    let mut wrong = Vec::new();
    for file in rust_files("runtime/core/src") {
        let text = fs::read_to_string(&file).expect("a readable file");
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && NOT_IN_THE_CORE.iter().any(|name| line.contains(name))
            {
                wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "the core uses I/O, time or threads:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_not_too_long() {
    let lines = |file: &Path| fs::read_to_string(file).expect("a readable file").lines().count();
    let long: Vec<String> = rust_files("")
        .iter()
        .map(|file| (lines(file), file))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, file)| format!("{lines} {}", file.display()))
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines, split by subject:\n{}", long.join("\n"));
}

#[test]
fn no_forbidden_words_remain() {
    // The parts are concatenated, so that this file does not match.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["#[ig", "nore"].concat(),
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    let mut found = Vec::new();
    for file in tracked_files("") {
        // Only text files, and no generated files.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if file.extension().is_some_and(|extension| extension == "lock" || extension == "jsonl") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "forbidden words:\n{}", found.join("\n"));
}

/// Tests wait for states (`keylane_tests::wait`) instead of sleeping. Guests may sleep because slow
/// calls are their purpose. Measurements may sleep because a measurement of a minute takes a
/// minute.
#[test]
fn tests_do_not_sleep() {
    let mut found = rust_files("tests");
    for subject in ["tests/guests", "tests/figures"] {
        found.retain(|file| !file.starts_with(workspace().join(subject)));
    }
    let sleep = ["thread::", "sleep("].concat();
    found.retain(|file| fs::read_to_string(file).expect("a readable file").contains(&sleep));
    assert!(found.is_empty(), "files with sleeps: {found:?}");
}

fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut files = tracked_files(under);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty(), "no files under {under}");
    files
}

/// The tracked files that exist.
fn tracked_files(under: &str) -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.current_dir(workspace()).args([
        "ls-files",
        "-z",
        "--",
        if under.is_empty() { "." } else { under },
    ]);
    let output = command.output().expect("git is installed");
    assert!(output.status.success(), "not a git repository: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let paths = names.split_terminator('\0').map(|name| workspace().join(name));
    paths.filter(|path| path.is_file()).collect()
}
