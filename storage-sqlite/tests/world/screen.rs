//! The application's screen: a watched query over all tables, which must show what is there without being asked.

use std::fmt;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{Either, select};
use futures::stream::StreamExt;
use serde::Deserialize;
use syncline_storage_sqlite::{Database, Schema, Watch};

/// A change is on the screen after so long at the latest; mostly at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A row, whatever its table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Shown {
    tbl: String,
    id: String,
    cells: String,
}

/// A screen of one run of the application.
pub(crate) struct Screen {
    sql: String,
    watch: Watch<Shown>,
    /// The last result.
    shown: Option<Vec<Shown>>,
}

impl Screen {
    pub(crate) fn new(database: &Database, schema: &Schema) -> Self {
        let tables = schema.tables().iter().map(|table| {
            let columns: Vec<String> =
                table.columns().iter().map(|column| format!("quote(\"{}\")", column.name)).collect();
            let (name, cells) = (table.name(), columns.join(" || ',' || "));
            format!("SELECT '{name}' AS tbl, id, {cells} AS cells FROM \"{name}\"")
        });
        let sql = format!("{} ORDER BY tbl, id", tables.collect::<Vec<_>>().join(" UNION ALL "));
        Self { watch: database.query(sql.clone()).watch(), sql, shown: None }
    }

    /// Waits until the screen shows what the tables hold now.
    pub(crate) fn follow(&mut self, database: &Database) {
        let there = block_on(database.query::<Shown>(self.sql.clone()).all()).unwrap();
        while self.shown.as_ref() != Some(&there) {
            match block_on(select(self.watch.next(), futures_timer::Delay::new(PATIENCE))) {
                Either::Left((next, _)) => self.shown = Some(next.unwrap().unwrap()),
                Either::Right(_) => panic!("a watched query shows {:?}, but there is {there:?}", self.shown),
            }
        }
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("shown", &self.shown).finish_non_exhaustive()
    }
}
