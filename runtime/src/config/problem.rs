//! The problems of a configuration file, shown with their lines.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::document::Document;
use super::secret;

/// All problems found in one file.
#[derive(Clone)]
pub struct ProblemReport {
    file: String,
    text: String,
    problems: Vec<Problem>,
    /// Values that must not occur in any message.
    masked: Vec<String>,
}

/// One problem.
#[derive(Clone)]
pub(super) struct Problem {
    /// Byte range of the problem in the file.
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

impl Problem {
    pub(super) fn remedy(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }
}

impl ProblemReport {
    pub(super) fn new(file: &Path, text: &str) -> ProblemReport {
        ProblemReport {
            file: file.display().to_string(),
            text: text.to_owned(),
            problems: Vec::new(),
            masked: Vec::new(),
        }
    }

    /// Returns the number of problems.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn add(&mut self, span: Option<Range<usize>>, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem { span, message: message.into(), remedy: None });
        self.problems.last_mut().expect("the problem was just pushed")
    }

    /// Masks a value in all messages, unless it has fewer than four bytes: such a value is not a secret, and masking it
    /// would garble messages.
    pub(super) fn mask(&mut self, value: &str) {
        if value.len() >= 4 {
            self.masked.push(value.to_owned());
        }
    }

    /// Returns the value if there is no problem.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, ProblemReport> {
        if self.problems.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Shows the problem as compilers do, with the line that it is in. Secrets are masked before the text is rendered:
    /// rendering replaces tabs and control characters and indents lines, so they could not be found in its result.
    fn show(&self, problem: &Problem) -> String {
        let message = self.without_secrets(&problem.message);
        let remedy = problem.remedy.as_deref().map(|remedy| self.without_secrets(remedy));
        let line = problem.span.clone().and_then(|span| SourceLine::find(&self.text, span));
        let shown = line.map(|line| (line.number, self.shown(&line)));
        let title = Level::ERROR.primary_title(message);
        let mut group = match &shown {
            None => title.element(Origin::path(self.file.as_str())),
            Some((number, (text, marked))) => title.element(
                Snippet::source(text.as_str())
                    .line_start(*number)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(marked.clone())),
            ),
        };
        if let Some(remedy) = remedy {
            group = group.element(Level::HELP.with_name("hint").message(remedy));
        }
        Renderer::plain().render(&[group])
    }

    /// Returns the line with possible secrets hidden, and the range to mark.
    fn shown(&self, line: &SourceLine<'_>) -> (String, Range<usize>) {
        let start = line.marked.start;
        if let Some(visible) = secret::visible_part(&self.text, line.start) {
            let at = start.max(visible.len());
            return (format!("{visible:at$}…  (not shown: it may be a secret)"), at..at);
        }
        let text = self.without_secrets(line.text);
        if text == line.text {
            return (text, line.marked.clone());
        }
        let at = text.floor_char_boundary(start);
        (text, at..at)
    }

    fn without_secrets(&self, text: &str) -> String {
        self.masked.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }
}

impl fmt::Display for ProblemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The problems are sorted by line, so that they can be fixed from top to bottom.
        let mut in_order: Vec<&Problem> = self.problems.iter().collect();
        in_order.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        for (index, problem) in in_order.into_iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            writeln!(f, "{gap}{}", self.show(problem))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ProblemReport {
    /// Formats the report as [`fmt::Display`] does: the text of a file may contain secrets and is never printed
    /// completely.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ProblemReport {}

/// The line of a span.
struct SourceLine<'t> {
    /// The line number, from 1.
    number: usize,
    /// The byte offset in the file where the line starts.
    start: usize,
    text: &'t str,
    /// The span within the line, truncated at the end of the line.
    marked: Range<usize>,
}

impl<'t> SourceLine<'t> {
    fn find(text: &'t str, span: Range<usize>) -> Option<SourceLine<'t>> {
        let before = text.get(..span.start)?;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text.get(start..)?.lines().next().unwrap_or("");
        let marked = (span.start - start).min(line.len())..(span.end - start).min(line.len());
        Some(SourceLine { number: before.matches('\n').count() + 1, start, text: line, marked })
    }
}

/// Collects problems, located by the paths of their fields.
pub(super) struct Problems<'d, 'r> {
    document: &'d Document<'d>,
    report: &'r mut ProblemReport,
    warnings: Vec<String>,
}

impl<'d, 'r> Problems<'d, 'r> {
    pub(super) fn new(document: &'d Document<'d>, report: &'r mut ProblemReport) -> Problems<'d, 'r> {
        Problems { document, report, warnings: Vec::new() }
    }

    /// Adds an error.
    pub(super) fn add(&mut self, path: &[&str], message: impl Into<String>) -> &mut Problem {
        self.report.add(self.document.span_of(path), message)
    }

    /// Adds a warning: a valid setting that is seldom intended.
    pub(super) fn warn(&mut self, path: &[&str], message: impl fmt::Display) {
        let line = self.document.span_of(path).and_then(|span| SourceLine::find(&self.report.text, span));
        let mut text = self.report.file.clone();
        if let Some(location) = line {
            let _infallible = write!(text, ":{}", location.number);
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
