//! `${NAME}` and `${NAME:-default}` in one string; `$${` is a literal `${`.

use super::secret;

/// Why a string can't be interpolated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InterpolationError {
    /// This variable is not set and has no default.
    Unset(String),
    /// `${` without `}`.
    Unclosed,
    /// The text between the braces is not the name of a variable.
    NotAName(String),
}

/// A string with its variables replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Values of variables with the name of a secret.
    pub(super) secrets: Vec<String>,
}

/// Replaces the variables of one string. Values of variables are not interpolated: a `${` in them is literal.
pub(super) fn fill(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Filled, InterpolationError> {
    let mut filled = Filled::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            filled.text.push_str(before);
            filled.text.push_str("${");
            rest = after;
            continue;
        }
        let (inside, after) = after.split_once('}').ok_or(InterpolationError::Unclosed)?;
        filled.text.push_str(before);
        filled.variable(inside, environment)?;
        rest = after;
    }
    filled.text.push_str(rest);
    Ok(filled)
}

impl Filled {
    fn variable(
        &mut self,
        inside: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), InterpolationError> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(InterpolationError::NotAName(name.to_owned()));
        }
        // As in a shell: with a default, an empty variable counts as unset.
        let found = environment(name).filter(|value| default.is_none() || !value.is_empty());
        let value =
            found.or(default.map(str::to_owned)).ok_or_else(|| InterpolationError::Unset(name.to_owned()))?;
        self.text.push_str(&value);
        if secret::is_secret(name) {
            self.secrets.push(value);
        }
        Ok(())
    }
}
