//! The source database: tables, commits in order, and the log that replication reads, which forgets what was confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use bytes::Bytes;
use serde_json::Value as Json;

use super::content::{Content, Row, TableContent};
use super::lock;
use crate::source::SourcePosition;
use crate::table::{SourceColumn, SourceTable, TableId};
use crate::write_checkpoint::MarkerToken;

/// Bytes of the log per commit: positions are no counts, and nothing may compute with them.
const STRIDE: u64 = 16;

/// A database in the simulated world. A handle.
#[derive(Clone, Default)]
pub(super) struct Database(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// The content after each commit, beginning with none.
    contents: Vec<Content>,
    log: Vec<LoggedCommit>,
    next_table: u64,
    /// Commits up to here were confirmed, and are gone from the log.
    confirmed: u64,
    /// The slot was dropped: the log before its end is gone.
    lost: bool,
    wakers: Vec<Waker>,
    /// A table that is to be read anew.
    rereads: BTreeSet<Arc<str>>,
}

/// A commit as the log has it.
#[derive(Debug, Clone, Default)]
pub(super) struct LoggedCommit {
    pub(super) changes: Vec<LoggedChange>,
    pub(super) markers: Vec<MarkerToken>,
}

/// A change as the log has it.
#[derive(Debug, Clone)]
pub(super) enum LoggedChange {
    Put {
        table: Arc<SourceTable>,
        row: Arc<Row>,
        /// Its id before, if the change gave it another.
        old_id: Option<String>,
        /// Large columns that the change left as they were: the log does not have them.
        left_out: BTreeSet<String>,
    },
    Remove {
        table: Arc<SourceTable>,
        id: String,
    },
    Truncate {
        table: Arc<SourceTable>,
    },
}

/// A change that a transaction asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// Inserts or replaces a row.
    Put { table: String, row: Row },
    /// Updates columns of a row; nothing happens if there is none.
    Patch { table: String, id: String, columns: Row },
    /// Gives a row another id, and with it the place of a row that has it already.
    Rename { table: String, from: String, to: String },
    /// Deletes a row, if there is one.
    Delete { table: String, id: String },
    /// Deletes all rows.
    Truncate { table: String },
}

impl Database {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Commits changes as one transaction and returns how many commits there are now.
    pub(super) fn commit(&self, changes: &[Change]) -> u64 {
        let wakers = {
            let mut state = self.lock();
            let mut content = state.content().clone();
            let mut logged = LoggedCommit::default();
            for change in changes {
                state.apply(change, &mut content, &mut logged.changes);
            }
            state.append(content, logged)
        };
        wakers.into_iter().for_each(Waker::wake);
        self.lock().commits()
    }

    /// Commits a marker.
    pub(super) fn mark(&self, token: MarkerToken) {
        let wakers = {
            let mut state = self.lock();
            let content = state.content().clone();
            state.append(content, LoggedCommit { changes: Vec::new(), markers: vec![token] })
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Drops the slot: what replication has not read is lost to it.
    pub(super) fn drop_slot(&self) {
        let wakers = {
            let mut state = self.lock();
            state.lost = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Has a table read anew by whoever follows the log.
    pub(super) fn read_anew(&self, table: &str) {
        let wakers = {
            let mut state = self.lock();
            state.rereads.insert(table.into());
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many commits there are.
    pub(super) fn commits(&self) -> u64 {
        self.lock().commits()
    }

    /// The content after so many commits.
    pub(super) fn content_at(&self, commits: u64) -> Content {
        let state = self.lock();
        let index = usize::try_from(commits).unwrap_or(usize::MAX);
        state.contents.get(index).or(state.contents.last()).cloned().unwrap_or_default()
    }
}

impl State {
    fn content(&mut self) -> &Content {
        if self.contents.is_empty() {
            self.contents.push(Content::default());
        }
        // There is one by now.
        &self.contents[self.contents.len() - 1]
    }

    /// The content now.
    pub(super) fn newest(&self) -> Content {
        self.contents.last().cloned().unwrap_or_default()
    }

    pub(super) fn commits(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn log(&self) -> &[LoggedCommit] {
        &self.log
    }

    /// Up to where the log was confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn confirm(&mut self, commits: u64) {
        self.confirmed = self.confirmed.max(commits);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// A new slot, from here on.
    pub(super) fn make_slot(&mut self) {
        self.lost = false;
        self.confirmed = self.commits();
    }

    /// Wakes once when anything is committed.
    pub(super) fn wake_later(&mut self, waker: Waker) {
        self.wakers.push(waker);
    }

    pub(super) fn take_rereads(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.rereads)
    }

    fn append(&mut self, content: Content, commit: LoggedCommit) -> Vec<Waker> {
        self.contents.push(content);
        self.log.push(commit);
        std::mem::take(&mut self.wakers)
    }

    fn apply(&mut self, change: &Change, content: &mut Content, logged: &mut Vec<LoggedChange>) {
        match change {
            Change::Put { table, row } => {
                let Some(id) = row.get("id").and_then(Json::as_str) else {
                    panic!("a row of `{table}` must have a text `id`: {}", Json::Object(row.clone()))
                };
                self.put(content, logged, table, None, id.to_owned(), row.clone());
            }
            Change::Patch { table, id, columns } => {
                let Some(before) = content.row(table, id) else { return };
                let mut row = Row::clone(before);
                row.extend(columns.clone().into_iter().filter(|(name, _)| name != "id"));
                self.put(content, logged, table, None, id.clone(), row);
            }
            Change::Rename { table, from, to } => {
                let Some(before) = content.row(table, from).filter(|_| from != to) else { return };
                let mut row = Row::clone(before);
                row.insert("id".to_owned(), Json::String(to.clone()));
                if content.row(table, to).is_some() {
                    // As with a unique key: the row that has it must go first.
                    self.apply(&Change::Delete { table: table.clone(), id: to.clone() }, content, logged);
                }
                self.put(content, logged, table, Some(from.clone()), to.clone(), row);
            }
            Change::Delete { table, id } => {
                let Some(of) = content.tables.get_mut(&**table) else { return };
                if Arc::make_mut(of).rows.remove(id).is_some() {
                    logged.push(LoggedChange::Remove { table: Arc::clone(&of.description), id: id.clone() });
                }
            }
            Change::Truncate { table } => {
                let Some(of) = content.tables.get_mut(&**table) else { return };
                Arc::make_mut(of).rows.clear();
                logged.push(LoggedChange::Truncate { table: Arc::clone(&of.description) });
            }
        }
    }

    fn put(
        &mut self,
        content: &mut Content,
        logged: &mut Vec<LoggedChange>,
        table: &str,
        old_id: Option<String>,
        id: String,
        row: Row,
    ) {
        let of = content.tables.entry(table.into()).or_insert_with(|| {
            self.next_table += 1;
            Arc::new(TableContent {
                description: Arc::new(SourceTable {
                    id: TableId(self.next_table),
                    schema: "public".into(),
                    name: table.into(),
                    columns: vec![column("id")],
                }),
                rows: BTreeMap::new(),
            })
        });
        let of = Arc::make_mut(of);
        let known = |name: &String| of.description.columns.iter().any(|column| *column.name == **name);
        let added: Vec<SourceColumn> = row.keys().filter(|name| !known(name)).map(|name| column(name)).collect();
        if !added.is_empty() {
            // A column was added: from here on the log describes the table anew.
            Arc::make_mut(&mut of.description).columns.extend(added);
        }
        let before = of.rows.remove(old_id.as_ref().unwrap_or(&id));
        let is_large = |name: &String| name == "body";
        let left_out = row.iter().filter(|(name, value)| {
            is_large(name) && before.as_ref().is_some_and(|before| before.get(*name) == Some(value))
        });
        let left_out = left_out.map(|(name, _)| name.clone()).collect();
        let row = Arc::new(row);
        of.rows.insert(id, Arc::clone(&row));
        logged.push(LoggedChange::Put { table: Arc::clone(&of.description), row, old_id, left_out });
    }
}

fn column(name: &str) -> SourceColumn {
    SourceColumn { name: name.into(), key: name == "id", type_name: "any".into() }
}

/// The position after so many commits.
pub(super) fn position_of(commits: u64) -> SourcePosition {
    SourcePosition(Bytes::copy_from_slice(&(commits * STRIDE).to_be_bytes()))
}

/// How many commits lie at or before a position; `None` for one that is not a boundary between two commits.
pub(super) fn commits_at(position: &SourcePosition) -> Option<u64> {
    let bytes: [u8; 8] = position.0.as_ref().try_into().ok()?;
    let number = u64::from_be_bytes(bytes);
    number.is_multiple_of(STRIDE).then_some(number / STRIDE)
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.commits()).finish()
    }
}
