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
    ServeHot,
    ClientSync,
    ClientPublish,
    LocalWriteSingle,
    LocalWriteBulk,
    Watch,
    PublishPause,
    LatencyP50,
    LatencyP99,
    Fanout1000,
    FanoutWebsocket,
    IdleConnectionBytes,
    IdleWebsocketBytes,
    ServerRssMb,
    CpuPerMillionRows,
    Evaluate,
    Resolve,
    BucketBytes,
    ManyBucketsStart,
    ManyBucketsChange,
    ManyBucketsRight,
    ManyRowsRight,
    StreamBucketBytes,
    CompactBytes,
    CompactEncode,
    CompactDecode,
    ServeCompact,
}

impl Name {
    pub(crate) const ALL: [Self; 34] = [
        Self::WalReceive,
        Self::ReplicateTxn1,
        Self::ReplicateTxn100,
        Self::ReplicateTxn10000,
        Self::Snapshot,
        Self::ServeNdjson,
        Self::ServeBson,
        Self::ServeHot,
        Self::ClientSync,
        Self::ClientPublish,
        Self::LocalWriteSingle,
        Self::LocalWriteBulk,
        Self::Watch,
        Self::PublishPause,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::Fanout1000,
        Self::FanoutWebsocket,
        Self::IdleConnectionBytes,
        Self::IdleWebsocketBytes,
        Self::ServerRssMb,
        Self::CpuPerMillionRows,
        Self::Evaluate,
        Self::Resolve,
        Self::BucketBytes,
        Self::ManyBucketsStart,
        Self::ManyBucketsChange,
        Self::ManyBucketsRight,
        Self::ManyRowsRight,
        Self::StreamBucketBytes,
        Self::CompactBytes,
        Self::CompactEncode,
        Self::CompactDecode,
        Self::ServeCompact,
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
            Self::ServeHot => "serve_hot",
            Self::ClientSync => "client_sync",
            Self::ClientPublish => "client_publish",
            Self::LocalWriteSingle => "local_write_single",
            Self::LocalWriteBulk => "local_write_bulk",
            Self::Watch => "watch",
            Self::PublishPause => "publish_pause",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP99 => "latency_p99",
            Self::Fanout1000 => "fanout_1000",
            Self::FanoutWebsocket => "fanout_websocket",
            Self::IdleConnectionBytes => "idle_connection_bytes",
            Self::IdleWebsocketBytes => "idle_websocket_bytes",
            Self::ServerRssMb => "server_rss_mb",
            Self::CpuPerMillionRows => "cpu_per_million_rows",
            Self::Evaluate => "evaluate",
            Self::Resolve => "resolve",
            Self::BucketBytes => "bucket_bytes",
            Self::ManyBucketsStart => "many_buckets_start",
            Self::ManyBucketsChange => "many_buckets_change",
            Self::ManyBucketsRight => "many_buckets_right",
            Self::ManyRowsRight => "many_rows_right",
            Self::StreamBucketBytes => "stream_bucket_bytes",
            Self::CompactBytes => "compact_bytes",
            Self::CompactEncode => "compact_encode",
            Self::CompactDecode => "compact_decode",
            Self::ServeCompact => "serve_compact",
        }
    }

    /// What the official service did; `None` where the other side is measured here.
    fn official(self) -> Option<f64> {
        Some(match self {
            Self::WalReceive
            | Self::ServeHot
            | Self::ClientPublish
            | Self::LocalWriteSingle
            | Self::LocalWriteBulk
            | Self::Watch
            | Self::PublishPause
            | Self::FanoutWebsocket
            | Self::IdleConnectionBytes
            | Self::IdleWebsocketBytes
            | Self::CpuPerMillionRows
            | Self::Evaluate
            | Self::Resolve
            | Self::BucketBytes
            | Self::ManyBucketsStart
            | Self::ManyBucketsChange
            | Self::ManyBucketsRight
            | Self::ManyRowsRight
            | Self::StreamBucketBytes
            | Self::CompactBytes
            | Self::CompactEncode
            | Self::CompactDecode
            | Self::ServeCompact => return None,
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
            Self::ServerRssMb => 433.0,
        })
    }

    /// How many times better ours is.
    fn ratio(self, ours: f64, against: f64) -> f64 {
        if matches!(self.unit(), "ms" | "bytes" | "MB" | "s") { against / ours } else { ours / against }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::ServeNdjson
            | Self::ServeBson
            | Self::ServeHot
            | Self::CompactEncode
            | Self::CompactDecode
            | Self::ServeCompact => "operations/s",
            Self::LatencyP50
            | Self::LatencyP99
            | Self::Fanout1000
            | Self::FanoutWebsocket
            | Self::Watch
            | Self::PublishPause
            | Self::ManyBucketsChange
            | Self::ManyBucketsRight
            | Self::ManyRowsRight => "ms",
            Self::Resolve => "requests/s",
            Self::BucketBytes
            | Self::IdleConnectionBytes
            | Self::IdleWebsocketBytes
            | Self::StreamBucketBytes
            | Self::CompactBytes => "bytes",
            Self::ServerRssMb => "MB",
            Self::CpuPerMillionRows => "s",
            _ => "rows/s",
        }
    }
}

/// A result beside what it is compared with.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) ours: f64,
    pub(crate) against: f64,
    pub(crate) unit: &'static str,
    /// How many times better ours is; below 1 it is worse.
    pub(crate) ratio: f64,
    /// Seconds of processor time that this process, server and client together, took for one run; 0 where that says nothing.
    processor: f64,
    note: String,
}

impl Figure {
    /// Against the official service alone.
    pub(crate) fn new(name: Name, ours: f64, note: impl Into<String>) -> Self {
        let against = name.official().unwrap_or(f64::NAN);
        Self {
            name: name.text(),
            ours,
            against,
            unit: name.unit(),
            ratio: name.ratio(ours, against),
            processor: 0.0,
            note: note.into(),
        }
    }

    /// Against something that was measured in the same run; the note says what the official service did, too.
    pub(crate) fn against(name: Name, ours: f64, against: f64, note: impl Into<String>) -> Self {
        let mut note = note.into();
        if let Some(official) = name.official() {
            note.push_str(&format!("; official service: {} ({:.1}x)", number(official), name.ratio(ours, official)));
        }
        Self { note, against, ratio: name.ratio(ours, against), ..Self::new(name, ours, "") }
    }

    /// The same with the processor time of a run.
    pub(crate) fn took(self, processor: f64) -> Self {
        Self { processor, ..self }
    }

    pub(crate) fn line(&self) -> String {
        let processor = if self.processor > 0.0 { format!("{:.2}", self.processor) } else { String::new() };
        format!(
            "{:<20} {:>12} {:>12}  {:<13} {:>7.2}x {processor:>7}  {}",
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
    let mut table = format!(
        "{:<20} {:>12} {:>12}  {:<13} {:>8} {:>7}  {}",
        "figure", "ours", "against", "unit", "ratio", "cpu s", "note"
    );
    for figure in figures {
        table.push('\n');
        table.push_str(&figure.line());
    }
    table
}

pub(crate) fn number(value: f64) -> String {
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
