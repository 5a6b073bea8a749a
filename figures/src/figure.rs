//! One measured figure, and how it is printed.

use serde::Serialize;

/// The figures that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    WalReceive,
    ReplicateTxn1,
    ReplicateTxn100,
    ReplicateTxn10000,
    Snapshot,
    ServeNdjson,
    ServeBson,
    ClientSync,
    LatencyP50,
    LatencyP99,
    Fanout1000,
    Evaluate,
    Resolve,
    BucketBytes,
    ManyBucketsStart,
    ManyBucketsChange,
    ManyBucketsRight,
}

impl Name {
    pub(crate) const ALL: [Self; 17] = [
        Self::WalReceive,
        Self::ReplicateTxn1,
        Self::ReplicateTxn100,
        Self::ReplicateTxn10000,
        Self::Snapshot,
        Self::ServeNdjson,
        Self::ServeBson,
        Self::ClientSync,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::Fanout1000,
        Self::Evaluate,
        Self::Resolve,
        Self::BucketBytes,
        Self::ManyBucketsStart,
        Self::ManyBucketsChange,
        Self::ManyBucketsRight,
    ];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::WalReceive => "wal_receive",
            Self::ReplicateTxn1 => "replicate_txn_1",
            Self::ReplicateTxn100 => "replicate_txn_100",
            Self::ReplicateTxn10000 => "replicate_txn_10000",
            Self::Snapshot => "snapshot",
            Self::ServeNdjson => "serve_ndjson",
            Self::ServeBson => "serve_bson",
            Self::ClientSync => "client_sync",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP99 => "latency_p99",
            Self::Fanout1000 => "fanout_1000",
            Self::Evaluate => "evaluate",
            Self::Resolve => "resolve",
            Self::BucketBytes => "bucket_bytes",
            Self::ManyBucketsStart => "many_buckets_start",
            Self::ManyBucketsChange => "many_buckets_change",
            Self::ManyBucketsRight => "many_buckets_right",
        }
    }

    /// What the official service did; `None` where the other side is measured here.
    fn official(self) -> Option<f64> {
        Some(match self {
            Self::WalReceive
            | Self::Evaluate
            | Self::Resolve
            | Self::BucketBytes
            | Self::ManyBucketsStart
            | Self::ManyBucketsChange
            | Self::ManyBucketsRight => return None,
            Self::ReplicateTxn1 => 4_100.0,
            Self::ReplicateTxn100 => 5_400.0,
            Self::ReplicateTxn10000 => 4_900.0,
            Self::Snapshot => 4_600.0,
            Self::ServeNdjson => 10_600.0,
            Self::ServeBson => 13_900.0,
            Self::ClientSync => 9_600.0,
            Self::LatencyP50 => 185.0,
            Self::LatencyP99 => 274.0,
            Self::Fanout1000 => 2_200.0,
        })
    }

    fn unit(self) -> &'static str {
        match self {
            Self::ServeNdjson | Self::ServeBson => "operations/s",
            Self::LatencyP50
            | Self::LatencyP99
            | Self::Fanout1000
            | Self::ManyBucketsChange
            | Self::ManyBucketsRight => "ms",
            Self::Resolve => "requests/s",
            Self::BucketBytes => "bytes",
            _ => "rows/s",
        }
    }
}

/// A result beside what it is compared with.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: &'static str,
    ours: f64,
    against: f64,
    unit: &'static str,
    /// How many times better ours is; below 1 it is worse.
    ratio: f64,
    note: String,
}

impl Figure {
    /// Against the official service.
    pub(crate) fn new(name: Name, ours: f64, note: impl Into<String>) -> Self {
        Self::against(name, ours, name.official().unwrap_or(f64::NAN), note)
    }

    /// Against something that was measured in the same run.
    pub(crate) fn against(name: Name, ours: f64, against: f64, note: impl Into<String>) -> Self {
        let unit = name.unit();
        let ratio = if matches!(unit, "ms" | "bytes") { against / ours } else { ours / against };
        Self { name: name.text(), ours, against, unit, ratio, note: note.into() }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{:<20} {:>12} {:>12}  {:<13} {:>7.2}x  {}",
            self.name,
            number(self.ours),
            number(self.against),
            self.unit,
            self.ratio,
            self.note
        )
    }
}

/// All figures, one a line.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut table =
        format!("{:<20} {:>12} {:>12}  {:<13} {:>8}  {}", "figure", "ours", "against", "unit", "ratio", "note");
    for figure in figures {
        table.push('\n');
        table.push_str(&figure.line());
    }
    table
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 50)
}

/// The value of a sorted list that so many per cent lie at or below.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let index = (values.len().saturating_sub(1)) * percent / 100;
    values.get(index).copied().unwrap_or(f64::NAN)
}
