//! A client: a process that syncs into a file, which the test reads as any program can.

use std::path::{Path, PathBuf};

use kill_tests::SYNCED;
use syncline_storage_sqlite::rusqlite::types::ValueRef;
use syncline_storage_sqlite::rusqlite::{Connection, OpenFlags};

use crate::patience::until;
use crate::postgres::Postgres;
use crate::process::{Kill, Process};

/// What must not be found in the log of a client: each would mean that something was lost or mixed up.
const ALARMS: &[&str] = &["checksums differ", "panicked", "problem Data", "problem Internal", "problem Invalid"];

/// A client of a user with a file of its own.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) user: &'static str,
    file: PathBuf,
    endpoint: String,
    process: Option<Process>,
    /// The transactions that earlier processes acknowledged.
    acknowledged: Vec<i64>,
    pub(crate) kills: usize,
}

impl Client {
    /// A client that is not started yet.
    pub(crate) fn new(directory: &Path, endpoint: &str, name: &str, user: &'static str) -> Self {
        let file = directory.join(format!("{name}.db"));
        Self { user, file, endpoint: endpoint.to_owned(), process: None, acknowledged: Vec::new(), kills: 0 }
    }

    /// Starts the process; it will be killed at this moment, if at any.
    pub(crate) async fn start(&mut self, kill: Option<Kill>) {
        let arguments = [self.file.to_str().unwrap(), &self.endpoint, self.user];
        let process = Process::start(
            &format!("client of {}", self.user),
            env!("CARGO_BIN_EXE_kill-test-client"),
            &arguments,
            kill,
        );
        process.tells(1, "open").await;
        self.process = Some(process);
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Waits until the process has been killed as it was planned, or kills it now.
    pub(crate) async fn killed(&mut self) {
        let lines = self.process.take().unwrap().killed().await;
        self.kills += 1;
        no_alarm(&lines);
        self.acknowledged.extend(acknowledged(&lines));
    }

    /// Makes local transactions; returns at once.
    pub(crate) async fn write(&mut self, transactions: u64) {
        self.process().give(&transactions.to_string()).await;
    }

    /// Every local transaction that was acknowledged, in the order in which they were.
    pub(crate) fn acknowledged(&self) -> Vec<i64> {
        let running = self.process.iter().flat_map(|process| acknowledged(&process.lines()));
        self.acknowledged.iter().copied().chain(running).collect()
    }

    /// The rows of a query on its file, as text; `None` while there is no file, or no table.
    pub(crate) fn rows(&self, query: &str) -> Option<Vec<Vec<Option<String>>>> {
        let db = Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let mut statement = db.prepare(query).ok()?;
        let width = statement.column_count();
        let text = |value: ValueRef<'_>| match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        };
        let rows = statement.query_map([], |row| (0..width).map(|at| row.get_ref(at).map(text)).collect());
        Some(rows.unwrap().map(Result::unwrap).collect())
    }

    /// The one number of a query on its file.
    pub(crate) fn number(&self, query: &str) -> Option<i64> {
        self.rows(query)?.first()?.first()?.as_ref()?.parse().ok()
    }

    /// Waits until each table holds exactly what Postgres holds for the user.
    pub(crate) async fn agrees(&self, postgres: &Postgres) {
        for (table, columns, condition) in SYNCED {
            let condition = condition.replace("$1", &format!("'{}'", self.user));
            let wanted = format!("SELECT {columns} FROM {table} WHERE {condition} ORDER BY id COLLATE \"C\"");
            let wanted = postgres.rows(&wanted).await;
            let count = format!("SELECT count(*) FROM {table}");
            let what = format!("{} has {} rows in {table}", self.user, wanted.len());
            until(&what, async || (self.number(&count)? == wanted.len() as i64).then_some(())).await;
            let found = format!("SELECT {columns} FROM {table} ORDER BY id");
            let what = format!("{}'s {table} are those of Postgres", self.user);
            until(&what, async || (self.rows(&found)? == wanted).then_some(())).await;
        }
        if let Some(process) = &self.process {
            no_alarm(&process.lines());
        }
    }
}

fn acknowledged(lines: &[String]) -> Vec<i64> {
    lines.iter().filter_map(|line| line.strip_prefix("wrote ")?.parse().ok()).collect()
}

fn no_alarm(lines: &[String]) {
    let alarm = lines.iter().find(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
    assert!(alarm.is_none(), "{alarm:?}");
}
