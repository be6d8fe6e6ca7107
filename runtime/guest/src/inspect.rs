//! Analyses the bytes of a component before anything is compiled.

mod sizes;

use std::fmt;

use sha2::{Digest as _, Sha256};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::{Types, TypesRef};
use wasmparser::{
    BinaryReaderError, FuncValidatorAllocations, Parser, Payload, ValidPayload, Validator, WasmFeatures,
};

use super::grants::AllowedImports;
use super::load::{self, LoadError};
pub use sizes::Excess;

/// The package whose interfaces handlers export.
const PACKAGE: &str = "keylane:handler";

/// The versions that this Keylane supports: every 0.1.x is compatible with the one that it was built with.
const SUPPORTED: &str = "0.1.";

/// The packages of standard WASI 0.2. All of them are linked; [`ImportKind::Wasi`] describes their context.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// The interfaces of `wasi:http` for outgoing requests.
const HTTP: [&str; 2] = ["outgoing-handler", "types"];

/// The remedy for an import of `wasi:http` without the grant.
const GRANT_HTTP: &str = "grant it in the handler's section: `grants.http = [\"HOST\"]`; or build the component \
     without it (jco componentize: `--disable http fetch-event`)";

/// The features of the engine, which starts from the same set; `engine.rs` has the reasons. The engine has no garbage
/// collector, so types and exceptions that need one are not supported.
const FEATURES: WasmFeatures = WasmFeatures::WASM3
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES)
    .difference(WasmFeatures::EXCEPTIONS)
    .difference(WasmFeatures::THREADS)
    .difference(WasmFeatures::MEMORY64);

/// The interface through which a component is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerInterface {
    /// One event per invocation.
    Handler,
    /// One event per invocation, with the state of its lane.
    KeyedHandler,
    /// Many events per invocation, in columns.
    BatchHandler,
}

impl fmt::Display for HandlerInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandlerInterface::Handler => "handler",
            HandlerInterface::KeyedHandler => "keyed-handler",
            HandlerInterface::BatchHandler => "batch-handler",
        })
    }
}

/// What an import is, and thereby whether a handler may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// The import has only types: there is nothing to call.
    TypesOnly,
    /// Standard WASI. Its context has no files, no network, and only the granted variables; clocks and randomness are
    /// real, and output goes to the log.
    Wasi,
    /// Outgoing HTTP requests: only for handlers with `grants.http`.
    Http,
    /// Anything else: the component is refused because of this import.
    Unsupported {
        /// How to fix it.
        remedy: &'static str,
    },
}

/// One import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The name in the component.
    pub name: String,
    /// What the import is.
    pub kind: ImportKind,
}

/// The result of analysing a file.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The interfaces of ours that the component exports, in the order in which they are preferred.
    pub interfaces: Vec<HandlerInterface>,
    /// Names of the exports.
    pub exports: Vec<String>,
    /// The imports.
    pub imports: Vec<Import>,
    /// Size of the file in bytes.
    pub size: usize,
    /// SHA-256 of the file: the identity of the component in logs, in the status and in headers.
    pub sha256: [u8; 32],
    /// Whether the file is a core module that was converted to a component.
    pub was_core_module: bool,
}

impl Inspection {
    /// Returns the digest in hexadecimal.
    pub fn digest(&self) -> String {
        load::hex(&self.sha256)
    }

    /// Returns how the component is called by a handler with or without state; `None`: it can't be. A `batch-handler` takes
    /// both, a `keyed-handler` needs a state, and a `handler` can't have one.
    pub fn interface(&self, has_state: bool) -> Option<HandlerInterface> {
        self.interfaces.iter().copied().find(|interface| match interface {
            HandlerInterface::BatchHandler => true,
            HandlerInterface::KeyedHandler => has_state,
            HandlerInterface::Handler => !has_state,
        })
    }

    /// Returns the imports that a handler with these grants may not use, each with its remedy.
    pub fn refused(&self, allowed: AllowedImports) -> impl Iterator<Item = (&str, &'static str)> {
        self.imports.iter().filter_map(move |import| match import.kind {
            ImportKind::TypesOnly | ImportKind::Wasi => None,
            ImportKind::Http if allowed.http => None,
            ImportKind::Http => Some((import.name.as_str(), GRANT_HTTP)),
            ImportKind::Unsupported { remedy } => Some((import.name.as_str(), remedy)),
        })
    }
}

/// Analyses the bytes of a file. Fails if they are not a component, or a component that the engine can't run. Imports
/// are not checked here, but when the component is loaded.
pub fn inspect(name: &str, bytes: &[u8]) -> Result<Inspection, LoadError> {
    let component = load::to_component(name, bytes)?;
    examine(name, bytes, &component)
}

/// Analyses a component. `file`: the bytes as read; `component`: the same, converted to a component if the file is a
/// core module.
pub(super) fn examine(name: &str, file: &[u8], component: &[u8]) -> Result<Inspection, LoadError> {
    let invalid =
        |error: BinaryReaderError| LoadError::Invalid { name: name.to_owned(), reason: error.to_string() };
    let types = match validate(component, FEATURES) {
        Ok(types) => types,
        Err(error) => {
            validate(component, WasmFeatures::all()).map_err(invalid)?;
            return Err(LoadError::Feature { name: name.to_owned(), reason: error.message().to_owned() });
        }
    };
    if let Some(excess) = sizes::excess(component).map_err(invalid)? {
        return Err(LoadError::Sizes { name: name.to_owned(), excess });
    }
    let types = types.as_ref();
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(invalid)?;
        if matches!(payload, Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) {
            depth += 1;
        } else if matches!(payload, Payload::End(_)) {
            depth = depth.saturating_sub(1);
        } else if depth > 0 {
            // This is inside a nested module or component, which is not visible from outside.
        } else if let Payload::ComponentImportSection(section) = payload {
            for import in section {
                let import = import.map_err(invalid)?.name.name;
                imports.push(Import { name: import.to_owned(), kind: kind_of(types, import) });
            }
        } else if let Payload::ComponentExportSection(section) = payload {
            for export in section {
                exports.push(export.map_err(invalid)?.name.name.to_owned());
            }
        }
    }
    let exported = |interface: &str| exports.iter().any(|export| is_supported_export(export, interface));
    let preferred =
        [HandlerInterface::BatchHandler, HandlerInterface::KeyedHandler, HandlerInterface::Handler];
    Ok(Inspection {
        interfaces: preferred.into_iter().filter(|interface| exported(&interface.to_string())).collect(),
        exports,
        imports,
        size: file.len(),
        sha256: Sha256::digest(file).into(),
        was_core_module: file != component,
    })
}

/// Validates function by function: the validator's own `validate_all` keeps a list of all functions until the end,
/// which takes 74 MB for a million functions.
fn validate(component: &[u8], features: WasmFeatures) -> Result<Types, BinaryReaderError> {
    let mut validator = Validator::new_with_features(features);
    let mut allocations = FuncValidatorAllocations::default();
    let mut types = None;
    for payload in Parser::new(0).parse_all(component) {
        match validator.payload(&payload?)? {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                function.validate(&body)?;
                allocations = function.into_allocations();
            }
            // The last end is that of the component itself.
            ValidPayload::End(ended) => types = Some(ended),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    Ok(types.expect("a component that parses without an error has an end"))
}

/// Returns whether an export is this interface of ours in a supported version.
fn is_supported_export(export: &str, interface: &str) -> bool {
    let Some((path, version)) = export.split_once('@') else { return false };
    let prerelease = version.contains('-');
    path.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/')) == Some(interface)
        && version.starts_with(SUPPORTED)
        && !prerelease
}

fn kind_of(types: TypesRef<'_>, import: &str) -> ImportKind {
    if only_types(types, import) {
        return ImportKind::TypesOnly;
    }
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let (package, interface) = path.split_once('/').unwrap_or((path, ""));
    match package.split_once(':') {
        Some(("wasi", part)) if WASI.contains(&part) && version.starts_with("0.2.") => ImportKind::Wasi,
        Some(("wasi", "http")) if HTTP.contains(&interface) && version.starts_with("0.2.") => {
            ImportKind::Http
        }
        Some(("wasi", part)) if part == "http" || WASI.contains(&part) => ImportKind::Unsupported {
            remedy: "only WASI 0.2 is provided; build the component for wasm32-wasip2",
        },
        Some(("keylane", "handler")) => ImportKind::Unsupported {
            remedy: "this version provides no functions to handlers, only types; build the component with \
                     the `wit/` of this version",
        },
        _ => ImportKind::Unsupported {
            remedy: "Keylane does not provide it; build the component without it, or link an implementation \
                     into the component (`wac plug`)",
        },
    }
}

/// Returns whether an import has neither functions nor resources, so that it needs no grant.
fn only_types(types: TypesRef<'_>, import: &str) -> bool {
    let Some(item) = types.component_item_for_import(import) else { return false };
    let ComponentEntityType::Instance(instance) = item.ty else { return is_plain_type(item.ty) };
    let instance = types.get(instance);
    instance.is_some_and(|instance| instance.exports.values().all(|export| is_plain_type(export.ty)))
}

fn is_plain_type(ty: ComponentEntityType) -> bool {
    matches!(ty, ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(_), .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_0_1_version_of_our_interfaces_is_supported_and_no_other() {
        let cases = [
            ("keylane:handler/handler@0.1.0", true),
            ("keylane:handler/handler@0.1.17", true),
            ("keylane:handler/handler@0.2.0", false),
            ("keylane:handler/handler@0.1.1-rc.1", false),
            ("keylane:handler/handler", false),
            ("keylane:handler/keyed-handler@0.1.0", false),
            ("other:handler/handler@0.1.0", false),
            ("handle", false),
        ];
        for (export, wanted) in cases {
            assert_eq!(is_supported_export(export, "handler"), wanted, "{export}");
        }
    }
}
