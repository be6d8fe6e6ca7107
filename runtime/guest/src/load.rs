//! Loads a file as a component that can run here. Everything that can be checked is checked here, before any event is
//! read: format, exports, imports, code.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};

use super::cache::Cache;
use super::compiler::{Compiler, Limit};
use super::engine::Engine;
use super::grants::AllowedImports;
use super::inspect::{self, Excess, HandlerInterface, Inspection};

/// Maximum size of a file. The largest guests in use (Python with its standard library) take 18 MB.
const FILE_MAX: usize = 64 << 20;

/// The magic bytes of compiled code.
const ELF: &[u8] = b"\x7fELF";

/// Why a file can't be loaded as a handler. Each message includes a remedy, except that of a stop.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read the component `{name}`: {source}; name a component file that this user can read")]
    Unreadable {
        /// The file.
        name: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is larger than any handler.
    #[error("`{name}` has {size} bytes, the limit is {FILE_MAX}; strip debug information from it")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is machine code.
    #[error(
        "`{name}` is compiled code (a .cwasm or another ELF file), which Keylane never runs; provide the .wasm \
         component that it was compiled from"
    )]
    CompiledCode {
        /// The file.
        name: String,
    },
    /// The file is not WebAssembly.
    #[error("`{name}` is not a WebAssembly file; provide a component (.wasm), not its source or text form")]
    NotWasm {
        /// The file.
        name: String,
    },
    /// The file is a core module without metadata about its functions.
    #[error(
        "`{name}` is a core module without component metadata; build it with wit-bindgen, or add the \
         metadata: `wasm-tools component embed wit --world event-handler {name}`"
    )]
    NoMetadata {
        /// The file.
        name: String,
    },
    /// The file is a core module that can't be converted to a component.
    #[error(
        "`{name}` is a core module that can't be converted to a component: {reason}; build it as a component \
         (Rust: `--target wasm32-wasip2`)"
    )]
    Encode {
        /// The file.
        name: String,
        /// The error of the encoder.
        reason: String,
    },
    /// The bytes are not a valid component.
    #[error("`{name}` is not a valid component: {reason}; rebuild it")]
    Invalid {
        /// The file.
        name: String,
        /// The error of the parser.
        reason: String,
    },
    /// The component needs a feature that the engine does not support.
    #[error(
        "`{name}` needs a WebAssembly feature that Keylane does not support: {reason}; {}",
        feature_remedy(.reason)
    )]
    Feature {
        /// The file.
        name: String,
        /// The error of the parser.
        reason: String,
    },
    /// An instance would exceed a limit of the engine.
    #[error("`{name}` has {excess}; build it optimized (`-Os`) and without unused code")]
    Sizes {
        /// The file.
        name: String,
        /// The size that exceeds its limit.
        excess: Excess,
    },
    /// The component needs a state, and none is configured.
    #[error(
        "`{name}` exports `keylane:handler/keyed-handler`, which needs a state; add `delivery = \"transactional\"` to \
         `[handlers.{handler}]`, and a section `[handlers.{handler}.state]`; or export `handler` or `batch-handler`"
    )]
    NeedsState {
        /// The file.
        name: String,
        /// The handler's name in the configuration.
        handler: String,
    },
    /// A state is configured, and the component can't take it.
    #[error(
        "`{name}` exports `keylane:handler/handler`, which takes no state; export `keyed-handler` or `batch-handler`, or \
         remove the section `[handlers.{handler}.state]`"
    )]
    TakesNoState {
        /// The file.
        name: String,
        /// The handler's name in the configuration.
        handler: String,
    },
    /// The component exports no interface of ours.
    #[error(
        "`{name}` exports no handler; it exports {}; build it for the world `event-handler`, \
         `keyed-event-handler` or `batch-event-handler` of `keylane:handler@0.1.0` (wit/handler.wit)",
        list(.exports)
    )]
    NoHandler {
        /// The file.
        name: String,
        /// The names of its exports.
        exports: Vec<String>,
    },
    /// The component has imports that are not granted.
    #[error("`{name}` has imports that are not granted:{}", list_imports(.refused))]
    Imports {
        /// The file.
        name: String,
        /// Each refused import with its remedy.
        refused: Vec<(String, &'static str)>,
    },
    /// The compiler rejects the component.
    #[error("`{name}` can't be compiled: {reason}; build it with a current toolchain")]
    CompileRejected {
        /// The file.
        name: String,
        /// The error of the compiler.
        reason: String,
    },
    /// A signal stopped the process.
    #[error("stopped while compiling `{name}`")]
    Stopped {
        /// The file.
        name: String,
    },
    /// Compiling the component exceeds a limit.
    #[error(
        "`{name}` needs more than {limit} to be compiled; typical components need a fraction of that: build it \
         optimized, remove unused code, and split its largest functions"
    )]
    CompileLimit {
        /// The file.
        name: String,
        /// The limit.
        limit: Limit,
    },
    /// The compiler process failed.
    #[error(
        "`{name}` could not be compiled: its compiler process {what}; check that there is memory for one \
         more process, and restart"
    )]
    CompilerProcess {
        /// The file.
        name: String,
        /// How the process failed.
        what: String,
    },
    /// The component does not match the interfaces that it is linked with.
    #[error(
        "`{name}` can't be linked: {reason}; build it with the wit/ of this version and a toolchain for \
         WASI 0.2"
    )]
    Link {
        /// The file.
        name: String,
        /// The error of the linker.
        reason: String,
    },
    /// The thread that creates the first instance could not create its runtime.
    #[error(
        "`{name}` could not be started: can't create a runtime for its first instance: {source}; check the limit of \
         open files, and restart"
    )]
    NoRuntime {
        /// The file.
        name: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A first instance could not be created.
    #[error(
        "`{name}` fails to start: {reason}; a component must initialize itself within its memory limit and \
         before it receives events"
    )]
    Start {
        /// The file.
        name: String,
        /// The error.
        reason: String,
        /// Whether the start took too long or exceeded a limit of the host: another start may succeed.
        may_succeed_later: bool,
    },
    /// The system could not map the code into memory.
    #[error(
        "the code of `{name}` can't be mapped into memory: {reason}; check the limits of memory and open files, \
         and restart"
    )]
    MapCode {
        /// The file.
        name: String,
        /// The error of the engine.
        reason: String,
    },
    /// The component needs more of the engine's pool than one component may have.
    #[error(
        "`{name}` needs more capacity than one component may have: {reason}; build it optimized (`-Os`), remove unused \
         code, or lower the sum of `max_concurrency` (up to 4,000, components may have four memories, beyond that two)"
    )]
    PoolCapacity {
        /// The file.
        name: String,
        /// The error of the engine.
        reason: String,
    },
}

/// A component that can run here.
#[derive(Clone)]
pub struct Component {
    pub(super) compiled: wasmtime::component::Component,
    name: String,
    inspection: Inspection,
    from_cache: bool,
}

impl Component {
    /// Reads and checks a file, and compiles it if the cache does not contain its code.
    pub fn from_file(
        engine: &Engine,
        path: &Path,
        allowed: AllowedImports,
        compiler: &Compiler,
        cache: Option<&Cache>,
    ) -> Result<Component, LoadError> {
        let name = path.display().to_string();
        let bytes = read(&name, path)?;
        Component::from_bytes(engine, &name, &bytes, allowed, compiler, cache)
    }

    /// Does the same for bytes in memory; `name` is for messages.
    pub fn from_bytes(
        engine: &Engine,
        name: &str,
        bytes: &[u8],
        allowed: AllowedImports,
        compiler: &Compiler,
        cache: Option<&Cache>,
    ) -> Result<Component, LoadError> {
        let wasm = to_component(name, bytes)?;
        let inspection = inspect::examine(name, bytes, &wasm)?;
        check_exports_and_imports(name, &inspection, allowed)?;
        let cached = cache.and_then(|cache| cache.get(engine.wasmtime(), &wasm));
        let from_cache = cached.is_some();
        let compiled = match cached {
            Some(compiled) => compiled,
            None => {
                let code = compiler.compile(name, &wasm)?;
                let compiled = code.map(engine.wasmtime()).map_err(|error| map_error(name, &error))?;
                if let Some(cache) = cache {
                    cache.put(engine.wasmtime(), &wasm, &code);
                }
                compiled
            }
        };
        Ok(Component { compiled, name: name.to_owned(), inspection, from_cache })
    }

    /// Returns the name that the component was loaded with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the interface through which the component is called. `handler`: the handler's name, for messages.
    pub(super) fn interface(&self, handler: &str, has_state: bool) -> Result<HandlerInterface, LoadError> {
        select_interface(&self.name, &self.inspection, handler, has_state)
    }

    /// Returns the result of analysing the component's file.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Returns whether the component's code was compiled by an earlier run.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name)
            .field("interfaces", &self.inspection.interfaces)
            .finish_non_exhaustive()
    }
}

/// Checks everything about a file that can be checked without compiling it. Finds every error of
/// [`Component::from_file`] that precedes compiling, and a state that does not fit the component. `handler`: the
/// handler's name in the configuration; `has_state`: whether a state is configured for it.
pub fn check(
    path: &Path,
    allowed: AllowedImports,
    handler: &str,
    has_state: bool,
) -> Result<Inspection, LoadError> {
    let name = path.display().to_string();
    let inspection = inspect::inspect(&name, &read(&name, path)?)?;
    check_exports_and_imports(&name, &inspection, allowed)?;
    select_interface(&name, &inspection, handler, has_state)?;
    Ok(inspection)
}

/// Reads a component file, unless it is too large.
pub fn read(name: &str, path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { name: name.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX as u64 {
        return Err(LoadError::TooLarge { name: name.to_owned(), size });
    }
    std::fs::read(path).map_err(unreadable)
}

/// Returns a component as it is; converts a core module that contains metadata of its interface to a component.
pub(super) fn to_component<'a>(name: &str, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, LoadError> {
    let name = || name.to_owned();
    if bytes.starts_with(ELF) || wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::CompiledCode { name: name() });
    }
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(LoadError::NotWasm { name: name() });
    }
    // Without metadata the encoder returns a component that exports nothing.
    if !has_metadata(bytes) {
        return Err(LoadError::NoMetadata { name: name() });
    }
    let encode = |error: anyhow::Error| LoadError::Encode { name: name(), reason: format!("{error:#}") };
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .map_err(encode)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
        .map_err(encode)?
        .encode()
        .map(Cow::Owned)
        .map_err(encode)
}

fn has_metadata(module: &[u8]) -> bool {
    Parser::new(0).parse_all(module).any(|payload| {
        matches!(payload, Ok(Payload::CustomSection(section)) if section.name().starts_with("component-type"))
    })
}

fn check_exports_and_imports(
    name: &str,
    inspection: &Inspection,
    allowed: AllowedImports,
) -> Result<(), LoadError> {
    let name = || name.to_owned();
    if inspection.interfaces.is_empty() {
        return Err(LoadError::NoHandler { name: name(), exports: inspection.exports.clone() });
    }
    let refused = inspection.refused(allowed).map(|(import, remedy)| (import.to_owned(), remedy));
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(LoadError::Imports { name: name(), refused }) }
}

/// Selects the interface of a component that exports at least one.
fn select_interface(
    name: &str,
    inspection: &Inspection,
    handler: &str,
    has_state: bool,
) -> Result<HandlerInterface, LoadError> {
    inspection.interface(has_state).ok_or_else(|| {
        let (name, handler) = (name.to_owned(), handler.to_owned());
        if has_state {
            LoadError::TakesNoState { name, handler }
        } else {
            LoadError::NeedsState { name, handler }
        }
    })
}

/// Classifies the error of mapping compiled code. Sizes that the bytes of a component do not show (adapters of composed
/// components, tables of functions) and that exceed the engine's capacity are detected when its code is mapped.
fn map_error(name: &str, error: &wasmtime::Error) -> LoadError {
    let (name, reason) = (name.to_owned(), format!("{error:#}"));
    if error.is::<std::io::Error>() || error.is::<rustix::io::Errno>() {
        LoadError::MapCode { name, reason }
    } else {
        LoadError::PoolCapacity { name, reason }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn list_imports(refused: &[(String, &'static str)]) -> String {
    refused.iter().fold(String::new(), |mut text, (import, remedy)| {
        write!(text, "\n  - `{import}`: {remedy}").expect("writing to a string can't fail");
        text
    })
}

fn feature_remedy(reason: &str) -> &'static str {
    if reason.contains("async") {
        "build it synchronously (componentize-qjs: `--sync`)"
    } else if reason.contains("exception") {
        "build it without exceptions (C++: `-fno-exceptions`)"
    } else if reason.contains("thread") || reason.contains("shared") {
        "build it single-threaded"
    } else if reason.contains("64-bit") || reason.contains("memory64") {
        "build it for 32 bits (`wasm32`)"
    } else {
        "build it without this feature, as toolchains for WASI 0.2 do by default"
    }
}

/// Formats bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string can't fail");
        text
    })
}

#[cfg(test)]
pub(super) mod tests;
