//! `[[handlers.NAME.filter]]`.

use super::super::checked::{FilterRule, HeaderTest};
use super::super::problem::Problems;
use super::super::written_filter::Rule;

/// The rules, in their order.
pub(super) fn filter(name: &str, rules: &[Rule], problems: &mut Problems<'_, '_>) -> Vec<FilterRule> {
    let numbered = rules.iter().enumerate();
    numbered.map(|(index, rule)| checked(name, index, rule, problems)).collect()
}

fn checked(handler: &str, index: usize, rule: &Rule, problems: &mut Problems<'_, '_>) -> FilterRule {
    let number = index.to_string();
    let path = ["handlers", handler, "filter", &number];
    let tests = header_tests(rule);
    if rule.header.is_none() && !tests.is_empty() {
        problems
            .add(&path, "`equals`, `any_of`, `prefix` and `present` are about a header, and none is named")
            .hint("add `header = \"…\"`");
    }
    if rule.header.is_some() && tests.is_empty() {
        problems
            .add(&path, "a header is named, and nothing is said of it")
            .hint("add `equals`, `any_of`, `prefix` or `present`");
    }
    if tests.is_empty() && rule.key_prefix.is_none() && rule.tombstone.is_none() {
        problems
            .add(&path, "the rule tests nothing")
            .hint("add a test of a header, `key_prefix` or `tombstone`; or remove the rule");
    }
    FilterRule {
        name: rule.name.clone().unwrap_or_else(|| (index + 1).to_string()),
        keep: rule.keep.unwrap_or(true),
        header: rule.header.clone().map(|name| (name, tests)),
        key_prefix: rule.key_prefix.clone().map(String::into_bytes),
        tombstone: rule.tombstone,
    }
}

fn header_tests(rule: &Rule) -> Vec<HeaderTest> {
    let mut tests = Vec::new();
    tests.extend(rule.present.map(HeaderTest::Present));
    tests.extend(rule.equals.clone().map(|value| HeaderTest::AnyOf(vec![value.into_bytes()])));
    let values = rule.any_of.clone();
    tests
        .extend(values.map(|values| HeaderTest::AnyOf(values.into_iter().map(String::into_bytes).collect())));
    tests.extend(rule.prefix.clone().map(|prefix| HeaderTest::Prefix(prefix.into_bytes())));
    tests
}
