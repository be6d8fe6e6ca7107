//! From a file to a component that may run here. Whatever can be known is known here, before any event is
//! read: form, exports, imports, code.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};

use super::cache::{self, Cache};
use super::compiler::{Compiler, Limit};
use super::engine::Engine;
use super::grants::Granted;
use super::inspect::{self, Excess, Inspection, Kind};

/// The largest guests that people write (Python with its standard library) have 18 MB.
const FILE_MAX: usize = 64 << 20;

/// What compiled code begins with.
const ELF: &[u8] = b"\x7fELF";

/// Why a file can't be a handler. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("can't read the component `{name}`: {source}; check `component` in the handler's section")]
    Unreadable {
        /// The file.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is larger than any handler.
    #[error("`{name}` has {size} bytes, a component may have {FILE_MAX}; strip debug information from it")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size.
        size: u64,
    },
    /// It is machine code.
    #[error(
        "`{name}` is compiled code (a .cwasm or another ELF file), which is never run; give the .wasm \
         component that it was made from"
    )]
    CompiledCode {
        /// The file.
        name: String,
    },
    /// It is something else.
    #[error("`{name}` is not a WebAssembly file; give a component (.wasm), not its source or text form")]
    NotWasm {
        /// The file.
        name: String,
    },
    /// A core module that does not say what its functions mean.
    #[error(
        "`{name}` is a core module without component metadata; build it with wit-bindgen, or add the \
         metadata: `wasm-tools component embed wit --world event-handler {name}`"
    )]
    NoMetadata {
        /// The file.
        name: String,
    },
    /// A core module that can't be made a component.
    #[error(
        "`{name}` is a core module and can't be made a component: {reason}; build it as a component \
         (Rust: `--target wasm32-wasip2`)"
    )]
    Encode {
        /// The file.
        name: String,
        /// What the encoder said.
        reason: String,
    },
    /// The bytes are no valid component.
    #[error("`{name}` is not a valid component: {reason}; build it again")]
    Invalid {
        /// The file.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// It needs what the engine does not have.
    #[error(
        "`{name}` needs a feature of WebAssembly that Keylane does not have: {reason}; {}",
        feature_remedy(.reason)
    )]
    Feature {
        /// The file.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// An instance of it would be larger than the engine has room for.
    #[error("`{name}` has {excess}; build it optimised (`-Os`), and leave out what is not used")]
    Sizes {
        /// The file.
        name: String,
        /// What there is too much of.
        excess: Excess,
    },
    /// It needs state.
    #[error(
        "`{name}` exports `keylane:handler/keyed-handler`, and handlers with state are not yet in this \
         version; export `handler` or `batch-handler`"
    )]
    Keyed {
        /// The file.
        name: String,
    },
    /// It exports nothing that we call.
    #[error(
        "`{name}` exports no handler; it exports {}; build it for the world `event-handler` or \
         `batch-event-handler` of `keylane:handler@0.1.0` (wit/handler.wit)",
        list(.exports)
    )]
    NoHandler {
        /// The file.
        name: String,
        /// What it does export.
        exports: Vec<String>,
    },
    /// It imports what it was not granted.
    #[error("`{name}` imports what it was not granted:{}", imports(.refused))]
    Imports {
        /// The file.
        name: String,
        /// All of them: the import and what to do about it.
        refused: Vec<(String, &'static str)>,
    },
    /// The engine does not compile it.
    #[error("`{name}` can't be compiled: {reason}; build it with a current toolchain")]
    Compile {
        /// The file.
        name: String,
        /// What the compiler said.
        reason: String,
    },
    /// A signal came first.
    #[error("stopped while `{name}` was compiled")]
    Stopped {
        /// The file.
        name: String,
    },
    /// Compiling it takes more than a component is given.
    #[error(
        "`{name}` needs more than {limit} to be compiled; what people write needs a small part of that: build it \
         optimised, leave out what is not used, and split its largest functions"
    )]
    CompileLimit {
        /// The file.
        name: String,
        /// The limit.
        limit: Limit,
    },
    /// The process that should compile it did not.
    #[error(
        "`{name}` could not be compiled: the child process for it {what}; see to it that there is memory for one \
         more process, and start again"
    )]
    Compiler {
        /// The file.
        name: String,
        /// What became of the process.
        what: String,
    },
    /// It does not fit what it is linked with.
    #[error(
        "`{name}` can't be linked: {reason}; build it with the wit/ of this version and a toolchain for \
         WASI 0.2"
    )]
    Link {
        /// The file.
        name: String,
        /// What the linker said.
        reason: String,
    },
    /// A first instance of it could not be made.
    #[error(
        "`{name}` does not start: {reason}; a component must initialise itself within its memory limit and \
         without its events"
    )]
    Start {
        /// The file.
        name: String,
        /// What happened.
        reason: String,
        /// It took too long, or the system had no room: another start may go well.
        was_slow: bool,
    },
    /// Its code needs more of the engine's pool than there is for one component.
    #[error(
        "`{name}` needs more room than a component has: {reason}; build it optimised (`-Os`), leave out what is not \
         used, or lower the sum of `max_concurrency` (up to 4,000, components may have four memories, beyond that two)"
    )]
    NoRoom {
        /// The file.
        name: String,
        /// What the engine said.
        reason: String,
    },
}

/// A component that may run here.
#[derive(Clone)]
pub struct Component {
    pub(super) compiled: wasmtime::component::Component,
    name: String,
    kind: Kind,
    inspection: Inspection,
    from_cache: bool,
}

impl Component {
    /// Reads and checks a file, and has it compiled if the cache has no code of it.
    pub fn from_file(
        engine: &Engine,
        path: &Path,
        granted: Granted,
        compiler: &Compiler,
        cache: Option<&Cache>,
    ) -> Result<Component, LoadError> {
        let name = path.display().to_string();
        let bytes = read(&name, path)?;
        Component::from_bytes(engine, &name, &bytes, granted, compiler, cache)
    }

    /// The same for bytes that are at hand; `name` is for messages.
    pub fn from_bytes(
        engine: &Engine,
        name: &str,
        bytes: &[u8],
        granted: Granted,
        compiler: &Compiler,
        cache: Option<&Cache>,
    ) -> Result<Component, LoadError> {
        let wasm = to_component(name, bytes)?;
        let inspection = inspect::examine(name, bytes, &wasm)?;
        let kind = allowed(name, &inspection, granted)?;
        let cached = cache.and_then(|cache| cache.get(engine.wasmtime(), &wasm));
        let from_cache = cached.is_some();
        let compiled = match cached {
            Some(compiled) => compiled,
            None => {
                let code = compiler.compile(name, &wasm)?;
                // What the bytes do not show (adapters of composed components, the size of tables of functions) and this
                // engine has no room for shows here.
                let compiled = cache::take_in(engine.wasmtime(), &code)
                    .map_err(|reason| LoadError::NoRoom { name: name.to_owned(), reason })?;
                if let Some(cache) = cache {
                    cache.put(engine.wasmtime(), &wasm, &code);
                }
                compiled
            }
        };
        Ok(Component { compiled, name: name.to_owned(), kind, inspection, from_cache })
    }

    /// As it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is called.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is made of.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Its code was compiled by an earlier run.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Everything that can be known of a file without compiling it. Fails for whatever [`Component::from_file`] refuses
/// for the same reason.
pub fn check(path: &Path, granted: Granted) -> Result<Inspection, LoadError> {
    let name = path.display().to_string();
    let inspection = inspect::inspect(&name, &read(&name, path)?)?;
    allowed(&name, &inspection, granted)?;
    Ok(inspection)
}

/// Reads a component file of a sane size.
pub fn read(name: &str, path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { name: name.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX as u64 {
        return Err(LoadError::TooLarge { name: name.to_owned(), size });
    }
    std::fs::read(path).map_err(unreadable)
}

/// A component stays as it is; a core module that carries its interface becomes one.
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
    // Without it the encoder gives a component that exports nothing.
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

fn allowed(name: &str, inspection: &Inspection, granted: Granted) -> Result<Kind, LoadError> {
    let name = || name.to_owned();
    let Some(kind) = inspection.kind else {
        return Err(match inspection.keyed {
            true => LoadError::Keyed { name: name() },
            false => LoadError::NoHandler { name: name(), exports: inspection.exports.clone() },
        });
    };
    let refused = inspection.refused(granted).map(|(import, remedy)| (import.to_owned(), remedy));
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { Ok(kind) } else { Err(LoadError::Imports { name: name(), refused }) }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn imports(refused: &[(String, &'static str)]) -> String {
    refused.iter().fold(String::new(), |mut text, (import, remedy)| {
        write!(text, "\n  - `{import}`: {remedy}").expect("writing to a string can't fail");
        text
    })
}

fn feature_remedy(reason: &str) -> &'static str {
    if reason.contains("async") {
        "build it synchronous (componentize-qjs: `--sync`)"
    } else if reason.contains("exception") {
        "build it without exceptions (C++: `-fno-exceptions`)"
    } else if reason.contains("thread") || reason.contains("shared") {
        "build it for one thread"
    } else if reason.contains("64-bit") || reason.contains("memory64") {
        "build it for 32 bits (`wasm32`)"
    } else {
        "build it without that, as toolchains for WASI 0.2 do by default"
    }
}

/// Bytes as people write digests.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string can't fail");
        text
    })
}

#[cfg(test)]
pub(super) mod tests;
