//! The reader threads: each sees one published checkpoint per transaction, beside the writer and never waiting for it.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, TransactionBehavior};

use super::error::Result;
use super::work_queue::{Step, Work, WorkQueue};

/// How long a reader sleeps between looks at an empty queue.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The queue that all reader threads share.
pub(crate) type ReaderQueue = WorkQueue<Reader>;

/// What a reader thread owns.
pub(crate) struct Reader {
    conn: Connection,
    tables: Arc<Mutex<Option<HashSet<String>>>>,
}

impl Reader {
    pub(crate) fn new(mut conn: Connection) -> Result<Self> {
        let tables: Arc<Mutex<Option<HashSet<String>>>> = Arc::default();
        let seen = Arc::clone(&tables);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            if let AuthAction::Read { table_name, .. } = context.action
                && let Some(tables) = seen.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                && !tables.contains(table_name)
            {
                tables.insert(table_name.to_owned());
            }
            Authorization::Allow
        }))?;
        Ok(Self { conn, tables })
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &ReaderQueue) {
        loop {
            match queue.next(PATIENCE) {
                Work::Job(job) => job(&mut self),
                Work::Task(mut task) => {
                    if task(&mut self) == Step::Again {
                        queue.resume_task(task);
                    }
                }
                Work::Idle => {}
                Work::Closed => break,
            }
        }
    }

    /// Runs a closure in one read transaction.
    pub(crate) fn read<R>(&mut self, read: impl FnOnce(&Connection) -> Result<R>) -> std::thread::Result<Result<R>> {
        let transaction = match self.conn.transaction_with_behavior(TransactionBehavior::Deferred) {
            Ok(transaction) => transaction,
            Err(error) => return Ok(Err(error.into())),
        };
        // The transaction is rolled back when it is dropped, also by a panic.
        std::panic::catch_unwind(AssertUnwindSafe(|| read(&transaction)))
    }

    /// The same, and the tables that statements prepared by it read, views resolved.
    pub(crate) fn read_watched<R>(
        &mut self,
        read: impl FnOnce(&Connection) -> Result<R>,
    ) -> std::thread::Result<(Result<R>, HashSet<String>)> {
        self.observe(Some(HashSet::new()));
        let answer = self.read(read);
        let tables = self.observe(None).unwrap_or_default();
        answer.map(|answer| (answer, tables))
    }

    fn observe(&self, tables: Option<HashSet<String>>) -> Option<HashSet<String>> {
        std::mem::replace(&mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner), tables)
    }
}
