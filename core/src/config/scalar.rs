//! Scalars of the YAML document, with the way back from their text to the place where each character stands.

use saphyr_parser::ScalarStyle;

use super::span::Span;

/// A YAML scalar: its text without quotes, escapes and folding, and where each of its bytes comes from.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    text: String,
    plain: bool,
    span: Span,
    /// For each byte of `text`, and for its end, the offset in the document; empty if the two could not be aligned.
    offsets: Vec<usize>,
}

impl Scalar {
    /// A scalar at `span` of `document`, whose text is `text`.
    pub(super) fn new(document: &str, span: Span, style: ScalarStyle, text: &str, decorated: bool) -> Self {
        let offsets = align(document, span, style, text, decorated).unwrap_or_default();
        let span = match (offsets.first(), offsets.last()) {
            (Some(first), Some(last)) if !text.is_empty() && !style_is_quoted(style) => Span::new(*first, *last),
            _ => span,
        };
        Self { text: text.to_owned(), plain: style == ScalarStyle::Plain, span, offsets }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is written without quotes, so that it may be a number, a boolean or null.
    pub(super) fn plain(&self) -> bool {
        self.plain
    }

    /// Where the scalar stands in the document.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Maps a span of [`text`](Self::text) to the document.
    pub(super) fn map(&self, span: Span) -> Span {
        let Some(&start) = self.offsets.get(span.start) else { return self.span };
        if span.end <= span.start {
            return Span::new(start, start);
        }
        // The end is just behind the last character, not before the next one: between them a line may have been folded.
        let mut last = span.end - 1;
        while last > span.start && !self.text.is_char_boundary(last) {
            last -= 1;
        }
        let width = self.text.get(last..span.end).map_or(1, str::len);
        match (self.offsets.get(last), self.offsets.get(span.end)) {
            (Some(&at), Some(&next)) => Span::new(start, (at + width).min(next.max(start))),
            _ => self.span,
        }
    }
}

fn style_is_quoted(style: ScalarStyle) -> bool {
    matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted)
}

/// Walks the source and the text side by side. `None` if they do not fit, which leaves positions coarse, never wrong.
fn align(document: &str, span: Span, style: ScalarStyle, text: &str, decorated: bool) -> Option<Vec<usize>> {
    let end = match style {
        // The scanner's end of a block scalar may lie on the next line; the walk stops by itself.
        ScalarStyle::Literal | ScalarStyle::Folded => document.len(),
        _ => span.end,
    };
    let mut at = span.start;
    if decorated {
        at = skip_properties(document, at, end);
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) && document[at..end].starts_with(['|', '>']) {
            at += document[at..end].find('\n')?;
        }
    }
    if style_is_quoted(style) {
        at += 1;
    }
    let source = |at: usize| document.get(at..end).and_then(|rest| rest.chars().next());
    let mut offsets = Vec::with_capacity(text.len() + 1);
    for c in text.chars() {
        let (from, next) = if style == ScalarStyle::DoubleQuoted {
            double_quoted(document, &mut at, end, c)?
        } else {
            if !c.is_whitespace() {
                while source(at).is_some_and(char::is_whitespace) {
                    at += source(at).map_or(0, char::len_utf8);
                }
            }
            match source(at) {
                Some(found) if found == c => {
                    let doubled = style == ScalarStyle::SingleQuoted && c == '\'';
                    (at, at + c.len_utf8() * if doubled { 2 } else { 1 })
                }
                Some(found) if c.is_whitespace() && found.is_whitespace() => (at, at + found.len_utf8()),
                _ if c.is_whitespace() => (at, at),
                _ => return None,
            }
        };
        offsets.extend(std::iter::repeat_n(from, c.len_utf8()));
        at = next;
    }
    offsets.push(at.min(document.len()));
    Some(offsets)
}

/// Skips anchors and tags before a node.
fn skip_properties(document: &str, mut at: usize, end: usize) -> usize {
    loop {
        let rest = &document[at..end];
        let blank = rest.len() - rest.trim_start().len();
        let rest = &rest[blank..];
        if !rest.starts_with(['&', '!']) {
            return at + blank;
        }
        at += blank + rest.find(char::is_whitespace).unwrap_or(rest.len());
    }
}

/// Where the text's character `c` stands inside a double-quoted scalar, and where the next one begins.
fn double_quoted(document: &str, at: &mut usize, end: usize, c: char) -> Option<(usize, usize)> {
    loop {
        let rest = document.get(*at..end)?;
        let found = rest.chars().next()?;
        if found != '\\' {
            if found == c {
                return Some((*at, *at + found.len_utf8()));
            }
            if !found.is_whitespace() {
                return None;
            }
            if c.is_whitespace() {
                return Some((*at, *at + found.len_utf8()));
            }
            *at += found.len_utf8();
            continue;
        }
        let escape = rest.chars().nth(1)?;
        if escape == '\n' || escape == '\r' {
            // An escaped line break joins two lines and stands for nothing.
            *at += 1 + rest[1..].len() - rest[1..].trim_start().len();
            continue;
        }
        if matches!(escape, ' ' | '\t') && !c.is_whitespace() {
            // A blank that was taken for the folded line break before it.
            *at += 2;
            continue;
        }
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        return Some((*at, *at + 1 + escape.len_utf8() + digits));
    }
}
