//! Diagnostics as editors take them: ranges of lines and UTF-16 units, and edits that mend.

use serde::Serialize;

use super::diagnostic::{Diagnostic, DiagnosticLevel};
use super::lines::Lines;

/// A [`Diagnostic`] as data for an editor, in the terms of the Language Server Protocol 3.17: lines and characters count from
/// 0, characters in UTF-16 units (<https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/>).
/// As JSON its members have the names that are used there, and `suggestion` and `replacement` besides.
///
/// ```
/// use syncline_core::{EditorDiagnostic, SyncConfig};
///
/// let text = "config: { edition: 3 }\nstreams:\n  s: { qury: SELECT * FROM lists }";
/// let problems = SyncConfig::parse(text).unwrap_err();
/// let shown = EditorDiagnostic::all(text, problems.as_slice());
/// let json = serde_json::to_value(&shown[1]).unwrap();
/// assert_eq!(json["code"], "unknown-key");
/// assert_eq!(json["range"]["start"], serde_json::json!({ "line": 2, "character": 7 }));
/// assert_eq!(json["replacement"], "query");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EditorDiagnostic {
    /// Where.
    pub range: EditorRange,
    /// 1 is an error, which refuses the config, and 2 a warning.
    pub severity: u8,
    /// The kind of problem.
    pub code: &'static str,
    /// `syncline`.
    pub source: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// A text that mends it when it takes the place of the range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
}

/// From a position up to, and without, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EditorRange {
    /// The first character.
    pub start: EditorPosition,
    /// The character after the last.
    pub end: EditorPosition,
}

/// A place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EditorPosition {
    /// From 0.
    pub line: usize,
    /// In UTF-16 units, from 0.
    pub character: usize,
}

impl EditorDiagnostic {
    /// All of these; `text` is the YAML text that they are of.
    pub fn all<'a>(text: &str, diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<Self> {
        let lines = Lines::new(text);
        let position = |at: usize| {
            let (line, start) = lines.line(at);
            let before = text.get(start..at).unwrap_or_default();
            EditorPosition { line: line - 1, character: before.encode_utf16().count() }
        };
        let one = |diagnostic: &Diagnostic| Self {
            range: EditorRange { start: position(diagnostic.span.start), end: position(diagnostic.span.end) },
            severity: match diagnostic.level {
                DiagnosticLevel::Fatal => 1,
                DiagnosticLevel::Warning => 2,
            },
            code: diagnostic.kind,
            source: "syncline",
            message: diagnostic.message.clone(),
            suggestion: diagnostic.suggestion.clone(),
            replacement: diagnostic.replacement.clone(),
        };
        diagnostics.into_iter().map(one).collect()
    }
}
