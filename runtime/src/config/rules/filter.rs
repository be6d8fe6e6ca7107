//! `[[handlers.NAME.filter]]`.

use super::super::checked::{FilterRule, HeaderTest};
use super::super::problem::Problems;
use super::super::written_filter::Rule;

/// Checks the rules of a filter, in order.
pub(super) fn filter(name: &str, rules: &[Rule], problems: &mut Problems<'_, '_>) -> Vec<FilterRule> {
    let mut all: Vec<FilterRule> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let number = index.to_string();
        let path = ["handlers", name, "filter", &number];
        let rule = checked(index, rule, &path, problems);
        for (earlier, number) in all.iter().zip(1..) {
            if earlier.name == rule.name {
                problems.add(&path, format!("rule {number} already has the name `{}`", rule.name));
            }
            if earlier.tests() == rule.tests() {
                problems
                    .add(&path, format!("rule {number} has the same tests, so this rule has no effect"))
                    .remedy("remove one of the two: the first matching rule decides");
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
            .add(path, "`equals`, `any_of`, `prefix` and `present` test a header, but `header` is not set")
            .remedy("add `header = \"…\"`");
    }
    if rule.header.is_some() && tests.is_empty() {
        problems
            .add(path, "`header` is set, but the rule does not test it")
            .remedy("add `equals`, `any_of`, `prefix` or `present`");
    }
    if tests.is_empty() && rule.key_prefix.is_none() && rule.tombstone.is_none() {
        problems
            .add(path, "the rule tests nothing")
            .remedy("add a header test, `key_prefix` or `tombstone`, or remove the rule");
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

/// Reports rules that match no event: such a rule would silently drop all events, or none.
fn matches_none(rule: &Rule, path: &[&str], problems: &mut Problems<'_, '_>) {
    let Rule { equals, any_of, prefix, .. } = rule;
    if rule.header.as_deref() == Some("") {
        problems.add(path, "`header` is empty").remedy("name the header");
    }
    if any_of.as_ref().is_some_and(Vec::is_empty) {
        problems.add(path, "`any_of` lists no value, so no event matches").remedy("list the values");
    }
    let given = [equals.is_some(), any_of.is_some(), prefix.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        problems
            .add(path, "only one of `equals`, `any_of` and `prefix` can be set")
            .remedy("keep one; write one rule for each alternative");
    }
    if rule.present == Some(false) && given.contains(&true) {
        problems
            .add(path, "an absent header has no value, so no event matches")
            .remedy("remove `present`, or the test of the value");
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
