//! Promise: the files under `deploy/` for systemd, containers and Kubernetes fit this version. The tools that read them
//! accept them, they grant no privileges, and a stop leaves enough time for a drain.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keylane_tests::guests::guest;
use keylane_tests::keylane::{binary, workspace};
use keylane_tests::{janitor, skip};

/// The shared libraries of the base image distroless/cc, by the start of their names: the C library, its loader, those
/// of the compiler, and OpenSSL.
const IMAGE_LIBRARIES: [&str; 9] = [
    "ld-linux",
    "libc.so.6",
    "libcrypto.so.3",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libssl.so.3",
    "libstdc++.so.6",
];

/// Joining and leaving a group may take 5 s each, after a drain.
const JOIN_AND_LEAVE_SECONDS: u64 = 10;

#[test]
fn systemd_accepts_the_unit() {
    let unit = deploy("systemd/keylane.service");
    let installed = "/usr/local/bin/keylane";
    assert!(unit.contains(&format!("\nExecStart={installed} run\n")), "another command");
    let file = janitor::folder("systemd").join("keylane.service");
    fs::write(&file, unit.replace(installed, &binary().display().to_string())).expect("a temporary file");
    let Some(result) = run(Command::new("systemd-analyze").arg("verify").arg(&file)) else {
        return skip::print_line("systemd-analyze is not installed: the unit is not verified");
    };
    let reported = printed(&result);
    assert!(result.status.success() && !reported.contains("keylane.service"), "{reported}");
}

#[test]
fn the_unit_is_confined_and_leaves_time_for_a_drain() {
    let unit = deploy("systemd/keylane.service");
    let settings: BTreeMap<&str, &str> =
        unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("DynamicUser", "yes"),
        ("CacheDirectory", "keylane"),
        ("StateDirectory", "keylane"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("RestartPreventExitStatus", "2"),
        ("Restart", "on-failure"),
    ] {
        assert_eq!(settings.get(name), Some(&value), "{name}");
    }
    assert!(
        unit.contains("\nEnvironment=XDG_CACHE_HOME=%C\n"),
        "compiled components are not in CacheDirectory"
    );
    // The engine makes compiled code executable.
    assert!(!settings.contains_key("MemoryDenyWriteExecute"), "compiled code can't run");
    let timeout: u64 = settings.get("TimeoutStopSec").and_then(|time| time.parse().ok()).expect("seconds");
    assert!(timeout > default_drain_seconds() + JOIN_AND_LEAVE_SECONDS, "{timeout} s are too short");
}

fn default_drain_seconds() -> u64 {
    let page = read(&workspace().join("docs/configuration.md"));
    let row = page.lines().find(|line| line.starts_with("| `drain_timeout` |")).expect("a row");
    number_between(row, "`\"", "s\"`")
}

/// What helm renders. It may not be installed, so the other tests of the chart read this file.
const GOLDEN: &str = "helm/golden.yaml";

/// To write the file anew, set `KEYLANE_TESTS_BLESS`.
#[test]
fn the_golden_rendering_is_that_of_the_chart() {
    let header = format!(
        "# The chart, rendered with its own values, then with golden-values.yaml. Digest: {:016x}\n",
        chart_digest()
    );
    let values = deploy_file("helm/golden-values.yaml");
    let rendered = (render(&[]), render(&["--values".as_ref(), values.as_os_str()]));
    let (Some(own), Some(all)) = rendered else {
        skip::print_line("helm is not installed: only the digest of the chart is compared");
        assert!(
            deploy(GOLDEN).starts_with(&header),
            "the chart has changed: install helm, then run this test with KEYLANE_TESTS_BLESS set"
        );
        return;
    };
    let expected = header + &own + &all;
    if std::env::var_os("KEYLANE_TESTS_BLESS").is_some() {
        fs::write(deploy_file(GOLDEN), &expected).expect("the file can be written");
    }
    assert_eq!(deploy(GOLDEN), expected, "set KEYLANE_TESTS_BLESS to write {GOLDEN} anew");
}

/// The output of `helm template`, without spaces at the end of lines.
fn render(arguments: &[&OsStr]) -> Option<String> {
    let mut helm = Command::new("helm");
    helm.args(["template", "keylane", "--namespace", "events", "--kube-version", "1.30.0"]);
    let result = run(helm.arg(deploy_file("helm/keylane")).args(arguments))?;
    assert!(result.status.success(), "{}", printed(&result));
    Some(
        String::from_utf8_lossy(&result.stdout)
            .lines()
            .fold(String::new(), |text, line| text + line.trim_end() + "\n"),
    )
}

/// A digest (FNV-1a) of the chart's files and of the values of the second rendering.
fn chart_digest() -> u64 {
    let mut files = vec![deploy_file("helm/golden-values.yaml")];
    for folder in ["helm/keylane", "helm/keylane/templates"] {
        let entries = fs::read_dir(deploy_file(folder)).expect("a folder");
        files.extend(entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()));
    }
    files.sort();
    let bytes = files.iter().flat_map(|file| fs::read(file).expect("a readable file"));
    bytes.fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn the_chart_is_confined_probed_and_leaves_time_for_a_drain() {
    let golden = deploy(GOLDEN);
    for (expected, times) in [
        ("kind: StatefulSet\nmetadata:", 2),
        ("\nkind: PodDisruptionBudget\n", 2),
        ("  clusterIP: None\n", 2),
        ("\nkind: ServiceMonitor\n", 1),
        ("\nkind: ScaledObject\n", 1),
        ("  replicas: 2\n", 1),
        ("runAsNonRoot: true\n", 2),
        ("readOnlyRootFilesystem: true\n", 2),
        ("allowPrivilegeEscalation: false\n", 2),
        ("drop:\n                - ALL\n", 2),
        ("- --admin-listen=0.0.0.0:9277\n", 2),
        ("containerPort: 9277\n", 2),
        (
            "livenessProbe:\n            httpGet:\n              path: /health/live\n              port: admin\n",
            2,
        ),
        (
            "readinessProbe:\n            httpGet:\n              path: /health/ready\n              port: admin\n",
            2,
        ),
        ("name: XDG_CACHE_HOME\n              value: /cache\n", 2),
        ("- name: cache\n              mountPath: /cache\n", 2),
        ("- name: cache\n          emptyDir:\n", 2),
        ("checksum/config: ", 2),
        ("group_instance_id = \"${POD_NAME}\"\n", 1),
    ] {
        assert_eq!(golden.matches(expected).count(), times, "{expected}");
    }
    let drain = number_between(&golden, "name: DRAIN_TIMEOUT\n              value: \"", "s\"");
    assert_eq!(drain, default_drain_seconds());
    let grace = number_between(&golden, "terminationGracePeriodSeconds: ", "\n");
    assert!(grace > drain + JOIN_AND_LEAVE_SECONDS, "{grace} s are too short");
}

/// Both configurations, with the secrets and the component at other paths.
#[test]
fn keylane_accepts_the_configurations_of_the_chart() {
    let folder = janitor::folder("chart");
    for secret in ["admin-token", "kafka-password"] {
        fs::write(folder.join(secret), "a secret of some length\n").expect("a temporary file can be written");
    }
    let golden = deploy(GOLDEN);
    let configurations: Vec<&str> = golden.split("\n  keylane.toml: |\n").skip(1).collect();
    assert_eq!(configurations.len(), 2);
    for configuration in configurations {
        let (indented, _) = configuration.split_once("\n---\n").expect("another resource follows");
        let toml = indented
            .replace("/handlers/hello.wasm", &guest("noop").display().to_string())
            .replace("/run/secrets/keylane", &folder.display().to_string());
        let file = folder.join("keylane.toml");
        fs::write(&file, toml).expect("a temporary file can be written");
        let mut check = Command::new(binary());
        check.env("POD_NAME", "keylane-0").env("DRAIN_TIMEOUT", "10s").args(["check", "-c"]).arg(&file);
        let result = run(&mut check).expect("the binary was built");
        assert!(result.status.success(), "{}", printed(&result));
    }
}

#[test]
fn the_image_has_one_file_and_no_privileges() {
    let dockerfile = deploy("container/Dockerfile");
    let (build, image) = dockerfile.split_once("\nFROM ${BASE_IMAGE}\n").expect("two stages");
    let toolchain = read(&workspace().join("rust-toolchain.toml"));
    let (_, rest) = toolchain.split_once("channel = \"").expect("a pinned toolchain");
    let version = rest.split('"').next().expect("a version");
    for expected in [
        format!("\nARG BUILD_IMAGE=rust:{version}-bookworm\n"),
        format!("\nARG RUST_VERSION={version}\n"),
        "\nARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot\n".to_owned(),
        "cargo build --locked --release --package keylane --bin keylane ".to_owned(),
        "install -D target/release/keylane /out/usr/local/bin/keylane\n".to_owned(),
    ] {
        assert!(build.contains(&expected), "{expected}");
    }
    let instructions =
        |name: &str| image.lines().filter(|line| line.split(' ').next() == Some(name)).collect::<Vec<_>>();
    assert_eq!(instructions("COPY"), ["COPY --from=build /out/ /"]);
    assert_eq!(instructions("USER"), ["USER 65532:65532"]);
    assert_eq!(instructions("ENTRYPOINT"), ["ENTRYPOINT [\"/usr/local/bin/keylane\"]"]);
    assert!(instructions("RUN").is_empty() && instructions("ADD").is_empty(), "the base image has no shell");
}

/// As root, the binary also runs with nothing but these libraries.
#[test]
fn the_base_image_has_the_libraries_of_the_binary() {
    let Some(linked) = run(Command::new("ldd").arg(binary())) else {
        return skip::skip("ldd is not installed");
    };
    assert!(linked.status.success(), "{}", printed(&linked));
    let text = String::from_utf8_lossy(&linked.stdout);
    let image = janitor::folder("image");
    for file in text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))) {
        let path = Path::new(file);
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(
            IMAGE_LIBRARIES.iter().any(|library| name.starts_with(library)),
            "not in the base image: {file}"
        );
        copy_into(&image, path, path);
    }
    copy_into(&image, binary(), Path::new("/usr/local/bin/keylane"));
    if rustix::process::getuid().is_root() {
        let mut chroot = Command::new("chroot");
        let result =
            run(chroot.arg(&image).args(["/usr/local/bin/keylane", "--version"])).expect("coreutils");
        assert!(result.status.success(), "{}", printed(&result));
    }
}

fn copy_into(image: &Path, file: &Path, to: &Path) {
    let to = image.join(to.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(to.parent().expect("a folder")).expect("a temporary folder can be created");
    fs::copy(file, to).expect("the file can be copied");
}

/// Runs a command. Returns `None` if the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        result => Some(result.expect("the program can be run")),
    }
}

fn printed(result: &Output) -> String {
    String::from_utf8_lossy(&[result.stdout.as_slice(), &result.stderr].concat()).into_owned()
}

/// The first number that stands between two texts.
fn number_between(text: &str, before: &str, after: &str) -> u64 {
    let number = text.split_once(before).and_then(|(_, rest)| rest.split_once(after)?.0.parse().ok());
    number.expect("the text has such a number")
}

fn deploy(file: &str) -> String {
    read(&deploy_file(file))
}

fn deploy_file(file: &str) -> PathBuf {
    workspace().join("deploy").join(file)
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("a readable file")
}
