//! The YAML document as a tree of nodes with their places.

use saphyr_parser::{Event, Parser, Tag};

use super::diagnostic::Report;
use super::scalar::Scalar;
use super::span::Span;

/// Maps and sequences inside each other; far more than any config needs.
const DEPTH: usize = 32;

/// A node of the document.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: NodeKind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    /// Keys are scalars and distinct.
    Map(Vec<(Scalar, Node)>),
    Sequence(Vec<Node>),
    Scalar(Scalar),
}

impl Node {
    /// What it is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Map(_) => "a map",
            NodeKind::Sequence(_) => "a list",
            NodeKind::Scalar(scalar) if scalar.text().is_empty() && scalar.plain() => "nothing",
            NodeKind::Scalar(_) => "a single value",
        }
    }
}

/// A map or sequence that is not closed yet.
#[derive(Debug)]
enum Open {
    Map { start: usize, entries: Vec<(Scalar, Node)>, key: Option<Scalar>, skip: bool },
    Sequence { start: usize, items: Vec<Node> },
}

/// Reads the only document of `text`. `None` if it is empty, or after a problem was reported.
pub(super) fn read(text: &str, report: &mut Report) -> Option<Node> {
    let mut builder = Builder {
        text,
        offsets: text.char_indices().map(|(at, _)| at).chain([text.len()]).collect(),
        open: Vec::new(),
        root: None,
        end: 0,
        failed: false,
    };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = builder.byte(error.marker().index());
                report.fatal("yaml-syntax", Span::new(at, at), format!("not valid YAML: {}", error.info()));
                return None;
            }
        };
        let span = Span::new(builder.byte(span.start.index()), builder.byte(span.end.index()));
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                report.fatal("yaml-syntax", span, "a sync config is one YAML document, and here a second one begins");
                return None;
            }
        }
        builder.handle(event, span, report)?;
    }
    if builder.failed { None } else { builder.root }
}

#[derive(Debug)]
struct Builder<'a> {
    text: &'a str,
    /// Byte offset of each character, as the scanner counts characters.
    offsets: Vec<usize>,
    open: Vec<Open>,
    root: Option<Node>,
    /// Where the last node with content ended: the scanner ends a block map at the next token.
    end: usize,
    failed: bool,
}

impl Builder<'_> {
    fn byte(&self, character: usize) -> usize {
        self.offsets.get(character).copied().unwrap_or(self.text.len())
    }

    /// `None` stops the reading, after a report.
    fn handle(&mut self, event: Event<'_>, span: Span, report: &mut Report) -> Option<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::Alias(_) => {
                report
                    .fatal("yaml-syntax", span, "YAML aliases are not supported in a sync config")
                    .help("write the value out");
                self.failed = true;
                // A stand-in keeps keys and values in step, so that later problems are found as well.
                let scalar = Scalar::new(self.text, span, saphyr_parser::ScalarStyle::Plain, "", false);
                self.place(Node { span, kind: NodeKind::Scalar(scalar) }, report);
            }
            Event::Scalar(value, style, anchor, tag) => {
                let decorated = anchor != 0 || tag.is_some();
                let scalar = Scalar::new(self.text, span, style, &value, decorated);
                self.end = self.end.max(scalar.span().end);
                self.check_tag(tag.as_deref(), span, report);
                self.place(Node { span: scalar.span(), kind: NodeKind::Scalar(scalar) }, report);
            }
            Event::MappingStart(_, tag) => {
                self.check_tag(tag.as_deref(), span, report);
                self.open(Open::Map { start: span.start, entries: Vec::new(), key: None, skip: false }, span, report)?;
            }
            Event::SequenceStart(_, tag) => {
                self.check_tag(tag.as_deref(), span, report);
                self.open(Open::Sequence { start: span.start, items: Vec::new() }, span, report)?;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                // A flow collection ends with its bracket, a block collection with its last node.
                if span.end > span.start {
                    self.end = self.end.max(span.end);
                }
                let (start, kind) = match self.open.pop()? {
                    Open::Map { start, entries, .. } => (start, NodeKind::Map(entries)),
                    Open::Sequence { start, items } => (start, NodeKind::Sequence(items)),
                };
                self.place(Node { span: Span::new(start, self.end), kind }, report);
            }
        }
        Some(())
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span, report: &mut Report) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            report
                .fatal("yaml-syntax", span, format!("the YAML tag `{tag}` means nothing in a sync config"))
                .help("remove it");
            self.failed = true;
        }
    }

    fn open(&mut self, open: Open, span: Span, report: &mut Report) -> Option<()> {
        if self.open.len() >= DEPTH {
            report.fatal("yaml-syntax", span, format!("more than {DEPTH} maps and lists inside each other"));
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn place(&mut self, node: Node, report: &mut Report) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, skip, .. }) => {
                if *skip {
                    *skip = false;
                } else if let Some(key) = key.take() {
                    entries.push((key, node));
                } else {
                    match node.kind {
                        NodeKind::Scalar(scalar) if entries.iter().any(|(other, _)| other.text() == scalar.text()) => {
                            let message = format!("the key `{}` is here for the second time", scalar.text());
                            report.fatal("yaml-duplicate-key", node.span, message).help("remove or rename one of them");
                            *skip = true;
                            self.failed = true;
                        }
                        NodeKind::Scalar(scalar) => *key = Some(scalar),
                        _ => {
                            report.fatal("expected-string", node.span, "a key must be a single value");
                            *skip = true;
                            self.failed = true;
                        }
                    }
                }
            }
        }
    }
}
