use std::path::PathBuf;

use super::*;
use crate::handler::{Handler, HandlerOptions};
use crate::inspect::{ImportKind, inspect};
use crate::testing;

/// A temporary directory that is removed after the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("keylane-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn refused(bytes: &[u8]) -> String {
    Component::from_bytes(
        &testing::engine(),
        "orders.wasm",
        bytes,
        AllowedImports::default(),
        &Compiler::here(),
        None,
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn a_file_that_is_not_a_handler_is_refused_with_a_remedy() {
    let no_exports = wat::parse_str("(component)").unwrap();
    let old = wat::parse_str(r#"(component (component $c) (instance $i (instantiate $c)) (export "keylane:handler/handler@0.2.0" (instance $i)))"#).unwrap();
    let bare = wat::parse_str("(module)").unwrap();
    let mut broken = no_exports.clone();
    broken.extend_from_slice(&[0x7f, 0x01, 0x00]);
    let cases: [(&[u8], &str); 7] = [
        (
            b"(component)",
            "`orders.wasm` is not a WebAssembly file; provide a component (.wasm), not its source or text form",
        ),
        (
            b"",
            "`orders.wasm` is not a WebAssembly file; provide a component (.wasm), not its source or text form",
        ),
        (
            b"\x7fELF\x02\x01\x01",
            "`orders.wasm` is compiled code (a .cwasm or another ELF file), which Keylane never runs; provide the \
             .wasm component that it was compiled from",
        ),
        (
            &bare,
            "`orders.wasm` is a core module without component metadata; build it with wit-bindgen, or add \
             the metadata: `wasm-tools component embed wit --world event-handler orders.wasm`",
        ),
        (
            &no_exports,
            "`orders.wasm` exports no handler; it exports nothing; build it for the world `event-handler`, \
             `keyed-event-handler` or `batch-event-handler` of `keylane:handler@0.1.0` (wit/handler.wit)",
        ),
        (
            &old,
            "`orders.wasm` exports no handler; it exports `keylane:handler/handler@0.2.0`; build it for the \
             world `event-handler`, `keyed-event-handler` or `batch-event-handler` of `keylane:handler@0.1.0` (wit/handler.wit)",
        ),
        (
            &testing::greedy(),
            "`orders.wasm` has imports that are not granted:\n  \
             - `test:guests/database`: Keylane does not provide it; build the component without it, or link an \
             implementation into the component (`wac plug`)\n  \
             - `http`: Keylane does not provide it; build the component without it, or link an implementation \
             into the component (`wac plug`)\n  \
             - `wasi:http/outgoing-handler@0.2.6`: grant it in the handler's section: \
             `grants.http = [\"HOST\"]`; or build the component without it (jco componentize: \
             `--disable http fetch-event`)",
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(refused(bytes), message);
    }
    assert!(refused(&broken).starts_with("`orders.wasm` is not a valid component: "), "{}", refused(&broken));
}

#[test]
fn compiled_code_of_keylane_is_refused_too() {
    let engine = testing::engine();
    let component = Component::from_bytes(
        &engine,
        "orders.wasm",
        &testing::obedient(),
        AllowedImports::default(),
        &Compiler::here(),
        None,
    )
    .unwrap();
    let code = component.compiled.serialize().unwrap();
    assert!(matches!(
        Component::from_bytes(&engine, "orders.cwasm", &code, AllowedImports::default(), &Compiler::here(), None),
        Err(LoadError::CompiledCode { name }) if name == "orders.cwasm"
    ));
}

#[test]
fn both_kinds_load_and_are_recognized() {
    let engine = testing::engine();
    let cases = [
        (testing::obedient(), HandlerInterface::Handler, "keylane:handler/handler@0.1.0"),
        (
            testing::batch_handler(testing::ALL_DONE),
            HandlerInterface::BatchHandler,
            "keylane:handler/batch-handler@0.1.0",
        ),
    ];
    for (wasm, interface, export) in cases {
        let component = Component::from_bytes(
            &engine,
            "orders.wasm",
            &wasm,
            AllowedImports::default(),
            &Compiler::here(),
            None,
        )
        .unwrap();
        assert_eq!(component.interface("orders", false).unwrap(), interface);
        let inspection = component.inspection();
        assert_eq!(inspection.exports, [export]);
        assert!(inspection.was_core_module);
        assert_eq!(inspection.size, wasm.len());
        // The same component, converted beforehand.
        let converted = to_component("orders.wasm", &wasm).unwrap();
        assert!(!inspect("orders.wasm", &converted).unwrap().was_core_module);
        assert_eq!(
            Component::from_bytes(
                &engine,
                "orders.wasm",
                &converted,
                AllowedImports::default(),
                &Compiler::here(),
                None
            )
            .unwrap()
            .interface("orders", false)
            .unwrap(),
            interface
        );
    }
}

#[test]
fn the_interface_fits_the_configured_state_or_the_component_is_refused() {
    let engine = testing::engine();
    let linked = |wasm: &[u8], state: bool| {
        let imports = AllowedImports::default();
        let component =
            Component::from_bytes(&engine, "orders.wasm", wasm, imports, &Compiler::here(), None).unwrap();
        let options = if state { testing::with_state(100) } else { testing::options(5_000) };
        let options = HandlerOptions { name: "totals".to_owned(), ..options };
        let handler = Handler::new(&engine, &component, options);
        handler.map(|handler| handler.interface()).map_err(|error| error.to_string())
    };
    let batch = testing::batch_handler(testing::ALL_DONE);
    for state in [false, true] {
        assert_eq!(linked(&batch, state), Ok(HandlerInterface::BatchHandler));
    }
    assert_eq!(linked(&testing::keyed_and_single(), true), Ok(HandlerInterface::KeyedHandler));
    assert_eq!(linked(&testing::keyed_and_single(), false), Ok(HandlerInterface::Handler));
    assert_eq!(linked(&testing::keyed(), true), Ok(HandlerInterface::KeyedHandler));
    assert_eq!(
        linked(&testing::keyed(), false).unwrap_err(),
        "`orders.wasm` exports `keylane:handler/keyed-handler`, which needs a state; add `delivery = \"transactional\"` \
         to `[handlers.totals]`, and a section `[handlers.totals.state]`; or export `handler` or `batch-handler`"
    );
    assert_eq!(linked(&testing::obedient(), false), Ok(HandlerInterface::Handler));
    assert_eq!(
        linked(&testing::obedient(), true).unwrap_err(),
        "`orders.wasm` exports `keylane:handler/handler`, which takes no state; export `keyed-handler` or \
         `batch-handler`, or remove the section `[handlers.totals.state]`"
    );
}

/// `check` refuses what `run` refuses.
#[test]
fn a_state_that_does_not_fit_is_found_without_compiling() {
    let scratch = Scratch::new("state");
    let file = scratch.path().join("orders.wasm");
    for (wasm, fits_without, fits_with) in [
        (testing::keyed(), false, true),
        (testing::obedient(), true, false),
        (testing::keyed_and_single(), true, true),
    ] {
        std::fs::write(&file, wasm).unwrap();
        let fits = |state| check(&file, AllowedImports::default(), "totals", state).is_ok();
        assert_eq!((fits(false), fits(true)), (fits_without, fits_with));
    }
}

#[test]
fn an_inspection_reports_the_kind_of_every_import() {
    let kinds = |wasm: &[u8]| {
        let inspection = inspect("orders.wasm", wasm).unwrap();
        inspection.imports.into_iter().map(|import| (import.name, import.kind)).collect::<Vec<_>>()
    };
    // The encoder raises the versions of WASI to those of its adapter, so the versions are not compared.
    let waiting: Vec<_> = kinds(&testing::waiting())
        .into_iter()
        .map(|(name, kind)| (name.split('@').next().unwrap().to_owned(), kind))
        .collect();
    assert_eq!(
        waiting,
        [
            ("keylane:handler/types".to_owned(), ImportKind::TypesOnly),
            ("wasi:io/poll".to_owned(), ImportKind::Wasi),
            ("wasi:clocks/monotonic-clock".to_owned(), ImportKind::Wasi),
        ]
    );
    let greedy = kinds(&testing::greedy());
    assert!(
        greedy.contains(&("wasi:http/outgoing-handler@0.2.6".to_owned(), ImportKind::Http)),
        "{greedy:?}"
    );
    let unsupported =
        greedy.iter().filter(|(_, kind)| matches!(kind, ImportKind::Unsupported { .. })).count();
    assert_eq!(unsupported, 2);
}

#[test]
fn a_grant_of_http_grants_nothing_else() {
    let inspection = inspect("orders.wasm", &testing::greedy()).unwrap();
    let refused = |allowed| inspection.refused(allowed).map(|(import, _)| import).collect::<Vec<_>>();
    let http = "wasi:http/outgoing-handler@0.2.6";
    assert_eq!(refused(AllowedImports::default()), ["test:guests/database", "http", http]);
    assert_eq!(refused(AllowedImports { http: true }), ["test:guests/database", "http"]);
}

#[test]
fn a_component_that_cannot_start_is_refused_before_any_event() {
    let engine = testing::engine();
    let cases = [
        (
            "(memory (export \"memory\") 2000) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)",
            "`orders.wasm` fails to start: memory limit exceeded: the guest requested 131072000 bytes in \
             total, the limit is 67108864; a component must initialize itself within its memory limit and \
             before it receives events",
        ),
        (
            "(memory (export \"memory\") 1) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
             (func $init unreachable) (start $init)",
            "`orders.wasm` fails to start: wasm trap: wasm `unreachable` instruction executed \
             in `init`; a component must initialize itself within its memory limit and before it receives events",
        ),
    ];
    for (fields, message) in cases {
        let wasm = testing::module(
            "keylane:handler/batch-event-handler@0.1.0",
            &format!(
                r#"(module {fields}
                    (func (export "keylane:handler/batch-handler@0.1.0#handle") (param i32) (result i32)
                        unreachable))"#
            ),
        );
        let component = Component::from_bytes(
            &engine,
            "orders.wasm",
            &wasm,
            AllowedImports::default(),
            &Compiler::here(),
            None,
        )
        .unwrap();
        let error = Handler::new(&engine, &component, HandlerOptions::new("orders")).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn an_export_of_another_type_is_refused_before_any_event() {
    let engine = testing::engine();
    let wasm = wat::parse_str(
        r#"(component
            (core module $code (func (export "handle")))
            (core instance $core (instantiate $code))
            (func $handle (canon lift (core func $core "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "keylane:handler/handler@0.1.0" (instance $handler)))"#,
    )
    .unwrap();
    let component = Component::from_bytes(
        &engine,
        "orders.wasm",
        &wasm,
        AllowedImports::default(),
        &Compiler::here(),
        None,
    )
    .unwrap();
    let error = Handler::new(&engine, &component, HandlerOptions::new("orders")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`orders.wasm` can't be linked: failed to convert function to given type: type mismatch with \
         parameters: expected 1-tuple, found 0-tuple; \
         build it with the wit/ of this version and a toolchain for WASI 0.2"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Component::from_file(
        &testing::engine(),
        Path::new("/nowhere/orders.wasm"),
        AllowedImports::default(),
        &Compiler::here(),
        None,
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("can't read the component `/nowhere/orders.wasm`: "), "{error}");
    assert!(error.to_string().ends_with("; name a component file that this user can read"), "{error}");
}

/// Another start may succeed after an error of the system, but not after one of the component.
#[test]
fn an_error_of_the_system_while_code_is_mapped_is_distinguished() {
    let context = |error: wasmtime::Error| map_error("orders.wasm", &error.context("failed to load code"));
    let not_found = std::io::Error::from(std::io::ErrorKind::NotFound);
    assert!(matches!(context(not_found.into()), LoadError::MapCode { .. }));
    assert!(matches!(context(rustix::io::Errno::NOMEM.into()), LoadError::MapCode { .. }));
    let tables = context(wasmtime::format_err!("too many tables"));
    assert!(matches!(&tables, LoadError::PoolCapacity { .. }), "{tables}");
}

/// The static check and the engine accept the same features: `check` refuses what `run` refuses.
#[test]
fn features_that_the_engine_lacks_are_detected_without_compiling() {
    let engine = crate::engine::for_compiling().unwrap();
    let cases = [
        ("(tag)", "build it without exceptions"),
        ("(func (try_table))", "build it without exceptions"),
        ("(memory i64 1)", "build it for 32 bits"),
        ("(memory 1 1 shared)", "build it single-threaded"),
        ("(type (struct))", "build it without this feature"),
        ("(func (param externref))", "build it without this feature"),
        ("(func (result v128) (v128.const i32x4 0 0 0 0))", ""),
        ("(func (param i32) (return_call 0 (local.get 0)))", ""),
        ("(memory 1) (memory 1)", ""),
        ("(table 3 funcref) (elem (i32.const 0) func)", ""),
    ];
    for (content, remedy) in cases {
        let component = wat::parse_str(format!("(component (core module {content}))")).unwrap();
        let compiled = wasmtime::component::Component::new(&engine, &component);
        assert_eq!(compiled.is_ok(), remedy.is_empty(), "{content}: {:?}", compiled.err());
        match inspect("orders.wasm", &component) {
            Ok(_) => assert!(remedy.is_empty(), "{content} is not detected"),
            Err(error) => {
                let text = error.to_string();
                assert!(!remedy.is_empty() && text.contains(remedy), "{content}: {text}");
            }
        }
    }
}
