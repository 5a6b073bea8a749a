//! What a case works with: a database with some tables, and what it holds after each commit.

use std::sync::Arc;
use std::time::Duration;

use super::hand::{Change, Hand, Row};
use super::model::{Model, STEP_COLUMN, STEPS};
use super::reader::Reader;
use super::transcript::{Transaction, Transcript};
use crate::source::{Source, SourceStart};
use crate::table::{TablePattern, TableSelection};
use crate::testing::deadline::{Deadline, pause};
use crate::write_checkpoint::MarkerToken;
use futures::StreamExt;

/// A database under test.
pub(super) struct Bench {
    pub(super) hand: Arc<dyn Hand>,
    model: Model,
    selection: TableSelection,
}

impl Bench {
    /// A database with these tables and their columns, all of which are selected.
    pub(super) async fn new(hand: Arc<dyn Hand>, tables: &[(&str, &[&str])]) -> Self {
        let model = Model::default();
        let mut patterns = vec![pattern(STEPS, false, None)];
        hand.create_table(STEPS, &[STEP_COLUMN]).await;
        for (name, columns) in tables {
            hand.create_table(name, columns).await;
            patterns.push(pattern(name, false, None));
        }
        let bench = Self { hand, model, selection: TableSelection { patterns, ..TableSelection::default() } };
        bench.commit(&[]).await;
        bench
    }

    /// Selects other tables.
    pub(super) fn selecting(mut self, patterns: &[TablePattern]) -> Self {
        self.selection.patterns.truncate(1);
        self.selection.patterns.extend(patterns.iter().cloned());
        self
    }

    /// A reader that has nothing yet.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.hand.source(), self.selection.clone(), self.model.clone(), self.hand.patience())
    }

    /// One that has caught up.
    pub(super) async fn caught_up(&self) -> Reader {
        let mut reader = self.reader();
        reader.catch_up().await;
        reader
    }

    /// Commits a transaction of these changes.
    pub(super) async fn commit(&self, changes: &[Change]) {
        let changes = self.model.commit(changes);
        self.hand.commit(&changes).await;
    }

    /// Commits two that overlap.
    pub(super) async fn commit_overlapping(&self, first: &[Change], second: &[Change]) {
        let first = self.model.commit(first);
        let second = self.model.commit(second);
        self.hand.commit_overlapping(&first, &second).await;
    }

    /// The number of the last commit.
    pub(super) fn last(&self) -> usize {
        self.model.commits() - 1
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.hand.patience())
    }

    pub(super) fn from(&self, after: &Transcript, transaction: usize) -> SourceStart {
        SourceStart {
            selection: self.selection.clone(),
            position: after.transactions.get(transaction).map(|transaction| transaction.position.clone()),
            state: after.states.get(transaction).cloned().flatten(),
        }
    }

    pub(super) async fn mark(&self, token: &MarkerToken) {
        mark(&*self.hand.source(), token, self.hand.patience()).await;
    }

    /// What a stream that is opened there says, up to the transaction with this marker.
    pub(super) async fn transactions(
        &self,
        source: &dyn Source,
        start: &SourceStart,
        upto: &MarkerToken,
    ) -> Vec<Transaction> {
        let deadline = self.deadline();
        let mut start = start.clone();
        let mut read = Vec::new();
        loop {
            let mut transcript = Transcript::after(start.position.clone(), start.state.clone());
            let mut events = match deadline.wait("the stream opens", source.events(start.clone())).await {
                Ok(events) => events,
                Err(error) if error.is_transient() && !deadline.has_passed() => {
                    pause().await;
                    continue;
                }
                Err(error) => panic!("the source's stream does not open: {error:?}"),
            };
            while let Some(Ok(batch)) = deadline.wait("the stream goes on", events.next()).await {
                batch.iter().for_each(|event| transcript.note(event));
                if transcript.has(upto) {
                    read.append(&mut transcript.transactions);
                    return read;
                }
            }
            // It broke, or asked to be opened again.
            assert!(!deadline.has_passed(), "the source's stream ends again and again");
            read.append(&mut transcript.transactions);
            (start.position, start.state) = (transcript.position, transcript.state);
            pause().await;
        }
    }
}

/// Sends a marker; errors that may pass are tried again.
pub(super) async fn mark(source: &dyn Source, token: &MarkerToken, patience: Duration) {
    let deadline = Deadline::after(patience);
    loop {
        match deadline.wait("a marker is sent", source.emit_marker(token)).await {
            Ok(()) => return,
            Err(error) if error.is_transient() && !deadline.has_passed() => pause().await,
            Err(error) => panic!("a marker cannot be sent: {error:?}"),
        }
    }
}

/// Asserts that a stream said what it was to say, with a message that names the first difference.
pub(super) fn assert_same(read: &[Transaction], wanted: &[Transaction], when: &str) {
    let differs = read.iter().zip(wanted).position(|(read, wanted)| read != wanted);
    if let Some(at) = differs {
        panic!("{when}: transaction {at} is {:?} instead of {:?}", read[at], wanted[at]);
    }
    assert_eq!(read.len(), wanted.len(), "{when}: so many transactions came");
}

pub(super) fn pattern(name: &str, prefix: bool, columns: Option<&[&str]>) -> TablePattern {
    let columns = columns.map(|columns| columns.iter().map(|column| Arc::from(*column)).collect());
    TablePattern { name: name.into(), prefix, columns, ..TablePattern::default() }
}

pub(super) fn token(text: &str) -> MarkerToken {
    MarkerToken(text.into())
}

pub(super) fn row(columns: &[(&str, Option<&str>)]) -> Row {
    columns.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

pub(super) fn insert(table: &str, id: &str, columns: &[(&str, Option<&str>)]) -> Change {
    Change::Insert { table: table.to_owned(), id: id.to_owned(), row: row(columns) }
}

pub(super) fn update(table: &str, id: &str, columns: &[(&str, Option<&str>)]) -> Change {
    Change::Update { table: table.to_owned(), id: id.to_owned(), columns: row(columns) }
}

pub(super) fn rename(table: &str, from: &str, to: &str) -> Change {
    Change::Rename { table: table.to_owned(), from: from.to_owned(), to: to.to_owned() }
}

pub(super) fn delete(table: &str, id: &str) -> Change {
    Change::Delete { table: table.to_owned(), id: id.to_owned() }
}

pub(super) fn truncate(table: &str) -> Change {
    Change::Truncate { table: table.to_owned() }
}

/// A large value that does not compress well.
pub(super) fn large(seed: u64) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(16 << 10);
    while text.len() < 16 << 10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:016x}", state ^ (state >> 29)));
    }
    text
}
