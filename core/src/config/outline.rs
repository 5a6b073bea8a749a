//! The outline of a sync config: which streams there are, with their options and SQL texts, all of the right shape.

use super::diagnostic::{Diagnostic, Report};
use super::document::{Node, NodeKind};
use super::options;
use super::scalar::Scalar;
use super::span::Span;
use crate::bucket::BucketPriority;

/// The only edition that is compiled.
pub(super) const EDITION: i64 = 3;

/// What the YAML says, before any SQL is read.
#[derive(Debug, Default)]
pub(super) struct Outline {
    pub(super) streams: Vec<StreamOutline>,
    /// The named queries of the whole config.
    pub(super) with: Vec<(Scalar, Scalar)>,
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

const ROOT_KEYS: [&str; 5] = ["config", "streams", "bucket_definitions", "with", "event_definitions"];
const STREAM_KEYS: [&str; 6] =
    ["query", "queries", "with", "auto_subscribe", "priority", "accept_potentially_dangerous_queries"];

/// Reads the outline. Every problem is reported; what is usable is returned all the same, so that the SQL in it is
/// checked too.
pub(super) fn read(root: Option<&Node>, report: &mut Report) -> Outline {
    let start = Span::new(0, 0);
    let mut outline = Outline::default();
    let Some(root) = root else {
        missing_streams(report.fatal("no-definitions", start, "the sync config is empty"));
        return outline;
    };
    let Some(entries) = map(root, "root-not-a-map", "a sync config", report) else { return outline };
    for (key, _) in entries {
        if !ROOT_KEYS.contains(&key.text()) {
            unknown_key(key, "at the top of a sync config", &ROOT_KEYS, report);
        }
    }
    let find = |name: &str| entries.iter().find(|(key, _)| key.text() == name);
    let edition = options::read(find("config").map(|(_, node)| node), report);
    let (streams, definitions) = (find("streams"), find("bucket_definitions"));
    match edition {
        None => {}
        Some((edition, _)) if edition == EDITION => {
            if let Some((_, node)) = definitions {
                report
                    .fatal("bucket-definitions-in-edition-3", node.span, "edition 3 has no `bucket_definitions`")
                    .help("write each of them as an entry of `streams`");
            }
            if streams.is_none() {
                missing_streams(report.fatal("no-streams", start, "the sync config has no `streams`"));
            }
        }
        Some((edition, span)) => {
            if streams.is_none() && definitions.is_none() {
                missing_streams(report.fatal("no-definitions", start, "the sync config defines no streams"));
            }
            let at = span.or(definitions.or(streams).map(|(key, _)| key.span())).unwrap_or(start);
            report
                .fatal("not-supported-yet", at, format!("sync configs of edition {edition} are not supported yet"))
                .help("write `config: { edition: 3 }` and define `streams`");
        }
    }
    if let Some((key, _)) = find("event_definitions") {
        report.fatal("not-supported-yet", key.span(), "`event_definitions` is not supported yet");
    }
    if let Some((_, node)) = find("with") {
        outline.with = named_queries(node, report);
    }
    // The queries of an edition that is refused as a whole would only be refused for being of that edition.
    let supported = edition.is_none_or(|(edition, _)| edition == EDITION);
    if let Some((_, node)) = streams.filter(|_| supported) {
        for (name, node) in map(node, "expected-map", "`streams`", report).unwrap_or_default() {
            outline.streams.extend(stream(name, node, report));
        }
    }
    outline
}

fn missing_streams(diagnostic: &mut Diagnostic) {
    diagnostic.help("for example `streams: { everything: { auto_subscribe: true, query: 'SELECT * FROM \"%\"' } }`");
}

fn stream(name: &Scalar, node: &Node, report: &mut Report) -> Option<StreamOutline> {
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
                let NodeKind::Sequence(items) = &value.kind else {
                    report
                        .fatal(
                            "expected-sequence",
                            value.span,
                            format!("`queries` is {}, not a list", value.describe()),
                        )
                        .help("put `- ` before each query, or use `query` for a single one");
                    continue;
                };
                stream.queries.extend(items.iter().filter_map(|item| sql(item, report)));
            }
            "with" => stream.with = named_queries(value, report),
            "auto_subscribe" => stream.auto_subscribe = boolean(value, "auto_subscribe", report).unwrap_or(false),
            "accept_potentially_dangerous_queries" => {
                stream.accept_dangerous =
                    boolean(value, "accept_potentially_dangerous_queries", report).unwrap_or(false);
            }
            "priority" => match integer(value) {
                Some(priority @ 0..=3) => stream.priority = BucketPriority(priority as u8),
                _ => {
                    report
                        .fatal("bad-priority", value.span, "a priority is a number from 0 (first) to 3 (last)")
                        .help("0 is shown even while local writes wait for upload; the default is 3");
                }
            },
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
