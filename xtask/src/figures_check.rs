//! Whether `cargo figures` still measures everything that it should, with so few rows that the numbers mean nothing.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Every figure that there is.
const NAMES: [&str; 34] = [
    "wal_receive",
    "replicate_txn_1",
    "replicate_txn_100",
    "replicate_txn_10000",
    "snapshot",
    "serve_ndjson",
    "serve_bson",
    "serve_hot",
    "client_sync",
    "client_publish",
    "local_write_single",
    "local_write_bulk",
    "watch",
    "publish_pause",
    "latency_p50",
    "latency_p99",
    "fanout_1000",
    "fanout_websocket",
    "idle_connection_bytes",
    "idle_websocket_bytes",
    "server_rss_mb",
    "cpu_per_million_rows",
    "evaluate",
    "resolve",
    "bucket_bytes",
    "many_buckets_start",
    "many_buckets_change",
    "many_buckets_right",
    "many_rows_right",
    "stream_bucket_bytes",
    "compact_bytes",
    "compact_encode",
    "compact_decode",
    "serve_compact",
];
const TEXTS: [&str; 3] = ["name", "unit", "note"];
const NUMBERS: [&str; 3] = ["ours", "against", "ratio"];
/// May be 0.
const PROCESSOR: &str = "processor";

/// The arguments of a run that is over soon.
pub(crate) fn arguments() -> Vec<String> {
    let names = NAMES.join(",");
    let arguments = ["--only", &names, "--rows", "500", "--changes", "500", "--runs", "1", "--updates", "10", "--json"];
    arguments.map(str::to_owned).to_vec()
}

/// Looks at what the program has printed: one JSON object a line, with these names and fields, in this order.
pub(crate) fn check(printed: &str) -> Result<()> {
    let mut names = Vec::new();
    for line in printed.lines() {
        let figure: Value = serde_json::from_str(line).with_context(|| format!("a figure is no JSON: {line}"))?;
        let fields = figure.as_object().with_context(|| format!("a figure is no object: {line}"))?;
        ensure!(fields.len() == TEXTS.len() + NUMBERS.len() + 1, "a figure has other fields than it should: {line}");
        for name in TEXTS {
            ensure!(fields.get(name).is_some_and(Value::is_string), "`{name}` is no text: {line}");
        }
        for name in NUMBERS {
            let number = fields.get(name).and_then(Value::as_f64);
            ensure!(number.is_some_and(|number| number > 0.0), "`{name}` is no number above 0: {line}");
        }
        let processor = fields.get(PROCESSOR).and_then(Value::as_f64);
        ensure!(processor.is_some_and(|seconds| seconds >= 0.0), "`{PROCESSOR}` is no time: {line}");
        names.push(figure["name"].as_str().unwrap_or_default().to_owned());
    }
    ensure!(names == NAMES, "the figures are {names:?}, and should be {NAMES:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn figures_that_are_missing_or_lack_something_are_noticed() {
        let line = |name: &str| serde_json::json!({ "name": name, "ours": 2.0, "against": 1, "unit": "ms", "ratio": 0.5, "processor": 0, "note": "" });
        let all = |change: fn(&mut Value)| -> String {
            let mut figures = NAMES.map(line);
            change(&mut figures[3]);
            figures.iter().map(|figure| format!("{figure}\n")).collect()
        };
        check(&all(|_| {})).unwrap();
        for change in [
            (|figure| figure["name"] = "other".into()) as fn(&mut Value),
            |figure| figure["ratio"] = Value::Null,
            |figure| figure["ours"] = 0.into(),
            |figure| figure["unit"] = 1.into(),
            |figure| drop(figure.as_object_mut().unwrap().remove("note")),
            |figure| figure["more"] = 1.into(),
            |figure| figure["processor"] = Value::Null,
        ] {
            assert!(check(&all(change)).is_err());
        }
        assert!(check("").is_err());
        assert!(check(&all(|_| {}).lines().skip(1).collect::<Vec<_>>().join("\n")).is_err());
    }
}
