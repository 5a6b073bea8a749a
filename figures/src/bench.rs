//! What every figure needs: a cluster, tables, sources, stores and a server.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use postgres_fixture::{Cluster, ClusterOptions};
use syncline_core::memory::TokenIsUser;
use syncline_core::{BucketStore, Replicator, ServiceLimits, SyncConfig, SyncService};
use syncline_source_postgres::PostgresSource;
use syncline_storage_sqlite::SqliteBucketStore;
use syncline_transport_http as http;
use syncline_transport_ws as ws;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::figure::median;

/// No figure waits longer than this for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// One bucket with every row.
pub(crate) const SYNC_CONFIG: &str = "
config: { edition: 3 }
streams:
  todos:
    auto_subscribe: true
    query: SELECT * FROM todos
";

/// The shape of the rows: about 160 bytes on the wire.
const TABLE: &str = "CREATE TABLE todos (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), list_id uuid NOT NULL DEFAULT gen_random_uuid(), \
                     title text NOT NULL, done boolean NOT NULL DEFAULT false, created_at timestamptz NOT NULL DEFAULT now())";

pub(crate) struct Bench {
    pub(crate) rows: u64,
    pub(crate) changes: u64,
    pub(crate) runs: usize,
    /// Updates whose latency is measured.
    pub(crate) updates: u32,
    pub(crate) cluster: Cluster,
    folder: tempfile::TempDir,
    next: AtomicU64,
}

/// A database with the table and its publication.
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) sql: tokio_postgres::Client,
    pub(crate) slot: String,
}

/// A running replicator.
pub(crate) struct Running {
    pub(crate) store: SqliteBucketStore,
    task: Task,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    service: SyncService,
    task: Task,
}

/// A task that ends with its handle: one of a figure that failed must not run beside the next.
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Ends it, and waits until it has let go of everything.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        // That it was cancelled is no news.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bench {
    pub(crate) async fn start(rows: u64, changes: u64, runs: usize, updates: u32) -> Result<Self> {
        let cluster = ClusterOptions::new().fsync(true).start().await?;
        Ok(Self { rows, changes, runs, updates, cluster, folder: tempfile::tempdir()?, next: AtomicU64::new(0) })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A path for a file of its own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{}-{name}.db", self.number()))
    }

    /// A fresh database, with so many rows.
    pub(crate) async fn database(&self, rows: u64) -> Result<Source> {
        let name = format!("figures_{}", self.number());
        let url = self.cluster.create_database(&name).await?;
        let (sql, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        sql.batch_execute(TABLE).await?;
        sql.batch_execute("CREATE PUBLICATION syncline FOR TABLE todos").await?;
        let source = Source { url, sql, slot: name };
        source.insert(rows, rows.max(1)).await?;
        source.sql.batch_execute("ANALYZE todos; CHECKPOINT").await?;
        Ok(source)
    }

    /// Replicates into a new store.
    pub(crate) async fn replicate(&self, source: &Source) -> Result<Running> {
        let store = SqliteBucketStore::open(self.file("buckets")).await?;
        self.replicate_into(source, store)
    }

    /// The same by another sync config.
    pub(crate) async fn replicate_by(&self, source: &Source, sync_config: &str) -> Result<Running> {
        let store = SqliteBucketStore::open(self.file("buckets")).await?;
        run(source, sync_config, store)
    }

    /// Replicates into this store.
    pub(crate) fn replicate_into(&self, source: &Source, store: SqliteBucketStore) -> Result<Running> {
        run(source, SYNC_CONFIG, store)
    }

    /// Serves this store to everyone on a port of its own.
    pub(crate) async fn serve(&self, store: SqliteBucketStore) -> Result<Server> {
        Server::start(store).await
    }
}

impl Server {
    /// Serves this store to everyone on a port of its own.
    pub(crate) async fn start(store: SqliteBucketStore) -> Result<Self> {
        // All clients of a figure are one user.
        let limits = ServiceLimits { streams_per_user: usize::MAX, ..ServiceLimits::default() };
        let service = SyncService::with_limits(store, TokenIsUser, limits);
        let app = axum::Router::new().merge(http::router(service.clone())).merge(ws::router(service.clone()));
        let listener = http::Listener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", axum::serve::Listener::local_addr(&listener)?);
        let task = Task::spawn(http::serve(listener, app, std::future::pending()));
        Ok(Self { endpoint, service, task })
    }
}

impl Source {
    /// Inserts rows in transactions of `per_transaction`.
    pub(crate) async fn insert(&self, rows: u64, per_transaction: u64) -> Result<()> {
        let mut left = rows;
        while left > 0 {
            // Many transactions in one round trip: the server commits each by itself.
            let mut batch = String::new();
            for _ in 0..(2_000 / per_transaction).max(1) {
                let count = left.min(per_transaction);
                if count == 0 {
                    break;
                }
                batch.push_str(&format!(
                    "BEGIN; INSERT INTO todos (title) SELECT 'a todo with a title of an ordinary length, number ' || n \
                     FROM generate_series(1, {count}) n; COMMIT;"
                ));
                left -= count;
            }
            self.sql.batch_execute(&batch).await?;
        }
        Ok(())
    }

    /// The source as a server reads it.
    pub(crate) fn wal(&self) -> Result<PostgresSource> {
        Ok(PostgresSource::new(&self.url)?.publication("syncline").slot(self.slot.clone()))
    }
}

impl Running {
    /// Waits until a checkpoint with so many operations is published.
    pub(crate) async fn until_operations(&self, operations: u64) -> Result<()> {
        until_operations(&self.store, operations).await
    }

    /// Stops replication; the store stays open.
    pub(crate) async fn stop(self) -> SqliteBucketStore {
        self.task.stop().await;
        self.store
    }
}

/// Waits until the store shows so many operations or more.
pub(crate) async fn until_operations(store: &SqliteBucketStore, operations: u64) -> Result<()> {
    let wait = async {
        let mut checkpoints = store.checkpoints();
        while let Some(published) = checkpoints.next().await {
            let checkpoint = published?.checkpoint;
            let Some(definition) = checkpoint.config.definitions.first() else { continue };
            let bucket = syncline_core::BucketId { definition: definition.id, parameters: "[]".into() };
            let sums = store.checksums(checkpoint.op_id, &[bucket]).await?;
            if sums.first().is_some_and(|sum| sum.count >= operations) {
                return Ok(());
            }
        }
        bail!("the store ended its checkpoints")
    };
    tokio::time::timeout(DEADLINE, wait).await.context("replication did not arrive in time")?
}

impl Server {
    /// Its host and port.
    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.endpoint.strip_prefix("http://").context("the endpoint is no address")?.to_owned())
    }

    pub(crate) async fn stop(self) {
        self.service.close().await;
        self.task.stop().await;
    }
}

/// Wall and processor time of the runs of one side.
#[derive(Debug, Default)]
pub(crate) struct Times {
    wall: Vec<f64>,
    processor: Vec<f64>,
}

/// When a run began.
#[derive(Debug)]
pub(crate) struct Begun {
    wall: Instant,
    processor: f64,
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { wall: Instant::now(), processor: processor_seconds() }
    }
}

impl Times {
    /// A run that began then has ended.
    pub(crate) fn push(&mut self, begun: &Begun) {
        self.wall.push(begun.wall.elapsed().as_secs_f64());
        self.processor.push(processor_seconds() - begun.processor);
    }

    /// So many things a second, in the middle run.
    pub(crate) fn rate(&self, count: u64) -> f64 {
        count as f64 / median(self.wall.clone())
    }

    /// Seconds of processor time of this process in the middle run.
    pub(crate) fn processor(&self) -> f64 {
        median(self.processor.clone())
    }
}

/// Seconds of processor time of this process so far; 0 where the system does not tell.
pub(crate) fn processor_seconds() -> f64 {
    let read = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(ticks / 100.0)
    };
    read().unwrap_or_default()
}

/// A number of `/proc/self/status` that is given in kB, in bytes.
pub(crate) fn memory(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1_024.0)
}

/// The bytes of this process that are in memory.
pub(crate) fn resident() -> Result<u64> {
    Ok(memory("VmRSS:").context("this system does not tell how much memory a process holds")? as u64)
}

fn run(source: &Source, sync_config: &str, store: SqliteBucketStore) -> Result<Running> {
    let replicator = Replicator::new(source.wal()?, SyncConfig::parse(sync_config)?, store.clone());
    let running = replicator.run();
    let task = Task::spawn(async move {
        if let Err(error) = running.await {
            eprintln!("replication stopped: {error}");
        }
    });
    Ok(Running { store, task })
}
