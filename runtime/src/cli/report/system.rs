//! The machine, and the limits of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use procfs::Current as _;
use procfs::process::{LimitValue, Process};
use serde::Serialize;
use serde_json::{Value, json};

use super::or_error;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The limits and the use of a control group.
const CGROUP_FILES: [&str; 4] = ["memory.max", "memory.high", "memory.current", "cpu.max"];
/// The same in version 1, by controller.
const CGROUP_V1_FILES: [(&str, &[&str]); 2] = [
    ("memory", &["memory.limit_in_bytes", "memory.usage_in_bytes"]),
    ("cpu", &["cpu.cfs_quota_us", "cpu.cfs_period_us"]),
];

/// The machine, and the limits of this command.
#[derive(Serialize)]
pub(super) struct System {
    host: String,
    kernel: Value,
    architecture: &'static str,
    /// Cores that a process may use, with the limit of its control group.
    cores: Value,
    memory_bytes: Value,
    page_bytes: u64,
    /// `vm.max_map_count`.
    max_map_count: Value,
    limits: Value,
}

impl System {
    pub(super) fn read() -> System {
        let memory = procfs::Meminfo::current().map(|memory| memory.mem_total);
        System {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            kernel: or_error(read("/proc/sys/kernel/osrelease")),
            architecture: std::env::consts::ARCH,
            cores: or_error(std::thread::available_parallelism().map_err(anyhow::Error::new)),
            memory_bytes: or_error(memory.map_err(anyhow::Error::new)),
            page_bytes: procfs::page_size(),
            max_map_count: or_error(
                read("/proc/sys/vm/max_map_count").and_then(|text| Ok(text.parse::<u64>()?)),
            ),
            limits: or_error(Process::myself().map_err(anyhow::Error::new).and_then(|own| limits(&own))),
        }
    }
}

/// Returns the limits of the process with this status, if it runs on this machine.
pub(super) fn of_process(status: &Value) -> Value {
    let own_host = gethostname::gethostname();
    let found = (|| {
        let host = status.get("host").and_then(Value::as_str).context("the status has no host")?;
        anyhow::ensure!(own_host.to_string_lossy() == host, "the process runs on another machine");
        let id = status.get("pid").and_then(Value::as_i64).context("the status has no process id")?;
        let process = Process::new(i32::try_from(id)?)?;
        // In a container, the process id may be that of another process here.
        anyhow::ensure!(process.stat()?.comm == "keylane", "the process is not visible from here");
        limits(&process)
    })();
    or_error(found)
}

fn limits(process: &Process) -> anyhow::Result<Value> {
    let open_files = process.limits()?.max_open_files;
    let value = |limit: LimitValue| match limit {
        LimitValue::Unlimited => Value::from("unlimited"),
        LimitValue::Value(limit) => limit.into(),
    };
    let groups = read(format!("/proc/{}/cgroup", process.pid()))?;
    Ok(json!({
        "open_files": { "soft": value(open_files.soft_limit), "hard": value(open_files.hard_limit) },
        "cgroup": cgroup_files(&groups, Path::new(CGROUPS)),
    }))
}

/// Returns the content of the files with the limits of these control groups and of their ancestors. `groups`: the
/// content of `/proc/PID/cgroup`, with lines of number, controllers and path.
fn cgroup_files(groups: &str, root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            add_files(&mut found, root, path, &CGROUP_FILES);
            continue;
        }
        for (controller, files) in CGROUP_V1_FILES {
            if controllers.split(',').any(|name| name == controller) {
                add_files(&mut found, &root.join(controller), path, files);
            }
        }
    }
    found
}

/// Adds the files of a control group and of those around it. In a container, the path may be the host's; then only the
/// files at the root are found.
fn add_files(found: &mut BTreeMap<String, String>, root: &Path, path: &str, files: &[&str]) {
    for group in Path::new(path).ancestors() {
        for file in files {
            let file: PathBuf = root.join(group).join(file);
            if let Ok(content) = read(&file) {
                found.insert(file.display().to_string(), content);
            }
        }
    }
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_all_groups_around_a_process_are_found() {
        let root = std::env::temp_dir().join(format!("keylane-cgroup-{}", std::process::id()));
        for (file, content) in [
            ("system.slice/keylane.service/memory.max", "1000\n"),
            ("system.slice/keylane.service/cpu.max", "max 100000\n"),
            ("system.slice/memory.max", "max\n"),
            ("memory/memory.limit_in_bytes", "77\n"),
        ] {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder can be created");
            fs::write(file, content).expect("a file can be written");
        }
        let groups = "0::/system.slice/keylane.service\n4:memory,other:/docker/0123\nbroken\n";
        let found = cgroup_files(groups, &root);
        let prefix = format!("{}/", root.display());
        let found: Vec<_> = found
            .iter()
            .map(|(file, content)| (file.strip_prefix(&prefix).expect("it is there"), content.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("memory/memory.limit_in_bytes", "77"),
                ("system.slice/keylane.service/cpu.max", "max 100000"),
                ("system.slice/keylane.service/memory.max", "1000"),
                ("system.slice/memory.max", "max"),
            ]
        );
        fs::remove_dir_all(&root).expect("it exists");
    }

    #[test]
    fn the_limits_of_this_machine_are_found() {
        let system = serde_json::to_value(System::read()).expect("it is JSON");
        for pointer in ["/cores", "/memory_bytes", "/page_bytes", "/max_map_count", "/limits/open_files/soft"]
        {
            let value = system.pointer(pointer);
            assert!(
                value.is_some_and(|value| value.is_number() || value == "unlimited"),
                "{pointer}: {system:#}"
            );
        }
        assert!(system.pointer("/kernel").is_some_and(Value::is_string), "{system:#}");
    }

    #[test]
    fn a_process_elsewhere_has_no_limits_here() {
        let found = of_process(&json!({ "host": "another.example.com", "pid": 1 }));
        assert_eq!(found, json!({ "error": "the process runs on another machine" }));
    }
}
