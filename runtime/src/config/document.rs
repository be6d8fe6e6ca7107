//! The parsed file, with the span of every key and value.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::deserializer_messages;
use super::interpolate::{self, InterpolationError};
use super::problem::{Problem, ProblemReport};

/// A parsed file. Strings are unescaped; spans refer to the text of the file.
pub(super) struct Document<'t> {
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Parses the text. A syntax error ends the checks, because the text after it can only be guessed.
    pub(super) fn parse(text: &'t str, report: &mut ProblemReport) -> Result<Document<'t>, ProblemReport> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Document { root }),
            Err(error) => {
                let problem = report.add(error.span(), error.message());
                if let Some(language) = deserializer_messages::another_language(text) {
                    problem.message = format!("this file is {language}, but a Keylane configuration is TOML");
                    problem.remedy("`keylane schema --format markdown` lists every setting");
                }
                Err(report.clone())
            }
        }
    }

    /// Replaces variables in every string value. Keys are not changed: the structure of a file never depends on the
    /// environment.
    pub(super) fn interpolate(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
        report: &mut ProblemReport,
    ) -> Result<(), ProblemReport> {
        for (_, value) in self.root.get_mut().iter_mut() {
            interpolate_value(value, environment, report);
        }
        report.clone().into_result(())
    }

    /// Deserializes the file.
    pub(super) fn deserialize<T: Deserialize<'t>>(
        &self,
        report: &mut ProblemReport,
    ) -> Result<T, ProblemReport> {
        T::deserialize(toml::Deserializer::from(self.root.clone())).map_err(|error| {
            let table = error.span().and_then(|span| self.table_of(&span));
            let explained =
                deserializer_messages::explain(error.message(), table.as_deref(), &self.keys(&["handlers"]));
            report.add(error.span(), explained.0).remedy = explained.1;
            report.clone()
        })
    }

    /// Returns the span of a field's value, or of the name of the innermost existing table on its path.
    pub(super) fn span_of(&self, path: &[&str]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let (key, value) = self.root.get_ref().get_key_value(*first)?;
        Some(span_in(key.span(), value, rest))
    }

    /// Returns the path of the table that contains the key with this span.
    fn table_of(&self, span: &Range<usize>) -> Option<Vec<String>> {
        let mut path = Vec::new();
        is_in(self.root.get_ref(), span, &mut path).then_some(path)
    }

    /// Returns the keys of a table; empty if it does not exist.
    pub(super) fn keys(&self, path: &[&str]) -> Vec<String> {
        let mut table = Some(self.root.get_ref());
        for name in path {
            table = table.and_then(|table| table.get(*name)?.get_ref().as_table());
        }
        table.into_iter().flatten().map(|(key, _)| key.get_ref().to_string()).collect()
    }

    /// Returns the value of a field, if it exists and is a string.
    pub(super) fn string(&self, path: &[&str]) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get_ref().get(*first)?;
        for name in rest {
            value = value.get_ref().as_table()?.get(*name)?;
        }
        value.get_ref().as_str()
    }

    /// Removes all tables but this one.
    pub(super) fn keep_only(&mut self, name: &str) {
        let others = self.keys(&[]);
        others.iter().filter(|other| *other != name).for_each(|other| self.remove(&[other]));
    }

    /// Removes a field, so that the types need not define it.
    pub(super) fn remove(&mut self, path: &[&str]) {
        let Some((last, tables)) = path.split_last() else { return };
        let mut table = self.root.get_mut();
        for name in tables {
            let next = table.get_mut(*name).map(Spanned::get_mut);
            let Some(DeValue::Table(inner)) = next else { return };
            table = inner;
        }
        table.remove(*last);
    }
}

/// Returns whether the table contains a key with this span, at any depth. Leaves the path of its table in `path`.
fn is_in(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    table.iter().any(|(key, value)| {
        if key.span() == *span {
            return true;
        }
        path.push(key.get_ref().to_string());
        let value = value.get_ref();
        let tables = value.as_array().into_iter().flatten().map(Spanned::get_ref).chain([value]);
        let found = tables.filter_map(DeValue::as_table).any(|inner| is_in(inner, span, path));
        if !found {
            path.pop();
        }
        found
    })
}

fn span_in(key: Range<usize>, value: &Spanned<DeValue<'_>>, path: &[&str]) -> Range<usize> {
    let Some((first, rest)) = path.split_first() else {
        // The span of a table with a header is that of the whole header; the span of its name is more precise.
        return if value.get_ref().is_table() { key } else { value.span() };
    };
    match value.get_ref() {
        DeValue::Table(table) => match table.get_key_value(*first) {
            Some((inner_key, inner)) => span_in(inner_key.span(), inner, rest),
            None => key,
        },
        DeValue::Array(array) => match first.parse().ok().and_then(|index: usize| array.get(index)) {
            Some(inner) => span_in(inner.span(), inner, rest),
            None => key,
        },
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => key,
    }
}

fn interpolate_value(
    value: &mut Spanned<DeValue<'_>>,
    environment: &dyn Fn(&str) -> Option<String>,
    report: &mut ProblemReport,
) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => match interpolate::fill(text, environment) {
            Ok(filled) => {
                filled.secrets.iter().for_each(|secret| report.mask(secret));
                *text = Cow::Owned(filled.text);
            }
            Err(error) => describe(&error, report.add(Some(span), "")),
        },
        DeValue::Array(values) => {
            values.iter_mut().for_each(|value| interpolate_value(value, environment, report));
        }
        DeValue::Table(table) => {
            table.iter_mut().for_each(|(_, value)| interpolate_value(value, environment, report));
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn describe(error: &InterpolationError, problem: &mut Problem) {
    match error {
        InterpolationError::Unset(name) => {
            problem.message = format!("the environment variable `{name}` is not set");
            problem.remedy(format!("set it, or give it a default: ${{{name}:-…}}"));
        }
        InterpolationError::Unclosed => {
            problem.message = "`${` without `}`".to_owned();
            problem.remedy("write `$${` for a literal `${`");
        }
        InterpolationError::NotAName(name) => {
            problem.message = format!("`{name}` is not the name of an environment variable");
            problem.remedy("write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`");
        }
    }
}
