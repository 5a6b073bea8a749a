//! A hand on a [`MemorySource`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use syncline_core::memory::MemorySource;
use syncline_core::testing::source_suite::{Change, Hand, Row};
use syncline_core::{Result, Source, async_trait};

/// A database in memory: every change is a whole row to it.
#[derive(Debug)]
pub(crate) struct MemoryHand {
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    source: MemorySource,
    columns: BTreeMap<String, Vec<String>>,
    rows: BTreeMap<(String, String), Row>,
}

impl MemoryHand {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The database as it is now.
    pub(crate) fn database(&self) -> MemorySource {
        self.lock().source.clone()
    }
}

impl State {
    fn create(&mut self, name: &str) {
        let columns = &self.columns[name];
        let source = self.source.clone();
        self.source = match &columns[..] {
            [] => source.table(name, ["id"]),
            [one] => source.table(name, ["id", one]),
            [one, two] => source.table(name, ["id", one, two]),
            more => panic!("no case has so many columns: {more:?}"),
        };
    }

    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let rows = &mut self.rows;
        self.source.transaction(|tx| {
            for change in changes {
                match change {
                    Change::Insert { table, id, row } => {
                        tx.put(table, json(id, row))?;
                        rows.insert((table.clone(), id.clone()), row.clone());
                    }
                    Change::Update { table, id, columns } => {
                        let row = rows.get_mut(&(table.clone(), id.clone())).unwrap();
                        row.extend(columns.clone());
                        tx.put(table, json(id, row))?;
                    }
                    Change::Rename { table, from, to } => {
                        let row = rows.remove(&(table.clone(), from.clone())).unwrap();
                        tx.delete(table, from)?;
                        tx.put(table, json(to, &row))?;
                        rows.insert((table.clone(), to.clone()), row);
                    }
                    Change::Delete { table, id } => {
                        tx.delete(table, id)?;
                        rows.remove(&(table.clone(), id.clone()));
                    }
                    Change::Truncate { table } => {
                        let ids: Vec<String> =
                            rows.keys().filter(|(of, _)| of == table).map(|(_, id)| id.clone()).collect();
                        for id in ids {
                            tx.delete(table, &id)?;
                            rows.remove(&(table.clone(), id));
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

fn json(id: &str, row: &Row) -> serde_json::Value {
    let mut object = serde_json::to_value(row).unwrap();
    object["id"] = id.into();
    object
}

#[async_trait]
impl Hand for MemoryHand {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.database())
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn many_rows(&self) -> usize {
        2_500
    }

    async fn create_table(&self, name: &str, columns: &[&str]) {
        let mut state = self.lock();
        state.columns.insert(name.to_owned(), columns.iter().map(|column| (*column).to_owned()).collect());
        state.create(name);
    }

    async fn commit(&self, changes: &[Change]) {
        self.lock().commit(changes).unwrap();
    }

    async fn commit_overlapping(&self, first: &[Change], second: &[Change]) {
        self.commit(first).await;
        self.commit(second).await;
    }

    /// Another database takes its place, as if a dump was restored: the same rows, and a log that begins anew.
    async fn lose_history(&self) {
        let mut state = self.lock();
        state.source = MemorySource::new();
        let names: Vec<String> = state.columns.keys().cloned().collect();
        names.iter().for_each(|name| state.create(name));
        let inserts =
            std::mem::take(&mut state.rows).into_iter().map(|((table, id), row)| Change::Insert { table, id, row });
        state.commit(&inserts.collect::<Vec<_>>()).unwrap();
    }
}
