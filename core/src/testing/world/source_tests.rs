//! The simulated source against the conformance suite of sources: what the simulator proves rests on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use serde_json::{Map, Value as Json};

use super::database::{Change, Database};
use super::faults::Faults;
use super::ledger::Ledger;
use super::random::Random;
use super::source::SimulatedSource;
use super::virtual_time::VirtualTime;
use crate::error::Result;
use crate::source::{Reread, Source, SourceEvent, SourcePosition, SourceStart};
use crate::table::{RowKey, SourceTable};
use crate::testing::source_suite::{self, Hand, Row};
use crate::write_checkpoint::MarkerToken;

crate::source_tests!(SimulatedHand::new());

/// A hand on the simulated database.
#[derive(Debug)]
struct SimulatedHand {
    database: Database,
    time: VirtualTime,
    random: Random,
}

impl SimulatedHand {
    fn new() -> Self {
        Self { database: Database::default(), time: VirtualTime::default(), random: Random::new(7) }
    }
}

fn change(change: &source_suite::Change) -> Change {
    match change.clone() {
        source_suite::Change::Insert { table, id, row } => {
            let mut row = object(row);
            row.insert("id".to_owned(), Json::String(id));
            Change::Put { table, row }
        }
        source_suite::Change::Update { table, id, columns } => Change::Patch { table, id, columns: object(columns) },
        source_suite::Change::Rename { table, from, to } => Change::Rename { table, from, to },
        source_suite::Change::Delete { table, id } => Change::Delete { table, id },
        source_suite::Change::Truncate { table } => Change::Truncate { table },
    }
}

fn object(row: Row) -> Map<String, Json> {
    row.into_iter().map(|(name, value)| (name, value.map_or(Json::Null, Json::String))).collect()
}

#[async_trait]
impl Hand for SimulatedHand {
    fn source(&self) -> Arc<dyn Source> {
        let (database, time) = (self.database.clone(), self.time.clone());
        let (ledger, faults) = (Ledger::default(), Faults::default());
        let source = SimulatedSource::new(database, time.clone(), self.random.clone(), ledger, faults, Arc::default());
        Arc::new(Timeless { source, time })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn many_rows(&self) -> usize {
        80
    }

    /// A table is there with its first row.
    async fn create_table(&self, _: &str, _: &[&str]) {}

    async fn commit(&self, changes: &[source_suite::Change]) {
        self.database.commit(&changes.iter().map(change).collect::<Vec<_>>());
    }

    async fn commit_overlapping(&self, first: &[source_suite::Change], second: &[source_suite::Change]) {
        self.commit(first).await;
        self.commit(second).await;
    }

    async fn lose_history(&self) {
        self.database.drop_slot();
    }
}

/// A source whose delays of nothing pass by themselves: no world runs beside it.
#[derive(Debug)]
struct Timeless {
    source: SimulatedSource,
    time: VirtualTime,
}

#[async_trait]
impl Source for Timeless {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        let events = Hurried(self.source.events(start), self.time.clone()).await?;
        let time = self.time.clone();
        Ok(futures::stream::unfold((events, time), |(mut events, time)| async move {
            let batch = Hurried(events.next(), time.clone()).await?;
            Some((batch, (events, time)))
        })
        .boxed())
    }
    fn acknowledge(&self, position: &SourcePosition) {
        self.source.acknowledge(position);
    }
    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        Hurried(self.source.emit_marker(token), self.time.clone()).await
    }
    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        Hurried(self.source.reread(table, keys), self.time.clone()).await
    }
}

/// A future that waits for no timer that is due.
struct Hurried<F>(F, VirtualTime);

impl<F: Future + Unpin> Future for Hurried<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if let Poll::Ready(output) = Pin::new(&mut self.0).poll(cx) {
                return Poll::Ready(output);
            }
            let now = self.1.now();
            if self.1.next().is_none_or(|at| at > now) {
                return Poll::Pending;
            }
            self.1.advance(now);
        }
    }
}
