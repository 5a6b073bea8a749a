//! Diagnostics: everything that is wrong with a sync config, each with its place and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::lines::Lines;
use super::scalar::Scalar;
use super::span::Span;
use crate::suggestion::nearest_name;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiagnosticLevel {
    /// The config is refused.
    Fatal,
    /// The config loads; someone should look at this.
    Warning,
}

impl fmt::Display for DiagnosticLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fatal => "error",
            Self::Warning => "warning",
        })
    }
}

/// One problem of a sync config, at its place in the YAML text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Whether the config is refused because of it.
    pub level: DiagnosticLevel,
    /// A stable name of the kind of problem, such as `unknown-key`.
    pub kind: &'static str,
    /// What is wrong, as a sentence without a final stop.
    pub message: String,
    /// Where, in bytes of the YAML text.
    pub span: Range<usize>,
    /// The line of the start, from 1.
    pub line: usize,
    /// The column of the start in characters, from 1.
    pub column: usize,
    /// What to do about it, where that can be said.
    pub suggestion: Option<String>,
    /// A text that mends it when it takes the place of the span.
    pub replacement: Option<String>,
    /// The name that the replacement is near to.
    named: Option<String>,
}

impl Diagnostic {
    /// The span in UTF-16 units of `text` (the YAML text that was parsed), as editors and JavaScript count.
    pub fn utf16_span(&self, text: &str) -> Range<usize> {
        let units = |end: usize| text.get(..end).map_or(0, |head| head.encode_utf16().count());
        units(self.span.start)..units(self.span.end)
    }

    fn render(&self, lines: &[&str], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}[{}] at {}:{}: {}", self.level, self.kind, self.line, self.column, self.message)?;
        if let Some(line) = lines.get(self.line - 1) {
            let number = self.line.to_string();
            let start = line.char_indices().nth(self.column - 1).map_or(line.len(), |(at, _)| at);
            let length = self.span.len().min(line.len() - start);
            let marked = line.get(start..start + length).map_or(1, |marked| marked.trim_end().chars().count()).max(1);
            // Tabs are kept, so that the caret stands under its character whatever their width.
            let indent: String = line[..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "  {number} | {line}")?;
            writeln!(f, "  {} | {indent}{}", " ".repeat(number.len()), "^".repeat(marked))?;
        }
        if let Some(suggestion) = &self.suggestion {
            writeln!(f, "  help: {suggestion}")?;
        }
        Ok(())
    }
}

/// Why a sync config was refused: all its problems, in the order of their places.
///
/// `Display` and `Debug` are the list as a terminal shows it: line and column, the line itself with a mark below the
/// place, the kind, and what to do.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    text: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(text: &str, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.level));
        list.dedup();
        let lines = Lines::new(text);
        for diagnostic in &mut list {
            (diagnostic.line, diagnostic.column) = lines.at(diagnostic.span.start);
            // A place that is more than the name, or writes it in another way, is left to a person.
            let written = text.get(diagnostic.span.clone()).map(str::to_lowercase);
            if diagnostic.named.take().map(|name| name.to_lowercase()) != written {
                diagnostic.replacement = None;
            }
        }
        Self { text: text.into(), list }
    }

    /// The problems, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// The same as a slice.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Whether any of them refuses the config.
    pub fn is_fatal(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.level == DiagnosticLevel::Fatal)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            diagnostic.render(&lines, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for crate::Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::invalid("the sync config is refused").caused_by(diagnostics)
    }
}

/// Collects problems while a config is compiled.
#[derive(Debug, Default)]
pub(super) struct Report {
    list: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn add(
        &mut self,
        level: DiagnosticLevel,
        kind: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.list.push(Diagnostic {
            level,
            kind,
            message: message.into(),
            span: span.start..span.end,
            line: 1,
            column: 1,
            suggestion: None,
            replacement: None,
            named: None,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub(super) fn fatal(&mut self, kind: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(DiagnosticLevel::Fatal, kind, span, message)
    }

    pub(super) fn warning(&mut self, kind: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(DiagnosticLevel::Warning, kind, span, message)
    }

    /// Whether nothing was reported.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The report as seen from an SQL text, whose spans are mapped into the YAML scalar that holds it.
    pub(super) fn of<'a>(&'a mut self, scalar: &'a Scalar) -> SqlReport<'a> {
        SqlReport { report: self, scalar }
    }

    pub(super) fn finish(self, text: &str) -> Diagnostics {
        Diagnostics::new(text, self.list)
    }
}

impl Diagnostic {
    pub(super) fn help(&mut self, suggestion: impl Into<String>) {
        self.suggestion = Some(suggestion.into());
    }

    /// Appends "did you mean" if there is a near name.
    pub(super) fn near(&mut self, name: &str, candidates: &[&str]) {
        if let Some(near) = nearest_name(name, candidates) {
            self.help(format!("did you mean `{near}`?"));
            (self.replacement, self.named) = (Some(near.to_owned()), Some(name.to_owned()));
        }
    }
}

/// A [`Report`] for one SQL text.
#[derive(Debug)]
pub(super) struct SqlReport<'a> {
    report: &'a mut Report,
    scalar: &'a Scalar,
}

impl SqlReport<'_> {
    /// The SQL text.
    pub(super) fn sql(&self) -> &str {
        self.scalar.text()
    }

    /// The place in the document of a span of the SQL text.
    pub(super) fn place(&self, span: Span) -> Span {
        self.scalar.map(span)
    }

    pub(super) fn fatal(&mut self, kind: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.fatal(kind, self.scalar.map(span), message)
    }

    pub(super) fn warning(&mut self, kind: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.warning(kind, self.scalar.map(span), message)
    }

    /// The same at a place of the document.
    pub(super) fn fatal_at(&mut self, kind: &'static str, place: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.fatal(kind, place, message)
    }

    /// The same at a place of the document.
    pub(super) fn warning_at(
        &mut self,
        kind: &'static str,
        place: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.report.warning(kind, place, message)
    }
}
