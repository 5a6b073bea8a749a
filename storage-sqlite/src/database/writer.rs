//! The writer thread: the one place in this process where the client's file changes.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use rusqlite::hooks::{Action, AuthAction, AuthContext, Authorization, Wal};
use rusqlite::{Connection, TransactionBehavior};

use super::budget::Budget;
use super::changes::{Changes, Hub, QUEUE};
use super::checkpointer::Checkpoints;
use super::error::Result;
use super::preparation::Preparation;
use super::queue_runs;
use super::schema::Schema;
use super::work_queue::{Step, Task, Work, WorkQueue, closed};
use super::write_transaction::WriteTransaction;

/// How often the writer looks for commits of other processes while it has nothing to do.
pub(crate) const POLL: Duration = Duration::from_millis(250);

/// The queue of the writer thread.
pub(crate) type WriterQueue = WorkQueue<Writer>;

/// What the writer thread owns.
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    pub(crate) schema: Arc<Schema>,
    pub(crate) queue: Arc<WriterQueue>,
    /// A large publish that goes on, or waits to go on.
    pub(crate) preparation: Option<Preparation>,
    /// How much a publish may show in one transaction.
    pub(crate) budget: Budget,
    /// How much is staged in one transaction.
    pub(crate) staging: Budget,
    hub: Arc<Hub>,
    observed: Arc<Mutex<Observed>>,
    /// SQLite's number of commits by others, as last seen.
    data_version: i64,
}

/// What SQLite's hooks saw since the last commit or rollback.
#[derive(Debug, Default)]
struct Observed {
    last: String,
    tables: HashSet<String>,
    rows: u64,
    first_entry: Option<i64>,
    schema: bool,
}

impl Observed {
    fn row(&mut self, action: Action, table: &str, rowid: i64) {
        self.rows += 1;
        if self.last != table {
            self.last.clear();
            self.last.push_str(table);
            if !self.tables.contains(table) {
                self.tables.insert(table.to_owned());
            }
        }
        if self.first_entry.is_none() && action == Action::SQLITE_INSERT && table == QUEUE {
            self.first_entry = Some(rowid);
        }
    }
}

impl Writer {
    pub(crate) fn new(
        mut conn: Connection,
        schema: Arc<Schema>,
        queue: Arc<WriterQueue>,
        hub: Arc<Hub>,
        checkpoints: Arc<Checkpoints>,
    ) -> Result<Self> {
        let observed = Arc::new(Mutex::new(Observed::default()));
        let seen = Arc::clone(&observed);
        conn.update_hook(Some(move |action, _database: &str, table: &str, rowid| {
            lock(&seen).row(action, table, rowid);
        }))?;
        let seen = Arc::clone(&observed);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            if changes_schema(&context.action) {
                lock(&seen).schema = true;
            }
            Authorization::Allow
        }))?;
        conn.wal_hook(Some(move |_: &mut Wal, pages: std::ffi::c_int| {
            checkpoints.committed(u32::try_from(pages).unwrap_or(0));
            Ok(())
        }))?;
        let data_version = data_version(&conn)?;
        let budget = Budget::default();
        Ok(Self {
            conn,
            schema,
            queue,
            preparation: None,
            budget,
            staging: Budget::default(),
            hub,
            observed,
            data_version,
        })
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        queue.adopt();
        loop {
            match queue.next(POLL) {
                Work::Job(job) => job(&mut self),
                Work::Task(mut task) => {
                    if task(&mut self) == Step::Again {
                        queue.resume_task(task);
                    }
                }
                Work::Idle => {}
                Work::Closed => break,
            }
            self.look_for_others();
        }
        self.hub.close();
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "the client's database did not close cleanly");
        }
    }

    /// Commits of other processes change no hook; SQLite counts them.
    fn look_for_others(&mut self) {
        match data_version(&self.conn) {
            Ok(version) if version != self.data_version => {
                self.data_version = version;
                self.adopt_entries();
                self.hub.notify(&Changes::Any);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot look for changes by other processes"),
        }
    }

    /// Another process that writes much, while this one does not, must not make the queue slow to count.
    fn adopt_entries(&mut self) {
        let adopted = match queue_runs::has_long_tail(&self.conn) {
            Ok(true) => self.transaction(|conn, _| queue_runs::adopt_all(conn)),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = adopted {
            tracing::debug!(%error, "the writes of other processes are sorted later");
        }
    }

    /// Runs a closure of the application in one transaction.
    pub(crate) fn local_write<R>(
        &mut self,
        write: impl FnOnce(&WriteTransaction<'_>) -> Result<R>,
    ) -> std::thread::Result<Result<R>> {
        self.forget();
        let before = self.conn.total_changes();
        let observed = Arc::clone(&self.observed);
        let transaction = match self.conn.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => WriteTransaction::new(transaction),
            Err(error) => return Ok(Err(error.into())),
        };
        let answer = std::panic::catch_unwind(AssertUnwindSafe(|| write(&transaction)));
        // Not held while committing: that executes statements, and the hook locks for itself.
        let first_entry = lock(&observed).first_entry;
        let outcome = match answer {
            Ok(Ok(answer)) => transaction.commit(first_entry).map(|()| answer),
            Ok(Err(error)) => transaction.rollback().and(Err(error)),
            Err(panic) => {
                if let Err(error) = transaction.rollback() {
                    tracing::error!(%error, "a write that panicked could not be rolled back");
                }
                return Err(panic);
            }
        };
        if outcome.is_ok() {
            self.committed(Some(self.conn.total_changes().wrapping_sub(before)));
        }
        Ok(outcome)
    }

    /// Forgets what the hooks saw, at the start of a transaction.
    pub(crate) fn forget(&self) {
        let mut observed = lock(&self.observed);
        observed.last.clear();
        observed.tables.clear();
        observed.rows = 0;
        observed.first_entry = None;
        observed.schema = false;
    }

    /// Tells watchers what the transaction that was just committed has changed. `changes` is SQLite's own count of rows:
    /// where it exceeds what the hook saw, tables changed that SQLite does not name (`WITHOUT ROWID`, a bare `DELETE`).
    pub(crate) fn committed(&self, changes: Option<u64>) {
        let mut observed = lock(&self.observed);
        let unseen = changes.is_some_and(|changes| changes > observed.rows);
        let changes = if observed.schema || unseen {
            Changes::Any
        } else {
            Changes::Tables(std::mem::take(&mut observed.tables))
        };
        drop(observed);
        self.forget();
        self.hub.notify(&changes);
    }

    /// Runs work of sync in one transaction and tells watchers.
    pub(crate) fn transaction<R>(&mut self, work: impl FnOnce(&Connection, &Schema) -> Result<R>) -> Result<R> {
        self.attempt(|conn, schema, _| work(conn, schema).map(End::Commit))
    }

    /// The same for work that may want to be undone, and that knows of changes which the hooks do not see.
    pub(crate) fn attempt<R>(&mut self, work: impl FnOnce(&Connection, &Schema, &Seen) -> Result<End<R>>) -> Result<R> {
        self.forget();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = match work(&transaction, &self.schema, &Seen(Arc::clone(&self.observed)))? {
            End::Undo(answer) => {
                transaction.rollback()?;
                self.forget();
                return Ok(answer);
            }
            End::Commit(answer) => {
                transaction.commit()?;
                self.committed(None);
                answer
            }
            End::CommitInSilence(answer) => {
                transaction.commit()?;
                self.forget();
                answer
            }
        };
        Ok(answer)
    }

    /// The same for work that changes the state of the upload queue, which the hooks do not see.
    pub(crate) fn queue_transaction<R>(&mut self, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        self.attempt(|conn, _, seen| {
            seen.changed(QUEUE);
            work(conn).map(End::Commit)
        })
    }
}

/// How a transaction ends.
#[derive(Debug)]
pub(crate) enum End<R> {
    /// It is committed, and watchers are told.
    Commit(R),
    /// It is committed. Nothing that anybody watches has changed.
    CommitInSilence(R),
    /// It is rolled back.
    Undo(R),
}

/// What a transaction changes besides what SQLite's hooks see.
#[derive(Debug)]
pub(crate) struct Seen(Arc<Mutex<Observed>>);

impl Seen {
    /// A table changes.
    pub(crate) fn changed(&self, table: &str) {
        lock(&self.0).tables.insert(table.to_owned());
    }
}

fn lock(observed: &Mutex<Observed>) -> MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn data_version(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

fn changes_schema(action: &AuthAction<'_>) -> bool {
    matches!(
        action,
        AuthAction::CreateTable { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::AlterTable { .. }
            | AuthAction::DropTable { .. }
            | AuthAction::DropView { .. }
            | AuthAction::DropVtable { .. }
    )
}

/// Submits work to a worker and waits for its answer. A panic of the work goes on in the caller.
///
/// Cancel safe: dropped before the work begins, it never does; later, it runs to its end.
pub(crate) async fn ask<W, R: Send + 'static>(
    queue: &WorkQueue<W>,
    work: impl FnOnce(&mut W) -> std::thread::Result<Result<R>> + Send + 'static,
) -> Result<R> {
    let (sender, receiver) = oneshot::channel();
    queue
        .submit(Box::new(move |worker| {
            if sender.is_canceled() {
                return;
            }
            // Nobody listens any more if this fails.
            let _ = sender.send(work(worker));
        }))
        .await?;
    match receiver.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => Err(closed()),
    }
}

/// Submits work of sync, done in steps: `step` answers `None` while there is more to do.
///
/// Cancel safe: dropped before the work begins, it never does; later, it runs to its end.
pub(crate) async fn ask_in_steps<R: Send + 'static>(
    queue: &WriterQueue,
    mut step: impl FnMut(&mut Writer) -> Result<Option<R>> + Send + 'static,
) -> Result<R> {
    let (sender, receiver) = oneshot::channel();
    let mut sender = Some(sender);
    let mut begun = false;
    let task: Task<Writer> = Box::new(move |writer| {
        if !begun && sender.as_ref().is_none_or(oneshot::Sender::is_canceled) {
            return Step::Done;
        }
        begun = true;
        let answer = match step(writer) {
            Ok(None) => return Step::Again,
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        if let Some(sender) = sender.take() {
            // Nobody listens any more if this fails.
            let _ = sender.send(answer);
        }
        Step::Done
    });
    queue.submit_task(task)?;
    receiver.await.unwrap_or_else(|_| Err(closed()))
}
