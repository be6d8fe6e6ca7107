//! Checks the size of a component's instances against the limits of the engine, without compiling it.

use std::fmt;

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    Encoding, Instance, Parser, Payload,
};

use crate::engine::MEMORIES_MAX;
use crate::host::{CORE_INSTANCES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// A size of a component that exceeds its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    what: &'static str,
    found: u64,
    max: u64,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, the limit is {}", self.found, self.what, self.max)
    }
}

/// The size of one instance of a component or module.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    core_instances: u64,
    memories: u64,
    tables: u64,
    /// The initial size of the largest table.
    table_elements: u64,
}

impl Sizes {
    fn add(&mut self, other: Sizes) {
        self.core_instances = self.core_instances.saturating_add(other.core_instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
        self.table_elements = self.table_elements.max(other.table_elements);
    }

    fn excess(&self) -> Option<Excess> {
        let elements = u64::try_from(TABLE_ELEMENTS_MAX).unwrap_or(u64::MAX);
        [
            ("elements in one table", self.table_elements, elements),
            ("tables", self.tables, u64::from(TABLES_MAX)),
            ("memories", self.memories, u64::from(MEMORIES_MAX)),
            ("core instances", self.core_instances, u64::from(CORE_INSTANCES_MAX)),
        ]
        .into_iter()
        .find(|(_, found, max)| found > max)
        .map(|(what, found, max)| Excess { what, found, max })
    }
}

/// A component or module whose end is not reached yet.
#[derive(Default)]
struct Open {
    sizes: Sizes,
    is_module: bool,
    /// The index spaces of a component. Foreign items count as zero: an import is refused, and modules that an instance
    /// exports are counted only by the engine, when the component is compiled.
    modules: Vec<Sizes>,
    components: Vec<Sizes>,
}

/// Returns the first size of a valid component that exceeds its limit.
pub(super) fn excess(component: &[u8]) -> Result<Option<Excess>, BinaryReaderError> {
    let mut open: Vec<Open> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        if let Payload::Version { encoding, .. } = payload {
            let is_module = encoding == Encoding::Module;
            let sizes = Sizes { core_instances: u64::from(is_module), ..Sizes::default() };
            open.push(Open { sizes, is_module, ..Open::default() });
        } else if let Payload::End(_) = payload {
            let Some(ended) = open.pop() else { break };
            let Some(outer) = open.last_mut() else { return Ok(ended.sizes.excess()) };
            let space = if ended.is_module { &mut outer.modules } else { &mut outer.components };
            space.push(ended.sizes);
        } else if let Some((here, outer)) = open.split_last_mut() {
            here.take(payload, outer)?;
        }
    }
    Ok(None)
}

impl Open {
    fn take(&mut self, payload: Payload<'_>, outer: &[Open]) -> Result<(), BinaryReaderError> {
        if let Payload::MemorySection(memories) = payload {
            self.sizes.memories += u64::from(memories.count());
        } else if let Payload::TableSection(tables) = payload {
            self.sizes.tables += u64::from(tables.count());
            for table in tables {
                self.sizes.table_elements = self.sizes.table_elements.max(table?.ty.initial);
            }
        } else if let Payload::InstanceSection(instances) = payload {
            for instance in instances {
                if let Instance::Instantiate { module_index, .. } = instance? {
                    self.sizes.add(at(&self.modules, module_index));
                }
            }
        } else if let Payload::ComponentInstanceSection(instances) = payload {
            for instance in instances {
                if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                    self.sizes.add(at(&self.components, component_index));
                }
            }
        } else if let Payload::ComponentAliasSection(aliases) = payload {
            for alias in aliases {
                self.take_alias(&alias?, outer);
            }
        } else if let Payload::ComponentImportSection(imports) = payload {
            for import in imports {
                self.take_foreign(import?.ty.kind());
            }
        } else if let Payload::ComponentExportSection(exports) = payload {
            // An export is a new index for the exported item.
            for export in exports {
                let export = export?;
                if export.kind == ComponentExternalKind::Module {
                    self.modules.push(at(&self.modules, export.index));
                } else if export.kind == ComponentExternalKind::Component {
                    self.components.push(at(&self.components, export.index));
                }
            }
        }
        Ok(())
    }

    fn take_alias(&mut self, alias: &ComponentAlias<'_>, outer: &[Open]) {
        match *alias {
            ComponentAlias::InstanceExport { kind, .. } => self.take_foreign(kind),
            ComponentAlias::CoreInstanceExport { .. } => {}
            ComponentAlias::Outer { kind, count, index } => {
                let from = outer.len().checked_sub(count as usize).and_then(|at| outer.get(at));
                let from = from.unwrap_or(self); // a count of 0 means the component itself
                let (module, component) = (at(&from.modules, index), at(&from.components, index));
                match kind {
                    ComponentOuterAliasKind::CoreModule => self.modules.push(module),
                    ComponentOuterAliasKind::Component => self.components.push(component),
                    ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => {}
                }
            }
        }
    }

    fn take_foreign(&mut self, kind: ComponentExternalKind) {
        if kind == ComponentExternalKind::Module {
            self.modules.push(Sizes::default());
        } else if kind == ComponentExternalKind::Component {
            self.components.push(Sizes::default());
        }
    }
}

fn at(space: &[Sizes], index: u32) -> Sizes {
    space.get(index as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        let component = wat::parse_str(text).expect("the text is well-formed");
        excess(&component).expect("the component is valid").map(|excess| excess.to_string())
    }

    #[test]
    fn the_sizes_of_one_instance_are_counted() {
        let module = |content: &str| format!("(core module $m {content})");
        let instances = |n: usize| "(core instance (instantiate $m))".repeat(n);
        for (content, number, expected) in [
            ("(table 20000 funcref)", 1, None),
            ("(table 20001 funcref)", 1, Some("20001 elements in one table, the limit is 20000")),
            ("(table 30000 funcref)", 0, None),
            ("(table 1 funcref)", 20, None),
            ("(table 1 funcref)", 21, Some("21 tables, the limit is 20")),
            ("(memory 1)", 4, None),
            ("(memory 1)", 5, Some("5 memories, the limit is 4")),
            ("", 50, None),
            ("", 51, Some("51 core instances, the limit is 50")),
        ] {
            let text = format!("(component {} {})", module(content), instances(number));
            assert_eq!(found(&text).as_deref(), expected, "{number} x {content}");
        }
    }

    #[test]
    fn nested_components_count_once_per_instantiation() {
        let inner = "(component $c (core module $m (memory 1)) (core instance (instantiate $m)))";
        let outer = |number| format!("(component {inner} {})", "(instance (instantiate $c))".repeat(number));
        assert_eq!(found(&outer(4)), None);
        assert_eq!(found(&outer(5)).as_deref(), Some("5 memories, the limit is 4"));
        let exported = "(component (component $small)
            (export \"a\" (component $small))
            (component $c (core module $m (memory 1)) (core instance (instantiate $m)))
            (instance (instantiate $c)) (instance (instantiate $c)) (instance (instantiate $c))
            (instance (instantiate $c)) (instance (instantiate $c)))";
        assert_eq!(found(exported).as_deref(), Some("5 memories, the limit is 4"));
        let aliased = "(component (core module $m (table 20001 funcref))
            (component $c (core instance (instantiate $m)))
            (instance (instantiate $c)))";
        assert_eq!(found(aliased).as_deref(), Some("20001 elements in one table, the limit is 20000"));
    }
}
