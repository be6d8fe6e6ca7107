//! The filter of a handler, applied to the bytes of a record before any other processing.

use super::Header;
use crate::config::{FilterRule, HeaderTest};

/// The rules of a handler, with counters of their matches.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    /// Whether a record that matches no rule is kept.
    keeps_others: bool,
    others: u64,
}

#[derive(Debug)]
struct Rule {
    rule: FilterRule,
    decided: u64,
}

/// The counter of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterCount {
    /// The rule's name; `None`: records that match no rule.
    pub rule: Option<String>,
    /// Whether its records are kept or dropped.
    pub keep: bool,
    /// Number of records.
    pub records: u64,
}

impl Filter {
    /// Creates a filter. Without rules it keeps every record. If any rule keeps records, those that match no rule are
    /// dropped.
    pub fn new(rules: Vec<FilterRule>) -> Filter {
        let keeps_others = !rules.iter().any(|rule| rule.keep);
        let rules = rules.into_iter().map(|rule| Rule { rule, decided: 0 }).collect();
        Filter { rules, keeps_others, others: 0 }
    }

    /// Returns whether a record is kept for the handler, and counts it.
    pub fn keeps<'h, H: Iterator<Item = Header<'h>>>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Fn() -> H,
    ) -> bool {
        for Rule { rule, decided } in &mut self.rules {
            if matches(rule, key, value, &headers) {
                *decided += 1;
                return rule.keep;
            }
        }
        self.others += 1;
        self.keeps_others
    }

    /// Returns the counters of all rules; empty without rules.
    pub fn counts(&self) -> Vec<FilterCount> {
        let of_rule = |known: &Rule| FilterCount {
            rule: Some(known.rule.name.clone()),
            keep: known.rule.keep,
            records: known.decided,
        };
        let others = FilterCount { rule: None, keep: self.keeps_others, records: self.others };
        let others = (!self.rules.is_empty()).then_some(others);
        self.rules.iter().map(of_rule).chain(others).collect()
    }
}

fn matches<'h, H: Iterator<Item = Header<'h>>>(
    rule: &FilterRule,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &impl Fn() -> H,
) -> bool {
    let by_key = rule
        .key_prefix
        .as_ref()
        .is_none_or(|prefix| key.is_some_and(|key| key.starts_with(prefix.as_slice())));
    let by_value = rule.tombstone.is_none_or(|wanted| value.is_none() == wanted);
    by_key
        && by_value
        && rule.header.as_ref().is_none_or(|(name, tests)| {
            let last = headers().filter(|(known, _)| *known == name.as_bytes()).last();
            tests.iter().all(|test| holds(test, last))
        })
}

/// Returns whether a header passes a test. A header without a value is present, but passes no test of the value.
fn holds(test: &HeaderTest, header: Option<Header<'_>>) -> bool {
    let value = header.and_then(|(_, value)| value);
    match test {
        HeaderTest::Present(wanted) => header.is_some() == *wanted,
        HeaderTest::AnyOf(values) => value.is_some_and(|value| values.iter().any(|known| known == value)),
        HeaderTest::Prefix(prefix) => value.is_some_and(|value| value.starts_with(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(keep: bool, test: Option<HeaderTest>) -> FilterRule {
        FilterRule {
            name: "r".to_owned(),
            keep,
            header: test.map(|test| ("type".to_owned(), vec![test])),
            key_prefix: None,
            tombstone: None,
        }
    }

    fn keeps(filter: &mut Filter, key: &[u8], value: Option<&[u8]>, headers: &[Header<'static>]) -> bool {
        filter.keeps(Some(key), value, || headers.iter().copied())
    }

    #[test]
    fn a_keep_rule_drops_other_records() {
        let test = HeaderTest::AnyOf(vec![b"made".to_vec(), b"paid".to_vec()]);
        let mut filter = Filter::new(vec![rule(true, Some(test))]);
        assert!(keeps(&mut filter, b"", None, &[(b"type", Some(b"paid"))]));
        assert!(!keeps(&mut filter, b"", None, &[(b"type", Some(b"pai"))]));
        assert!(!keeps(&mut filter, b"", None, &[(b"type", None)]));
        assert!(!keeps(&mut filter, b"", None, &[(b"type", Some(b"paid")), (b"type", Some(b"x"))]));
        let counts: Vec<_> = filter.counts().into_iter().map(|count| (count.keep, count.records)).collect();
        assert_eq!(counts, [(true, 1), (false, 3)]);
    }

    #[test]
    fn a_drop_rule_keeps_other_records_and_the_first_match_decides() {
        let drop = FilterRule { tombstone: Some(true), ..rule(false, None) };
        let mut filter = Filter::new(vec![drop.clone()]);
        assert!(!keeps(&mut filter, b"", None, &[]));
        assert!(keeps(&mut filter, b"", Some(b""), &[]));
        let keep = FilterRule { key_prefix: Some(b"eu-".to_vec()), ..rule(true, None) };
        let mut both = Filter::new(vec![keep, drop]);
        assert!(keeps(&mut both, b"eu-1", None, &[]), "the first rule decides");
        assert!(!keeps(&mut both, b"us-1", Some(b""), &[]), "with a keep rule other records are dropped");
    }

    #[test]
    fn headers_may_be_present_or_absent() {
        let mut present = Filter::new(vec![rule(true, Some(HeaderTest::Present(true)))]);
        assert!(keeps(&mut present, b"", None, &[(b"type", None)]));
        assert!(!keeps(&mut present, b"", None, &[]));
        let mut prefix = Filter::new(vec![rule(true, Some(HeaderTest::Prefix(b"order.".to_vec())))]);
        assert!(keeps(&mut prefix, b"", None, &[(b"type", Some(b"order.made"))]));
        assert!(!keeps(&mut prefix, b"", None, &[(b"type", Some(b"orde"))]));
        assert!(Filter::new(Vec::new()).counts().is_empty());
    }
}
