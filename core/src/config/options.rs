//! The options under `config`: the edition and the compatibility options.

use super::diagnostic::Report;
use super::document::{Node, NodeKind};
use super::outline::{EDITION, boolean, integer, map, unknown_key};
use super::span::Span;

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

/// Reads the options and returns the edition with its place, if it is written. `None` if the edition is not readable.
///
/// Names of buckets never repeat over deployments here, so `versioned_bucket_ids` and `storage_version` change nothing
/// and are accepted. An option that would change values is accepted only with the value that edition 3 has by itself.
pub(super) fn read(node: Option<&Node>, report: &mut Report) -> Option<(i64, Option<Span>)> {
    let Some(node) = node else { return Some((1, None)) };
    let entries = map(node, "expected-map", "`config`", report)?;
    let mut edition = Some((1, None));
    for (key, value) in entries {
        match key.text() {
            "edition" => {
                edition = integer(value).map(|edition| (edition, Some(value.span)));
                match edition {
                    None => {
                        report
                            .fatal("expected-number", value.span, "`edition` must be a number, without quotes")
                            .help("write `edition: 3`");
                    }
                    Some((1..=EDITION, _)) => {}
                    Some(_) => {
                        report
                            .fatal("schema-check", value.span, "`edition` must be 1, 2 or 3")
                            .help("write `edition: 3`");
                        edition = None;
                    }
                }
            }
            name @ ("timestamps_iso8601" | "fixed_json_extract" | "custom_postgres_types") => {
                if boolean(value, name, report) == Some(false) {
                    report
                        .fatal("not-supported-yet", value.span, format!("`{name}: false` is not supported yet"))
                        .help("remove the option: edition 3 turns it on");
                }
            }
            "versioned_bucket_ids" => {
                boolean(value, "versioned_bucket_ids", report);
            }
            name @ "unstable_sqlite_expression_engine" => {
                if boolean(value, name, report) == Some(true) {
                    report
                        .fatal("not-supported-yet", value.span, format!("`{name}` is not supported"))
                        .help("remove the option: expressions follow the official service's own rules, not SQLite's");
                }
            }
            "timestamp_max_precision" => precision(value, report),
            "storage_version" => match integer(value) {
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
            },
            _ => unknown_key(key, "in `config`", &KEYS, report),
        }
    }
    edition
}

fn precision(value: &Node, report: &mut Report) {
    let NodeKind::Scalar(scalar) = &value.kind else {
        report.fatal("expected-string", value.span, "`timestamp_max_precision` must be a word");
        return;
    };
    match scalar.text() {
        // Postgres has six digits, so that neither cuts anything.
        "microseconds" | "nanoseconds" => {}
        "seconds" | "milliseconds" => {
            let message = format!("`timestamp_max_precision: {}` is not supported yet", scalar.text());
            report.fatal("not-supported-yet", value.span, message);
        }
        other => {
            let known = ["seconds", "milliseconds", "microseconds", "nanoseconds"];
            let message = format!("`{other}` is not a precision: {}", known.join(", "));
            report.fatal("unknown-time-precision", value.span, message).near(other, &known);
        }
    }
}
