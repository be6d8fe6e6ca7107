//! Problems of a file, shown with their lines.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use super::document::Document;
use super::secret;

/// All problems found in one file.
#[derive(Clone)]
pub struct Report {
    file: String,
    text: String,
    problems: Vec<Problem>,
    /// Values that must not occur in any message.
    masked: Vec<String>,
}

/// One problem.
#[derive(Clone)]
pub(super) struct Problem {
    /// Byte range in the file.
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }
}

impl Report {
    pub(super) fn new(file: &Path, text: &str) -> Report {
        Report {
            file: file.display().to_string(),
            text: text.to_owned(),
            problems: Vec::new(),
            masked: Vec::new(),
        }
    }

    /// Number of problems.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn add(&mut self, span: Option<Range<usize>>, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem { span, message: message.into(), hint: None });
        self.problems.last_mut().expect("the problem was just pushed")
    }

    /// Masks this value in all messages. Very short values are not secrets, and masking them would garble messages.
    pub(super) fn mask(&mut self, value: &str) {
        if value.len() >= 4 {
            self.masked.push(value.to_owned());
        }
    }

    /// Returns the value if there is no problem.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, Report> {
        if self.problems.is_empty() { Ok(value) } else { Err(self) }
    }

    fn show(&self, out: &mut String, problem: &Problem) -> fmt::Result {
        let Some(location) = problem.span.clone().and_then(|span| SourceLine::find(&self.text, span)) else {
            writeln!(out, "{}: {}", self.file, problem.message)?;
            return show_hint(out, problem);
        };
        let number = location.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(out, "{}:{number}:{}: {}", self.file, location.column, problem.message)?;
        writeln!(out, "{margin} |")?;
        match secret::visible_part(&self.text, location.line_start) {
            None => {
                writeln!(out, "{number} | {}", location.text)?;
                writeln!(out, "{margin} | {}{}", location.padding(), "^".repeat(location.width))?;
            }
            Some(visible) => writeln!(out, "{number} | {visible}…  (not shown: it may be a secret)")?,
        }
        show_hint(out, problem)
    }
}

fn show_hint(out: &mut String, problem: &Problem) -> fmt::Result {
    match &problem.hint {
        Some(hint) => writeln!(out, "hint: {hint}"),
        None => Ok(()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sorted by line, for correction from top to bottom.
        let mut in_order: Vec<&Problem> = self.problems.iter().collect();
        in_order.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        for (index, problem) in in_order.into_iter().enumerate() {
            let mut shown = String::new();
            self.show(&mut shown, problem)?;
            for value in &self.masked {
                shown = shown.replace(value, "…");
            }
            let gap = if index > 0 { "\n" } else { "" };
            write!(f, "{gap}{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Report {
    /// As [`fmt::Display`]: the text of a file may contain secrets and is never printed completely.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// The line and column of a span.
struct SourceLine<'t> {
    /// The line number, from 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// Number of characters to underline; a span is truncated at the end of its line.
    width: usize,
    line_start: usize,
    text: &'t str,
}

impl<'t> SourceLine<'t> {
    fn find(text: &'t str, span: Range<usize>) -> Option<SourceLine<'t>> {
        let before = text.get(..span.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text = text.get(line_start..)?.lines().next().unwrap_or("");
        let line_end = line_start + line_text.len();
        let marked = text.get(span.start..span.end.min(line_end).max(span.start)).unwrap_or("");
        Some(SourceLine {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..)?.chars().count() + 1,
            width: marked.chars().count().max(1),
            line_start,
            text: line_text,
        })
    }

    /// As wide as the text before the span. Tabs are kept, so that both lines are indented equally.
    fn padding(&self) -> String {
        self.text.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
    }
}

/// Collects problems, located by the paths of their fields.
pub(super) struct Problems<'d, 'r> {
    document: &'d Document<'d>,
    report: &'r mut Report,
    warnings: Vec<String>,
}

impl<'d, 'r> Problems<'d, 'r> {
    pub(super) fn new(document: &'d Document<'d>, report: &'r mut Report) -> Problems<'d, 'r> {
        Problems { document, report, warnings: Vec::new() }
    }

    /// Adds an error.
    pub(super) fn add(&mut self, path: &[&str], message: impl Into<String>) -> &mut Problem {
        self.report.add(self.document.find(path), message)
    }

    /// Adds a warning: a valid setting that is seldom intended.
    pub(super) fn warn(&mut self, path: &[&str], message: impl fmt::Display) {
        let line = self.document.find(path).and_then(|span| SourceLine::find(&self.report.text, span));
        let mut text = self.report.file.clone();
        if let Some(location) = line {
            let _infallible = write!(text, ":{}", location.line);
        }
        let _infallible = write!(text, ": {message}");
        self.warnings.push(text);
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    pub(super) fn mask(&mut self, value: &str) {
        self.report.mask(value);
    }
}
