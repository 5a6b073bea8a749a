//! The memory that idle streams keep for each of their buckets, which many of them have.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, TokenIsUser};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Bytes, Identity, Replicator, ServiceLimits, SyncConfig, SyncService};

use crate::bench::{Bench, DEADLINE, resident};
use crate::errand::{Errand, Process};
use crate::figure::{Figure, Name};
use crate::occurrences::{COMPLETE, Occurrences};

const STREAMS: usize = 1_000;
const FEW: usize = 10;
const MANY: usize = 1_010;
/// What a further bucket may take.
const BUDGET: f64 = 64.0;

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  notes:
    auto_subscribe: true
    query: >
      SELECT * FROM notes
      WHERE list IN (SELECT list FROM lists WHERE kind = connection.parameter('kind'))
";

pub(crate) async fn bytes(_: &Bench) -> Result<Figure> {
    let bytes: f64 = Process::start(&Errand::StreamBuckets)?.says().await?;
    let note = format!(
        "resident bytes of an idle stream for each bucket beyond {FEW}, up to {MANY} that {STREAMS} streams have; \
         constant: the budget"
    );
    Ok(Figure::against(Name::StreamBucketBytes, bytes, BUDGET, note))
}

/// The slope, in a process that has done nothing else.
pub(crate) async fn measure() -> Result<f64> {
    let source = MemorySource::new().table("notes", ["id", "list"]).table("lists", ["id", "list", "kind"]);
    source.transaction(|tx| {
        for number in 0..MANY {
            let list = format!("list{number}");
            tx.put("notes", json!({ "id": format!("note{number}"), "list": list }))?;
            tx.put("lists", json!({ "id": format!("many{number}"), "list": list, "kind": "many" }))?;
            if number < FEW {
                tx.put("lists", json!({ "id": format!("few{number}"), "list": list, "kind": "few" }))?;
            }
        }
        Ok(())
    })?;
    let store = MemoryBucketStore::new();
    let limits =
        ServiceLimits { buckets_per_stream: 2 * MANY, streams_per_user: usize::MAX, ..ServiceLimits::default() };
    let service = SyncService::with_limits(store.clone(), TokenIsUser, limits);
    let replicator = tokio::spawn(Replicator::new(source, SyncConfig::parse(SYNC_CONFIG)?, store).run());
    // What the first streams leave in the hands of the allocator, later ones use.
    let first = open(&service, "many").await?;
    let (few, _few) = grown(&service, "few").await?;
    let (many, _many) = grown(&service, "many").await?;
    replicator.abort();
    drop(first);
    Ok((many - few) / (STREAMS * (MANY - FEW)) as f64)
}

type Stream = BoxStream<'static, syncline_core::Result<Bytes>>;

/// By how much the process grows with the streams of users who have these buckets.
async fn grown(service: &SyncService, kind: &str) -> Result<(f64, Vec<Stream>)> {
    let before = resident()?;
    let mut streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        streams.push(open(service, kind).await?);
    }
    Ok((resident()? as f64 - before as f64, streams))
}

/// A stream that has all that there is.
async fn open(service: &SyncService, kind: &str) -> Result<Stream> {
    let request: SyncRequest = serde_json::from_value(json!({ "parameters": { "kind": kind } }))?;
    let mut stream = service.stream(Identity::new("anna"), request, Framing::Ndjson)?;
    let mut seen = Occurrences::of(COMPLETE);
    let mut complete = 0;
    while complete == 0 {
        let next = tokio::time::timeout(DEADLINE, stream.next()).await.context("a stream is silent")?;
        complete = seen.count(&next.context("a stream ended")??);
    }
    ensure!(complete == 1, "a stream is complete once");
    Ok(stream)
}
