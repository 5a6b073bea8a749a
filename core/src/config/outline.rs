//! The outline of a sync config: which streams, bucket definitions and events there are, with their options and SQL texts,
//! all of the right shape.

use super::diagnostic::{Diagnostic, Report};
use super::document::{Node, NodeKind};
use super::options::{self, Options};
use super::scalar::Scalar;
use super::span::Span;
use crate::bucket::BucketPriority;

/// The newest edition.
pub(super) const EDITION: i64 = 3;

/// What the YAML says, before any SQL is read.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) options: Options,
    pub(super) streams: Vec<StreamOutline>,
    /// The named queries of the whole config.
    pub(super) with: Vec<(Scalar, Scalar)>,
    pub(super) definitions: Vec<DefinitionOutline>,
    pub(super) events: Vec<EventOutline>,
}

/// One entry of `streams`.
#[derive(Debug)]
pub(super) struct StreamOutline {
    pub(super) name: Scalar,
    pub(super) queries: Vec<Scalar>,
    /// The named queries of this stream.
    pub(super) with: Vec<(Scalar, Scalar)>,
    pub(super) auto_subscribe: bool,
    pub(super) priority: BucketPriority,
    pub(super) accept_dangerous: bool,
}

/// One entry of `bucket_definitions`.
#[derive(Debug)]
pub(super) struct DefinitionOutline {
    pub(super) name: Scalar,
    /// `None`: there is one bucket, without parameters.
    pub(super) parameters: Option<Vec<Scalar>>,
    pub(super) data: Vec<Scalar>,
    /// `None` is the default, which a query may replace.
    pub(super) priority: Option<BucketPriority>,
    pub(super) accept_dangerous: bool,
}

/// One entry of `event_definitions`.
#[derive(Debug)]
pub(super) struct EventOutline {
    pub(super) name: Scalar,
    pub(super) payloads: Vec<Scalar>,
}

const ROOT_KEYS: [&str; 5] = ["config", "streams", "bucket_definitions", "with", "event_definitions"];
const STREAM_KEYS: [&str; 6] =
    ["query", "queries", "with", "auto_subscribe", "priority", "accept_potentially_dangerous_queries"];
const DEFINITION_KEYS: [&str; 4] = ["parameters", "data", "priority", "accept_potentially_dangerous_queries"];

/// Reads the outline; `None` if there is nothing to read. Every problem is reported; what is usable is returned all the same,
/// so that the SQL in it is checked too.
pub(super) fn read(root: Option<&Node>, report: &mut Report) -> Option<Outline> {
    let start = Span::new(0, 0);
    let Some(root) = root else {
        missing_streams(report.fatal("no-definitions", start, "the sync config is empty"));
        return None;
    };
    let entries = map(root, "root-not-a-map", "a sync config", report)?;
    for (key, _) in entries {
        if !ROOT_KEYS.contains(&key.text()) {
            unknown_key(key, "at the top of a sync config", &ROOT_KEYS, report);
        }
    }
    let find = |name: &str| entries.iter().find(|(key, _)| key.text() == name).map(|(_, node)| node);
    let options = options::read(find("config"), report);
    let mut outline =
        Outline { options, streams: Vec::new(), with: Vec::new(), definitions: Vec::new(), events: Vec::new() };
    let (streams, definitions) = (find("streams"), find("bucket_definitions"));
    // The queries of an edition that nobody knows would only be refused for being of another.
    let newest = options.edition.is_none_or(|edition| edition == EDITION);
    if options.edition == Some(EDITION) {
        if streams.is_none() {
            missing_streams(report.fatal("no-streams", start, "the sync config has no `streams`"));
        }
    } else if options.edition.is_some() && streams.is_none() && definitions.is_none() {
        missing_streams(report.fatal("no-definitions", start, "the sync config defines no streams"));
    }
    if let Some(node) = definitions {
        if options.edition == Some(EDITION) {
            report
                .fatal("bucket-definitions-in-edition-3", node.span, "edition 3 has no `bucket_definitions`")
                .help("write each of them as an entry of `streams`, or leave out `edition: 3`");
        } else if !newest {
            for (name, node) in map(node, "expected-map", "`bucket_definitions`", report).unwrap_or_default() {
                outline.definitions.extend(definition(name, node, report));
            }
        }
    }
    if let Some(node) = find("with") {
        if newest {
            outline.with = named_queries(node, report);
        } else {
            needs_newest("with-needs-edition-3", node, "`with`", report);
        }
    }
    if let Some(node) = streams {
        if !newest {
            report
                .warning("alpha-streams", node.span, "streams of edition 2 are an early form of those of edition 3")
                .help("write `config: { edition: 3 }`, which has joins, subqueries and named queries");
        }
        for (name, node) in map(node, "expected-map", "`streams`", report).unwrap_or_default() {
            if outline.definitions.iter().any(|known| known.name.text() == name.text()) {
                let message = format!("`{}` is a bucket definition already", name.text());
                report.fatal("duplicate-definition", name.span(), message).help("give one of them another name");
            }
            outline.streams.extend(stream(name, node, newest, report));
        }
        if options.edition == Some(1) {
            for query in outline.streams.drain(..).flat_map(|stream| stream.queries) {
                report
                    .fatal("streams-need-edition-2", query.span(), "edition 1 has no streams")
                    .help("write `config: { edition: 3 }`");
            }
        }
    }
    if let Some(node) = find("event_definitions") {
        for (name, node) in map(node, "expected-map", "`event_definitions`", report).unwrap_or_default() {
            outline.events.extend(event(name, node, report));
        }
    }
    Some(outline)
}

fn needs_newest(kind: &'static str, node: &Node, what: &str, report: &mut Report) {
    let message = format!("{what} needs edition 3");
    report.fatal(kind, node.span, message).help("write `config: { edition: 3 }`");
}

fn definition(name: &Scalar, node: &Node, report: &mut Report) -> Option<DefinitionOutline> {
    let entries = map(node, "expected-map", &format!("the bucket definition `{}`", name.text()), report)?;
    let mut definition = DefinitionOutline {
        name: name.clone(),
        parameters: None,
        data: Vec::new(),
        priority: None,
        accept_dangerous: false,
    };
    let mut has_data = false;
    for (key, value) in entries {
        match key.text() {
            "parameters" => {
                definition.parameters = Some(match &value.kind {
                    NodeKind::Scalar(scalar) => vec![scalar.clone()],
                    NodeKind::Sequence(items) => items.iter().filter_map(|item| sql(item, report)).collect(),
                    NodeKind::Map(_) => {
                        report
                            .fatal("expected-string", value.span, "`parameters` is a map, not a query")
                            .help("write one SELECT, or a list of them");
                        Vec::new()
                    }
                });
            }
            "data" => {
                has_data = true;
                definition.data = sql_list(value, "data", report);
            }
            "priority" => definition.priority = priority(value, report),
            name @ "accept_potentially_dangerous_queries" => {
                definition.accept_dangerous = boolean(value, name, report).unwrap_or(false);
            }
            _ => unknown_key(key, "in a bucket definition", &DEFINITION_KEYS, report),
        }
    }
    if !has_data {
        let message = format!("the bucket definition `{}` has no `data`", name.text());
        report.fatal("missing-key", node.span, message).help("give it a list of queries");
    }
    Some(definition)
}

fn event(name: &Scalar, node: &Node, report: &mut Report) -> Option<EventOutline> {
    let entries = map(node, "expected-map", &format!("the event `{}`", name.text()), report)?;
    let mut event = EventOutline { name: name.clone(), payloads: Vec::new() };
    let mut has_payloads = false;
    for (key, value) in entries {
        if key.text() == "payloads" {
            has_payloads = true;
            event.payloads = sql_list(value, "payloads", report);
        } else {
            unknown_key(key, "in an event", &["payloads"], report);
        }
    }
    if !has_payloads {
        let message = format!("the event `{}` has no `payloads`", name.text());
        report.fatal("missing-key", node.span, message).help("give it a list of queries");
    }
    Some(event)
}

fn missing_streams(diagnostic: &mut Diagnostic) {
    diagnostic.help("for example `streams: { everything: { auto_subscribe: true, query: 'SELECT * FROM \"%\"' } }`");
}

fn stream(name: &Scalar, node: &Node, newest: bool, report: &mut Report) -> Option<StreamOutline> {
    let entries = map(node, "expected-map", &format!("the stream `{}`", name.text()), report)?;
    let mut stream = StreamOutline {
        name: name.clone(),
        queries: Vec::new(),
        with: Vec::new(),
        auto_subscribe: false,
        priority: BucketPriority::DEFAULT,
        accept_dangerous: false,
    };
    let mut sources = 0;
    for (key, value) in entries {
        match key.text() {
            "query" => {
                sources += 1;
                stream.queries.extend(sql(value, report));
            }
            "queries" => {
                sources += 1;
                if newest {
                    stream.queries.extend(sql_list(value, "queries", report));
                } else {
                    needs_newest("queries-needs-edition-3", value, "`queries`", report);
                }
            }
            "with" if !newest => needs_newest("with-needs-edition-3", value, "`with`", report),
            "with" => stream.with = named_queries(value, report),
            "auto_subscribe" => stream.auto_subscribe = boolean(value, "auto_subscribe", report).unwrap_or(false),
            "accept_potentially_dangerous_queries" => {
                stream.accept_dangerous =
                    boolean(value, "accept_potentially_dangerous_queries", report).unwrap_or(false);
            }
            "priority" => stream.priority = priority(value, report).unwrap_or(BucketPriority::DEFAULT),
            _ => unknown_key(key, "in a stream", &STREAM_KEYS, report),
        }
    }
    if sources != 1 {
        let message = if sources == 0 { "has neither `query` nor `queries`" } else { "has both `query` and `queries`" };
        report
            .fatal("query-xor-queries", node.span, format!("the stream `{}` {message}", name.text()))
            .help("give it one of them: `query` for one SELECT, `queries` for a list");
    }
    Some(stream)
}

fn priority(value: &Node, report: &mut Report) -> Option<BucketPriority> {
    match integer(value) {
        Some(priority @ 0..=3) => Some(BucketPriority(priority as u8)),
        _ => {
            report
                .fatal("bad-priority", value.span, "a priority is a number from 0 (first) to 3 (last)")
                .help("0 is shown even while local writes wait for upload; the default is 3");
            None
        }
    }
}

fn sql_list(node: &Node, name: &str, report: &mut Report) -> Vec<Scalar> {
    let NodeKind::Sequence(items) = &node.kind else {
        let diagnostic =
            report.fatal("expected-sequence", node.span, format!("`{name}` is {}, not a list", node.describe()));
        diagnostic.help(if name == "queries" {
            "put `- ` before each query, or use `query` for a single one"
        } else {
            "put `- ` before each query"
        });
        return Vec::new();
    };
    items.iter().filter_map(|item| sql(item, report)).collect()
}

/// The entries of a `with` block: names and SQL texts.
fn named_queries(node: &Node, report: &mut Report) -> Vec<(Scalar, Scalar)> {
    let entries = map(node, "expected-map", "`with`", report).unwrap_or_default();
    entries.iter().filter_map(|(name, value)| Some((name.clone(), sql(value, report)?))).collect()
}

pub(super) fn unknown_key(key: &Scalar, place: &str, known: &[&str], report: &mut Report) {
    let diagnostic = report.fatal("unknown-key", key.span(), format!("there is no key `{}` {place}", key.text()));
    diagnostic.help(format!("the keys are {}", known.join(", ")));
    diagnostic.near(key.text(), known);
}

pub(super) fn map<'a>(
    node: &'a Node,
    kind: &'static str,
    what: &str,
    report: &mut Report,
) -> Option<&'a [(Scalar, Node)]> {
    match &node.kind {
        NodeKind::Map(entries) => Some(entries),
        _ => {
            report.fatal(kind, node.span, format!("{what} is {}, not a map of keys and values", node.describe()));
            None
        }
    }
}

/// An SQL text: any scalar. A number is read as its text, and refused as SQL.
fn sql(node: &Node, report: &mut Report) -> Option<Scalar> {
    match &node.kind {
        NodeKind::Scalar(scalar) => Some(scalar.clone()),
        _ => {
            let message = format!("an SQL query is expected here, and this is {}", node.describe());
            report.fatal("expected-scalar", node.span, message);
            None
        }
    }
}

pub(super) fn boolean(node: &Node, name: &str, report: &mut Report) -> Option<bool> {
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.plain() && matches!(scalar.text(), "true" | "True" | "TRUE") => Some(true),
        NodeKind::Scalar(scalar) if scalar.plain() && matches!(scalar.text(), "false" | "False" | "FALSE") => {
            Some(false)
        }
        _ => {
            report.fatal("expected-boolean", node.span, format!("`{name}` must be `true` or `false`, without quotes"));
            None
        }
    }
}

/// The integer that a plain scalar is in the core schema of YAML 1.2.
pub(super) fn integer(node: &Node) -> Option<i64> {
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.plain() => scalar.text().parse().ok(),
        _ => None,
    }
}
