//! `keylane inspect COMPONENT`

use std::fmt::Write as _;
use std::path::Path;

use super::{CommandFailure, Completion, stdout};
use crate::config::HumanSize;
use crate::guest::inspect::inspect;
use crate::guest::{AllowedImports, ImportKind, Inspection, load};

/// Shows the imports and exports of a component. A component that `run` refuses regardless of grants is a finding.
pub(super) fn execute(component: &Path) -> Result<Completion, CommandFailure> {
    let name = component.display().to_string();
    let inspection = load::read(&name, component)
        .and_then(|bytes| inspect(&name, &bytes))
        .map_err(CommandFailure::Component)?;
    let printed = stdout::print(&describe(&name, &inspection))?;
    let runs = !inspection.interfaces.is_empty()
        && inspection.refused(AllowedImports { http: true }).next().is_none();
    Ok(if runs { printed } else { Completion::Failure })
}

fn describe(name: &str, inspection: &Inspection) -> String {
    let mut text = String::new();
    line(&mut text, "component", name);
    let size = u64::try_from(inspection.size).unwrap_or(u64::MAX);
    line(&mut text, "size", &HumanSize(size).to_string());
    line(&mut text, "sha256", &inspection.digest());
    if inspection.was_core_module {
        line(&mut text, "form", "core module, converted to a component when loaded");
    }
    line(&mut text, "interface", &interface(inspection));
    for export in &inspection.exports {
        line(&mut text, "export", export);
    }
    for import in &inspection.imports {
        let granted = match import.kind {
            ImportKind::TypesOnly => "types only".to_owned(),
            ImportKind::Wasi => "granted: with an empty context".to_owned(),
            ImportKind::Http => "needs a grant: `grants.http`, with the hosts".to_owned(),
            ImportKind::Unsupported { remedy } => format!("refused: {remedy}"),
        };
        line(&mut text, "import", &format!("{} ({granted})", import.name));
    }
    text
}

/// Describes how the component is called, which may depend on the configuration.
fn interface(inspection: &Inspection) -> String {
    match (inspection.interface(true), inspection.interface(false)) {
        (None, None) => "none: the component exports no interface of `keylane:handler`".to_owned(),
        (Some(with_state), None) => format!("{with_state} (needs a state: `[handlers.NAME.state]`)"),
        (None, Some(interface)) => interface.to_string(),
        (Some(with_state), Some(interface)) if with_state == interface => interface.to_string(),
        (Some(with_state), Some(interface)) => {
            format!("{with_state} with a state (`[handlers.NAME.state]`), {interface} without")
        }
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _infallible = writeln!(text, "{name:<11}{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::HandlerInterface::{BatchHandler, Handler, KeyedHandler};
    use crate::guest::Import;

    #[test]
    fn the_description_shows_imports_and_exports() {
        let inspection = Inspection {
            interfaces: vec![BatchHandler],
            exports: vec!["keylane:handler/batch-handler@0.1.0".to_owned()],
            imports: vec![
                Import { name: "wasi:clocks/wall-clock@0.2.6".to_owned(), kind: ImportKind::Wasi },
                Import { name: "wasi:http/outgoing-handler@0.2.6".to_owned(), kind: ImportKind::Http },
                Import {
                    name: "wasi:http/types@0.2.6".to_owned(),
                    kind: ImportKind::Unsupported { remedy: "build it without" },
                },
            ],
            size: 25 << 10,
            sha256: [0xab; 32],
            was_core_module: false,
        };
        let expected = format!(
            "\
component  orders.wasm
size       25KiB
sha256     {}
interface  batch-handler
export     keylane:handler/batch-handler@0.1.0
import     wasi:clocks/wall-clock@0.2.6 (granted: with an empty context)
import     wasi:http/outgoing-handler@0.2.6 (needs a grant: `grants.http`, with the hosts)
import     wasi:http/types@0.2.6 (refused: build it without)
",
            "ab".repeat(32)
        );
        assert_eq!(describe("orders.wasm", &inspection), expected);
        for (interfaces, expected) in [
            (vec![], "none: the component exports no interface of `keylane:handler`"),
            (vec![Handler], "handler"),
            (vec![BatchHandler, Handler], "batch-handler"),
            (vec![KeyedHandler], "keyed-handler (needs a state: `[handlers.NAME.state]`)"),
            (
                vec![KeyedHandler, Handler],
                "keyed-handler with a state (`[handlers.NAME.state]`), handler without",
            ),
        ] {
            let text = describe("x", &Inspection { interfaces, ..inspection.clone() });
            let line = text.lines().find_map(|line| line.strip_prefix("interface  "));
            assert_eq!(line, Some(expected));
        }
    }
}
