//! What ends replication at its first start is waited for later: a node in recovery, a right that was taken away, a
//! password that is being changed.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use postgres_fixture::{Cluster, ClusterOptions};
use syncline_core::memory::MemoryBucketStore;
use syncline_core::{
    BucketStore, ClientKey, ErrorKind, Published, ReplicationPhase, Replicator, Source, SyncConfig,
    WriteCheckpointRequest,
};
use syncline_source_postgres::PostgresSource;
use tokio::task::JoinHandle;

use crate::bench_database::{Database, LIMIT, tables};
use crate::replica::Replica;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'first');";
const CONFIG: &str =
    "config: { edition: 3 }\nstreams:\n  everything:\n    auto_subscribe: true\n    query: SELECT * FROM t\n";

/// A replicator that runs, as a server has one.
struct Running {
    replicator: Replicator,
    store: MemoryBucketStore,
    checkpoints: BoxStream<'static, syncline_core::Result<Published>>,
    task: JoinHandle<syncline_core::Result<()>>,
}

impl Running {
    async fn start(source: PostgresSource) -> Self {
        let store = MemoryBucketStore::default();
        let replicator = Replicator::new(source, SyncConfig::parse(CONFIG).unwrap(), store.clone());
        let checkpoints = store.checkpoints();
        let task = tokio::spawn(replicator.run());
        let mut running = Self { replicator, store, checkpoints, task };
        running.catch_up().await;
        running
    }

    /// Waits until what was written before is published.
    async fn catch_up(&mut self) {
        let client = ClientKey("someone".into());
        let wanted = self.store.request_write_checkpoint(&client, WriteCheckpointRequest::Next).await.unwrap();
        loop {
            let Ok(published) = tokio::time::timeout(LIMIT, self.checkpoints.next()).await else {
                panic!("nothing is published: {:?}", self.replicator.status())
            };
            let at = published.unwrap().unwrap().checkpoint.op_id;
            let shown = self.store.write_checkpoints(at, std::slice::from_ref(&client)).await.unwrap();
            if shown[0] >= Some(wanted) {
                return;
            }
        }
    }

    /// Waits until the status names this reason; replication must not have ended.
    async fn waits_for(&self, reason: &str) {
        let began = Instant::now();
        loop {
            let status = self.replicator.status();
            assert!(!self.task.is_finished(), "replication ended: {status:?}");
            let told = status.error.as_deref().unwrap_or_default();
            if status.phase == ReplicationPhase::Waiting && told.contains(reason) {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{reason} is not told: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn own(options: ClusterOptions) -> (Cluster, Database) {
    let cluster = options.start().await.unwrap();
    let database = Database::at(cluster.fresh_database().await.unwrap(), TABLE).await;
    (cluster, database)
}

/// Ends the connections of the source, which then has to log in again.
const DISCONNECT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'syncline%'";

// In threads, since the server ends only when the replicator has confirmed everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_waited_for_until_it_is_promoted() {
    let (cluster, database) = own(ClusterOptions::new()).await;
    let url = database.url.clone();
    let mut running = Running::start(database.source()).await;
    cluster.stop().await.unwrap();
    cluster.start_as_standby().await.unwrap();
    running.waits_for("the server is a standby: use the address of the primary").await;

    // A store without a slot waits for it too.
    let error = Replica::new(database.source().slot("other"), tables(&["t"])).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let client = cluster.connect(&url).await.unwrap();
    client.execute("SELECT pg_promote()", &[]).await.unwrap();
    client.execute("INSERT INTO t VALUES (2, 'after')", &[]).await.unwrap();
    running.catch_up().await;
    let slots = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap();
    assert_eq!(slots.get::<_, i64>(0), 1);
    running.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_does_not_forget_its_slot_on_a_standby() {
    let (cluster, database) = own(ClusterOptions::new()).await;
    let url = database.url.clone();
    let mut replica = Replica::new(database.source(), tables(&["t"]));
    replica.run().await;
    replica.crash();
    cluster.stop().await.unwrap();
    cluster.start_as_standby().await.unwrap();
    replica.age_state();
    let error = replica.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("is a standby"), "{error}");
    cluster.connect(&url).await.unwrap().execute("SELECT pg_promote()", &[]).await.unwrap();
    replica.open().await.unwrap();
    replica.until("the history is lost", |replica| replica.lost.is_some()).await;
    let database = Database { client: cluster.connect(&url).await.unwrap(), url };
    assert_eq!(database.value("SELECT count(*) FROM pg_replication_slots").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn rights_that_were_taken_away_are_waited_for() {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    let name = database.value("SELECT current_database()").await.unwrap();
    database
        .execute(&format!(
            "CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON t TO reader; REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
             GRANT CONNECT ON DATABASE {name} TO reader"
        ))
        .await;
    let source = PostgresSource::new(&database.url.replace("postgres@", "reader@")).unwrap();
    let mut running = Running::start(source.clone()).await;
    for (row, (taken, reason, given)) in [
        (
            "ALTER ROLE reader NOREPLICATION".into(),
            "role reader may not replicate",
            "ALTER ROLE reader REPLICATION".into(),
        ),
        (
            format!("REVOKE CONNECT ON DATABASE {name} FROM reader"),
            "permission denied for database",
            format!("GRANT CONNECT ON DATABASE {name} TO reader"),
        ),
        ("ALTER ROLE reader NOLOGIN".into(), "is not permitted to log in", "ALTER ROLE reader LOGIN".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let taken: String = taken;
        let given: String = given;
        database.execute(&taken).await;
        database.execute(DISCONNECT).await;
        running.waits_for(reason).await;
        // Where nothing was ever right, a person must look.
        let error = Replica::new(source.clone().slot("other"), tables(&["t"])).start().await.unwrap_err();
        assert!(!error.is_transient(), "{error:?}");
        database.execute(&given).await;
        database.execute(&format!("INSERT INTO t VALUES (10 + {row}, 'after')")).await;
        running.catch_up().await;
    }
    running.task.abort();
}

/// Rows of a table that is read again after its slot was made.
#[tokio::test]
async fn a_right_to_read_that_was_taken_away_is_waited_for() {
    let (_cluster, database) = own(ClusterOptions::new()).await;
    database.execute("CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON t TO reader").await;
    let url = database.url.replace("postgres@", "reader@");
    let source = PostgresSource::new(&url).unwrap().poll_interval(Duration::from_millis(100));
    let mut running = Running::start(source).await;
    database
        .execute("REVOKE SELECT ON t FROM reader; ALTER TABLE t ADD w int DEFAULT 1; INSERT INTO t VALUES (2)")
        .await;
    running.waits_for("permission denied for table t").await;
    database.execute("GRANT SELECT ON t TO reader").await;
    running.catch_up().await;
    running.task.abort();
}

#[tokio::test]
async fn a_password_that_is_being_changed_is_waited_for() {
    let (_cluster, database) = own(ClusterOptions::new().password("first")).await;
    let source = database.source();
    let mut running = Running::start(source.clone()).await;
    database.execute("ALTER ROLE postgres PASSWORD 'second'").await;
    database.execute(DISCONNECT).await;
    running.waits_for("password authentication failed").await;
    let error = Replica::new(source.clone().slot("other"), tables(&["t"])).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    // Markers are sent beside the stream, over a connection of their own.
    let error = source.emit_marker(&syncline_core::MarkerToken("x".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    database.execute("ALTER ROLE postgres PASSWORD 'first'").await;
    database.execute("INSERT INTO t VALUES (2, 'after')").await;
    running.catch_up().await;
    running.task.abort();
}
