//! Everything at once: Postgres, a server in a process of its own, clients in theirs.

use std::time::Instant;

use kill_tests::TABLES;
use syncline_source_postgres::Lsn;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::client::Client;
use crate::figures::Recovery;
use crate::history::History;
use crate::patience::{DEADLINE, until};
use crate::postgres::Postgres;
use crate::process::{Kill, Process};

/// What must not be found in the log of a server.
const ALARMS: &[&str] = &["panicked", "phase Stopped"];
/// It throws its store away.
const STARTS_OVER: &str = "the history of the source is lost";

/// A Postgres, a server and a directory for files; all of it goes when this is dropped.
pub(crate) struct Stack {
    server: Option<Process>,
    address: String,
    directory: TempDir,
    pub(crate) postgres: Postgres,
    history: Vec<History>,
    /// The server was made to throw its store away.
    starts_over: bool,
    pulses: usize,
    fresh: usize,
    /// The server's lines about its snapshot, of all its lives: rows of `items` that were read.
    pub(crate) snapshot: Vec<Vec<u64>>,
}

impl Stack {
    /// A database with so many items, a tenth for each of anna and ben. Nothing is served yet.
    pub(crate) async fn start(items: u32) -> Self {
        let postgres = Postgres::start().await;
        postgres.execute(TABLES).await;
        let seed = format!(
            "INSERT INTO items SELECT 'i' || i, (ARRAY['anna', 'ben'])[1 + i % 10], repeat(md5(i::text), 3), 0 \
             FROM generate_series(1, {items}) i WHERE i % 10 < 2;
             INSERT INTO items SELECT 'i' || i, 'dora', repeat(md5(i::text), 3), 0 \
             FROM generate_series(1, {items}) i WHERE i % 10 >= 2;
             INSERT INTO counters SELECT u, u, 0 FROM unnest(ARRAY['anna', 'ben']) u; ANALYZE"
        );
        postgres.execute(&seed).await;
        let address = format!("127.0.0.1:{}", postgres.free_port());
        let directory = tempfile::tempdir().unwrap();
        let mut stack = Self {
            server: None,
            address,
            directory,
            postgres,
            history: Vec::new(),
            starts_over: false,
            pulses: 0,
            fresh: 0,
            snapshot: Vec::new(),
        };
        stack.forget_history();
        stack
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts the server; it will be killed at this moment, if at any.
    pub(crate) async fn serve(&mut self, kill: Option<Kill>) {
        let store = self.directory.path().join("buckets.db");
        let arguments = [&self.postgres.url, store.to_str().unwrap(), &self.address];
        let server = Process::start("server", env!("CARGO_BIN_EXE_kill-test-server"), &arguments, kill);
        server.tells(1, "listening on ").await;
        self.server = Some(server);
    }

    pub(crate) fn server(&self) -> &Process {
        self.server.as_ref().unwrap()
    }

    /// Waits until the server has been killed as it was planned, or kills it now.
    pub(crate) async fn server_killed(&mut self) {
        let lines = self.server.take().unwrap().killed().await;
        self.no_alarm(&lines);
        let rows = lines.iter().filter_map(|line| line.strip_prefix("snapshot public.items ")?.parse().ok());
        self.snapshot.push(rows.collect());
    }

    fn forget_history(&mut self) {
        self.history = vec![History::new("anna"), History::new("ben")];
    }

    /// Drops the slot of a server that is down: it has to read everything again, and its store becomes another one.
    pub(crate) async fn loses_its_slot(&mut self) {
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
        until("nobody reads the log", async || (self.postgres.value(active).await == "0").then_some(())).await;
        self.postgres.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        self.forget_history();
        self.starts_over = true;
    }

    /// Stands in for a server that is down, until clients have tried so many times to reach it.
    pub(crate) async fn turns_away(&self, attempts: usize) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        for _ in 0..attempts {
            tokio::time::timeout(DEADLINE, listener.accept()).await.expect("clients go on trying").unwrap();
        }
    }

    /// A client of this user with a new file, started.
    pub(crate) async fn client(&mut self, user: &'static str) -> Client {
        self.fresh += 1;
        let name = format!("{user}-{}", self.fresh);
        let mut client = Client::new(self.directory.path(), &self.endpoint(), &name, user);
        client.start(None).await;
        client
    }

    /// Commits a row and measures from `since` until it is in the store and in the client.
    pub(crate) async fn recovery(&mut self, since: Instant, client: &Client) -> Recovery {
        self.pulses += 1;
        let pulse = self.pulses;
        let insert = format!("INSERT INTO pulses VALUES ('p{pulse}') RETURNING pg_current_wal_insert_lsn()");
        let written: Lsn = self.postgres.value(&insert).await.parse().unwrap();
        let server = self.server();
        let replicated = async {
            until("a new row is replicated", async || {
                let position: Lsn = server.told("position ").last()?.parse().unwrap();
                (position > written).then_some(since.elapsed())
            })
            .await
        };
        let query = format!("SELECT count(*) FROM pulses WHERE id = 'p{pulse}'");
        let shown = async {
            until("a new row is shown", async || (client.number(&query) == Some(1)).then(|| since.elapsed())).await
        };
        let (replicated, shown) = tokio::join!(replicated, shown);
        Recovery { replicated, shown }
    }

    /// Checks that nothing that was shown before has changed.
    pub(crate) async fn history(&mut self) {
        let endpoint = self.endpoint();
        for history in &mut self.history {
            history.check(&endpoint).await;
        }
    }

    /// The end of a scenario: every table of every client is that of Postgres, a client that starts from nothing gets the
    /// same, and there is one slot.
    pub(crate) async fn converges(&mut self, clients: &[&Client]) {
        for client in clients {
            client.agrees(&self.postgres).await;
        }
        for user in ["anna", "ben"] {
            let fresh = self.client(user).await;
            fresh.agrees(&self.postgres).await;
        }
        self.history().await;
        assert_eq!(self.postgres.value("SELECT count(*) FROM pg_replication_slots").await, "1");
        self.no_alarm(&self.server().lines());
    }

    fn no_alarm(&self, lines: &[String]) {
        let alarming = |line: &&String| {
            ALARMS.iter().any(|alarm| line.contains(alarm)) || (!self.starts_over && line.contains(STARTS_OVER))
        };
        let alarm = lines.iter().find(alarming);
        assert!(alarm.is_none(), "{alarm:?}");
    }
}
