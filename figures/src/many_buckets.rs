//! A user of ten thousand buckets, in memory: the first sync, one changed row, and one more right, of two shapes.
//!
//! The other side is a user of ten buckets of the same store, or the same rows in one bucket: what a user costs should not
//! depend on how many buckets there are, but on what changes.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, TokenIsUser};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Identity, Replicator, SyncConfig, SyncService};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bench::{Bench, DEADLINE};
use crate::figure::{Figure, Name, median};
use crate::occurrences::{COMPLETE, Occurrences};

const MANY: usize = 10_000;
const FEW: usize = 10;
/// Users of so many are compared with both.
const SOME: usize = 1_000;
/// Changes that are measured.
const CHANGES: usize = 25;

const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  tasks:
    auto_subscribe: true
    query: >
      SELECT tasks.* FROM tasks JOIN projects ON projects.id = tasks.project JOIN members ON members.org = projects.org
      WHERE members.user_id = auth.user_id()
  all_tasks:
    query: SELECT * FROM tasks
";

/// A server whose users are members of organisations with one project of one task each.
struct Server {
    source: MemorySource,
    service: SyncService,
    replicator: JoinHandle<syncline_core::Result<()>>,
    /// Projects that were added.
    added: usize,
}

/// A stream that is read as fast as it comes.
struct Reader {
    completions: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<Result<()>>,
}

impl Server {
    fn start() -> Result<Self> {
        let source = MemorySource::new()
            .table("tasks", ["id", "project", "title"])
            .table("projects", ["id", "org"])
            .table("members", ["id", "user_id", "org"]);
        source.transaction(|tx| {
            for number in 0..MANY {
                let (org, project) = (format!("org{number}"), format!("project{number}"));
                tx.put("projects", json!({ "id": project, "org": org }))?;
                tx.put("tasks", json!({ "id": format!("task{number}"), "project": project, "title": "as it was" }))?;
                tx.put("members", json!({ "id": format!("many{number}"), "user_id": "many", "org": org }))?;
                for (user, buckets) in [("few", FEW), ("some", SOME)] {
                    if number < buckets {
                        tx.put("members", json!({ "id": format!("{user}{number}"), "user_id": user, "org": org }))?;
                    }
                }
            }
            Ok(())
        })?;
        let store = MemoryBucketStore::new();
        let limits = syncline_core::ServiceLimits { buckets_per_stream: 2 * MANY, ..Default::default() };
        let service = SyncService::with_limits(store.clone(), TokenIsUser, limits);
        let replicator = tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(SYNC_CONFIG)?, store).run());
        Ok(Self { source, service, replicator, added: 0 })
    }

    /// Opens a stream, and reads it until it is complete once.
    async fn open(&self, user: &str, request: SyncRequest) -> Result<Reader> {
        let mut stream = self.service.stream(Identity::new(user), request, Framing::Ndjson)?;
        let (report, completions) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut seen = Occurrences::of(COMPLETE);
            while let Some(bytes) = stream.next().await {
                for _ in 0..seen.count(&bytes?) {
                    report.send(())?;
                }
            }
            Ok(())
        });
        let mut reader = Reader { completions, task };
        reader.complete().await?;
        Ok(reader)
    }

    /// Milliseconds from a commit to the completion that has it, in the middle of many; `FEW` users have the same row.
    async fn after(&mut self, reader: &mut Reader, change: impl Fn(&Self, usize) -> Result<()>) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..CHANGES {
            self.added += 1;
            let began = Instant::now();
            change(self, self.added)?;
            reader.complete().await?;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(median(times))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.replicator.abort();
    }
}

impl Reader {
    async fn complete(&mut self) -> Result<()> {
        match tokio::time::timeout(DEADLINE, self.completions.recv()).await.context("nothing was completed in time")? {
            Some(()) => Ok(()),
            None => bail!("the stream ended"),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Rows a second, in as many buckets, against the same rows in one.
pub(crate) async fn start(bench: &Bench) -> Result<Figure> {
    let server = Server::start()?;
    let streams = json!({ "include_defaults": false, "subscriptions": [{ "stream": "all_tasks" }] });
    let one_bucket: SyncRequest = serde_json::from_value(json!({ "streams": streams }))?;
    // Until all is replicated.
    server.open("many", SyncRequest::default()).await?;
    let (mut ours, mut against) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        for (user, request, rates) in
            [("many", SyncRequest::default(), &mut ours), ("nobody", one_bucket.clone(), &mut against)]
        {
            let began = Instant::now();
            server.open(user, request).await?;
            rates.push(MANY as f64 / began.elapsed().as_secs_f64());
        }
    }
    let note = format!("first sync of {MANY} buckets of one row, found by as many lookups; against one bucket of them");
    Ok(Figure::against(Name::ManyBucketsStart, median(ours), median(against), note))
}

/// Until a changed row has come.
pub(crate) async fn change(_: &Bench) -> Result<Figure> {
    let note = format!("a changed row to a user of {MANY} buckets; against the same to one of {FEW}");
    compare(Name::ManyBucketsChange, note, change_row).await
}

fn change_row(server: &Server, number: usize) -> Result<()> {
    let row = json!({ "id": "task1", "project": "project1", "title": format!("changed {number} times") });
    Ok(server.source.put("tasks", row)?)
}

/// Until the rows of a right that was given have come.
pub(crate) async fn right(_: &Bench) -> Result<Figure> {
    let note = format!("one bucket more for a user of {MANY}; against the same for one of {FEW}");
    compare(Name::ManyBucketsRight, note, add_bucket).await
}

fn add_bucket(server: &Server, number: usize) -> Result<()> {
    let project = format!("another{number}");
    Ok(server.source.transaction(|tx| {
        tx.put("tasks", json!({ "id": format!("of {project}"), "project": project, "title": "new" }))?;
        tx.put("projects", json!({ "id": project, "org": "org1" }))
    })?)
}

/// Milliseconds that a user's stream takes.
#[derive(Debug)]
pub(crate) struct UserTook {
    /// Until it is complete for the first time.
    pub(crate) first: f64,
    /// Until a changed row has come.
    pub(crate) change: f64,
    /// Until the rows of one more bucket have come.
    pub(crate) right: f64,
}

/// What it takes with 10, 1 000 or 10 000 buckets.
pub(crate) async fn of(buckets: usize) -> Result<UserTook> {
    let user = match buckets {
        FEW => "few",
        SOME => "some",
        MANY => "many",
        _ => bail!("nobody has {buckets} buckets"),
    };
    let mut server = Server::start()?;
    // Until all is replicated.
    server.open("few", SyncRequest::default()).await?;
    let mut firsts = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        server.open(user, SyncRequest::default()).await?;
        firsts.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let mut reader = server.open(user, SyncRequest::default()).await?;
    let change = server.after(&mut reader, change_row).await?;
    let right = server.after(&mut reader, add_bucket).await?;
    Ok(UserTook { first: median(firsts), change, right })
}

/// The same where the user's lookup has as many rows, one of which is new.
pub(crate) async fn right_beside_many_rows(_: &Bench) -> Result<Figure> {
    let note =
        format!("one row more under a lookup key of {MANY}, and its bucket; against the same under a key of {FEW}");
    let joins = |user: &'static str| {
        move |server: &Server, number: usize| {
            let (org, project) = (format!("of {user} {number}"), format!("of {user} {number}"));
            Ok(server.source.transaction(|tx| {
                tx.put("tasks", json!({ "id": format!("of {project}"), "project": project, "title": "new" }))?;
                tx.put("projects", json!({ "id": project, "org": org }))?;
                tx.put("members", json!({ "id": format!("{user} in {org}"), "user_id": user, "org": org }))
            })?)
        }
    };
    let mut server = Server::start()?;
    let mut times = Vec::new();
    for user in ["many", "few"] {
        let mut reader = server.open(user, SyncRequest::default()).await?;
        times.push(server.after(&mut reader, joins(user)).await?);
    }
    Ok(Figure::against(Name::ManyRowsRight, times[0], times[1], note))
}

async fn compare(name: Name, note: String, change: impl Fn(&Server, usize) -> Result<()> + Copy) -> Result<Figure> {
    let mut server = Server::start()?;
    let mut times = Vec::new();
    for user in ["many", "few"] {
        let mut reader = server.open(user, SyncRequest::default()).await?;
        times.push(server.after(&mut reader, change).await?);
    }
    Ok(Figure::against(name, times[0], times[1], note))
}
