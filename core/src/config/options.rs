//! The options under `config`: the edition and the compatibility options.

use super::diagnostic::Report;
use super::document::{Node, NodeKind};
use super::outline::{EDITION, boolean, integer, map, unknown_key};
use crate::value_options::{TimePrecision, ValueOptions};

const KEYS: [&str; 8] = [
    "edition",
    "timestamps_iso8601",
    "versioned_bucket_ids",
    "fixed_json_extract",
    "custom_postgres_types",
    "unstable_sqlite_expression_engine",
    "timestamp_max_precision",
    "storage_version",
];

/// What `config` says, and for what it does not say, what its edition has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// `None` if it is not readable, which was reported.
    pub(super) edition: Option<i64>,
    /// Whether JSON paths follow the rules of edition 2.
    pub(super) fixed_json: bool,
    pub(super) values: ValueOptions,
}

impl Options {
    fn of_edition(edition: i64) -> Self {
        let values = ValueOptions::of_edition(edition);
        Self { edition: Some(edition), fixed_json: edition >= 2, values }
    }
}

/// Reads the options.
///
/// Names of buckets never repeat over deployments here, so `versioned_bucket_ids` and `storage_version` change nothing
/// and are accepted.
pub(super) fn read(node: Option<&Node>, report: &mut Report) -> Options {
    let Some(node) = node else { return Options::of_edition(1) };
    let unreadable = Options { edition: None, ..Options::of_edition(EDITION) };
    let Some(entries) = map(node, "expected-map", "`config`", report) else { return unreadable };
    let find = |name: &str| entries.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value);
    let mut options = match find("edition") {
        None => Options::of_edition(1),
        Some(value) => read_edition(value, report).map_or(unreadable, Options::of_edition),
    };
    for (key, value) in entries {
        match key.text() {
            "edition" => {}
            name @ "timestamps_iso8601" => set(&mut options.values.iso8601_timestamps, value, name, report),
            name @ "custom_postgres_types" => set(&mut options.values.custom_types, value, name, report),
            name @ "fixed_json_extract" => set(&mut options.fixed_json, value, name, report),
            name @ "versioned_bucket_ids" => {
                boolean(value, name, report);
            }
            "unstable_sqlite_expression_engine" | "timestamp_max_precision" => {}
            "storage_version" => storage_version(value, report),
            _ => unknown_key(key, "in `config`", &KEYS, report),
        }
    }
    if options.edition == Some(EDITION)
        && !options.fixed_json
        && let Some(value) = find("fixed_json_extract")
    {
        let message = "`fixed_json_extract: false` is not supported together with edition 3";
        report.fatal("not-supported-yet", value.span, message).help("remove the option: edition 3 turns it on");
    }
    if let Some(value) = find("unstable_sqlite_expression_engine") {
        sqlite_engine(options, node, value, report);
    }
    if let Some(value) = find("timestamp_max_precision") {
        options.values.max_precision = precision(value, report);
        if options.values.max_precision.is_some() && !options.values.iso8601_timestamps {
            report
                .fatal(
                    "precision-needs-iso8601",
                    node.span,
                    "`timestamp_max_precision` needs `timestamps_iso8601: true`",
                )
                .help("without it timestamps keep the digits that the database sends");
        }
    }
    options
}

fn read_edition(value: &Node, report: &mut Report) -> Option<i64> {
    match integer(value) {
        Some(edition @ 1..=EDITION) => Some(edition),
        Some(_) => {
            report.fatal("schema-check", value.span, "`edition` must be 1, 2 or 3").help("write `edition: 3`");
            None
        }
        None => {
            report
                .fatal("expected-number", value.span, "`edition` must be a number, without quotes")
                .help("write `edition: 3`");
            None
        }
    }
}

fn set(option: &mut bool, value: &Node, name: &str, report: &mut Report) {
    if let Some(truth) = boolean(value, name, report) {
        *option = truth;
    }
}

fn sqlite_engine(options: Options, node: &Node, value: &Node, report: &mut Report) {
    const NAME: &str = "unstable_sqlite_expression_engine";
    if boolean(value, NAME, report) != Some(true) {
        return;
    }
    let help = "remove the option: expressions follow the official service's own rules, not SQLite's";
    if options.edition.is_some_and(|edition| edition < EDITION) {
        report.fatal("sqlite-engine-needs-edition-3", node.span, format!("`{NAME}` needs edition 3")).help(help);
    } else if !options.fixed_json {
        report
            .fatal("sqlite-engine-needs-fixed-json", node.span, format!("`{NAME}` needs `fixed_json_extract: true`"))
            .help(help);
    } else {
        report.fatal("not-supported-yet", value.span, format!("`{NAME}` is not supported")).help(help);
    }
}

fn storage_version(value: &Node, report: &mut Report) {
    match integer(value) {
        Some(2) => {}
        Some(3) => {
            report.warning("storage-version-unstable", value.span, "storage version 3 is not stable");
        }
        Some(_) => {
            report
                .fatal("storage-version-unsupported", value.span, "the storage version must be 2 or 3")
                .help("remove the option: it changes nothing here");
        }
        None => {
            report.fatal("expected-number", value.span, "`storage_version` must be a number, without quotes");
        }
    }
}

fn precision(value: &Node, report: &mut Report) -> Option<TimePrecision> {
    let NodeKind::Scalar(scalar) = &value.kind else {
        report.fatal("expected-string", value.span, "`timestamp_max_precision` must be a word");
        return None;
    };
    let found = TimePrecision::find(scalar.text());
    if found.is_none() {
        let message = format!("`{}` is not a precision: {}", scalar.text(), TimePrecision::NAMES.join(", "));
        report.fatal("unknown-time-precision", value.span, message).near(scalar.text(), &TimePrecision::NAMES);
    }
    found
}
