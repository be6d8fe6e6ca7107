//! The configurations in the documentation are accepted. A block has warnings only if it says so: `toml warns`.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::expect_accepted;

const FENCE: &str = "```";

/// Returns the blocks of TOML on a page that are marked like this.
fn configurations<'p>(page: &'p str, mark: &str) -> Vec<&'p str> {
    let begin = format!("{FENCE}{mark}\n");
    let rest_of = |(at, _)| page.get(at + begin.len()..).expect("a match is inside the page");
    let blocks = page.match_indices(&begin).map(rest_of);
    blocks.map(|rest| rest.split_once(FENCE).expect("a block has an end").0).collect()
}

/// Adds the required settings that a block leaves out, because it shows only a part of a file.
fn completed(block: &str) -> String {
    let mut file: Table = block.parse().unwrap_or_else(|error| panic!("{error}\n{block}"));
    let kafka = table(&mut file, "kafka");
    kafka.entry("bootstrap_servers").or_insert("localhost:9092".into());
    let handlers = table(&mut file, "handlers");
    if handlers.is_empty() {
        table(handlers, "orders");
    }
    let names: Vec<String> = handlers.keys().cloned().collect();
    for name in names {
        let handler = table(handlers, &name);
        handler.entry("component").or_insert(format!("{name}.wasm").into());
        handler.entry("topics").or_insert(Value::Array(vec![name.clone().into()]));
        handler.entry("group_id").or_insert(name.into());
    }
    toml::to_string(&file).expect("a table can be written")
}

fn table<'t>(parent: &'t mut Table, name: &str) -> &'t mut Table {
    let entry = parent.entry(name).or_insert_with(|| Value::Table(Table::new()));
    entry.as_table_mut().expect("the section is a table")
}

/// Returns the pages in a folder of the repository.
fn pages(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries = fs::read_dir(&folder).expect("a folder of the repository");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Checks all blocks of a page. Returns their number.
fn check_page(path: &Path) -> usize {
    let page = fs::read_to_string(path).expect("a readable page");
    let (blocks, with_warnings) = (configurations(&page, "toml"), configurations(&page, "toml warns"));
    for block in &blocks {
        let checked = expect_accepted(&completed(block));
        assert!(checked.warnings.is_empty(), "{}: {:?}\n{block}", path.display(), checked.warnings);
    }
    for block in &with_warnings {
        let checked = expect_accepted(&completed(block));
        assert!(!checked.warnings.is_empty(), "{} has no warnings:\n{block}", path.display());
    }
    blocks.len() + with_warnings.len()
}

#[test]
fn configurations_in_the_documentation_are_accepted() {
    let found: usize = pages(".").iter().chain(&pages("docs")).map(|page| check_page(page)).sum();
    assert!(found >= 6, "{found} blocks of TOML");
}

#[test]
fn every_recipe_has_a_configuration_that_is_accepted() {
    let recipes = pages("docs/recipes");
    assert!(!recipes.is_empty(), "no recipes");
    for recipe in recipes {
        let found = check_page(&recipe);
        assert!(found > 0 || recipe.ends_with("README.md"), "{} has no configuration", recipe.display());
    }
}

#[test]
fn blocks_are_found_and_completed() {
    let page =
        "text\n```toml\n[handlers.a]\ntimeout = \"1s\"\n```\n```sh\nls\n```\n```toml\n[runtime]\n```\n";
    assert_eq!(configurations(page, "toml"), ["[handlers.a]\ntimeout = \"1s\"\n", "[runtime]\n"]);
    assert!(completed("[runtime]\n").contains("component = \"orders.wasm\""));
    assert!(completed("[handlers.a]\ngroup_id = \"g\"\n").contains("group_id = \"g\""));
}
