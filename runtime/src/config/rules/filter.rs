//! `[[handlers.NAME.filter]]`.

use super::super::checked::{FilterRule, HeaderTest};
use super::super::problem::Problems;
use super::super::written_filter::Rule;

/// The rules, in their order.
pub(super) fn filter(name: &str, rules: &[Rule], problems: &mut Problems<'_, '_>) -> Vec<FilterRule> {
    let mut all: Vec<FilterRule> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let number = index.to_string();
        let path = ["handlers", name, "filter", &number];
        let rule = checked(index, rule, &path, problems);
        for (earlier, number) in all.iter().zip(1..) {
            if earlier.name == rule.name {
                problems.add(&path, format!("the name `{}` is that of rule {number} already", rule.name));
            }
            if earlier.tests() == rule.tests() {
                problems
                    .add(&path, format!("rule {number} tests the same, so this one decides nothing"))
                    .hint("remove one of the two: the first rule that an event matches decides");
            }
        }
        all.push(rule);
    }
    all
}

fn checked(index: usize, rule: &Rule, path: &[&str], problems: &mut Problems<'_, '_>) -> FilterRule {
    let tests = header_tests(rule);
    if rule.header.is_none() && !tests.is_empty() {
        problems
            .add(path, "`equals`, `any_of`, `prefix` and `present` are about a header, and none is named")
            .hint("add `header = \"…\"`");
    }
    if rule.header.is_some() && tests.is_empty() {
        problems
            .add(path, "a header is named, and nothing is said of it")
            .hint("add `equals`, `any_of`, `prefix` or `present`");
    }
    if tests.is_empty() && rule.key_prefix.is_none() && rule.tombstone.is_none() {
        problems
            .add(path, "the rule tests nothing")
            .hint("add a test of a header, `key_prefix` or `tombstone`; or remove the rule");
    }
    matches_none(rule, path, problems);
    FilterRule {
        name: rule.name.clone().unwrap_or_else(|| (index + 1).to_string()),
        keep: rule.keep.unwrap_or(true),
        header: rule.header.clone().map(|name| (name, tests)),
        key_prefix: rule.key_prefix.clone().map(String::into_bytes),
        tombstone: rule.tombstone,
    }
}

/// A rule that can match nothing drops everything, or nothing, without a word.
fn matches_none(rule: &Rule, path: &[&str], problems: &mut Problems<'_, '_>) {
    let Rule { equals, any_of, prefix, .. } = rule;
    if rule.header.as_deref() == Some("") {
        problems.add(path, "`header` is empty").hint("name the header");
    }
    if any_of.as_ref().is_some_and(Vec::is_empty) {
        problems.add(path, "`any_of` lists no value, so no event matches").hint("list the values");
    }
    let given = [equals.is_some(), any_of.is_some(), prefix.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        problems
            .add(path, "`equals`, `any_of` and `prefix` are of one header: one of them is enough")
            .hint("keep one; write a rule each for values of which any will do");
    }
    if rule.present == Some(false) && given.contains(&true) {
        problems
            .add(path, "a header that is not present has no value, so no event matches")
            .hint("remove `present`, or the test of the value");
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
