//! What the tables hold after each commit, as the suite itself works it out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hand::{Change, Row};
use crate::table::TableSelection;

/// All rows, by table and key.
pub(super) type Content = BTreeMap<String, BTreeMap<String, Arc<Row>>>;

/// The table that every commit writes its number into.
pub(super) const STEPS: &str = "steps";
/// The row of it.
pub(super) const STEP_ID: &str = "n";
/// The column of it.
pub(super) const STEP_COLUMN: &str = "at";

/// The content after each commit, from number 0 on. A handle.
#[derive(Debug, Clone, Default)]
pub(super) struct Model(Arc<Mutex<Vec<Content>>>);

impl Model {
    fn lock(&self) -> MutexGuard<'_, Vec<Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> usize {
        self.lock().len()
    }

    /// What the content after commit `number` is asked.
    pub(super) fn at<T>(&self, number: usize, ask: impl FnOnce(&Content) -> T) -> T {
        let contents = self.lock();
        ask(contents.get(number).unwrap_or_else(|| panic!("there was no commit {number}")))
    }

    /// Adds a commit: the changes, and the one that notes its number.
    pub(super) fn commit(&self, changes: &[Change]) -> Vec<Change> {
        let mut contents = self.lock();
        let mut content = contents.last().cloned().unwrap_or_default();
        let number = Row::from([(STEP_COLUMN.to_owned(), Some(contents.len().to_string()))]);
        let (table, id) = (STEPS.to_owned(), STEP_ID.to_owned());
        let noted = match contents.len() {
            0 => Change::Insert { table, id, row: number },
            _ => Change::Update { table, id, columns: number },
        };
        let changes: Vec<Change> = changes.iter().cloned().chain([noted]).collect();
        changes.iter().for_each(|change| apply(&mut content, change));
        contents.push(content);
        changes
    }
}

fn apply(content: &mut Content, change: &Change) {
    match change {
        Change::Insert { table, id, row } => {
            let before = content.entry(table.clone()).or_default().insert(id.clone(), Arc::new(row.clone()));
            assert!(before.is_none(), "a case inserts {table}/{id} twice");
        }
        Change::Update { table, id, columns } => {
            Arc::make_mut(row(content, table, id)).extend(columns.clone());
        }
        Change::Rename { table, from, to } => {
            let moved = Arc::clone(row(content, table, from));
            let rows = content.entry(table.clone()).or_default();
            rows.remove(from);
            let before = rows.insert(to.clone(), moved);
            assert!(before.is_none(), "a case gives two rows the key {table}/{to}");
        }
        Change::Delete { table, id } => {
            row(content, table, id);
            content.entry(table.clone()).or_default().remove(id);
        }
        Change::Truncate { table } => content.entry(table.clone()).or_default().clear(),
    }
}

fn row<'a>(content: &'a mut Content, table: &str, id: &str) -> &'a mut Arc<Row> {
    let found = content.get_mut(table).and_then(|rows| rows.get_mut(id));
    found.unwrap_or_else(|| panic!("a case names {table}/{id}, which is not there"))
}

/// What a selection leaves of it: tables without a row are left out.
pub(super) fn selected(content: &Content, selection: &TableSelection) -> Content {
    let tables = content.iter().filter(|(table, _)| selection.matches("public", "public", table));
    let rows = tables.map(|(table, rows)| {
        let row = |row: &Row| {
            let read = row.iter().filter(|(column, _)| selection.reads("public", "public", table, column));
            Arc::new(read.map(|(column, value)| (column.clone(), value.clone())).collect::<Row>())
        };
        (table.clone(), rows.iter().map(|(id, columns)| (id.clone(), row(columns))).collect::<BTreeMap<_, _>>())
    });
    rows.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// How two contents differ, for people: at most a few rows.
pub(super) fn difference(wanted: &Content, found: &Content) -> Option<String> {
    if wanted == found {
        return None;
    }
    let flat = |content: &Content| {
        let rows = content.iter().flat_map(|(table, rows)| rows.iter().map(move |(id, row)| (table, id, row)));
        rows.map(|(table, id, row)| (format!("{table}/{id}"), row.clone())).collect::<BTreeMap<_, _>>()
    };
    let (wanted, found) = (flat(wanted), flat(found));
    let mut told = Vec::new();
    for (name, row) in &wanted {
        match found.get(name) {
            None => told.push(format!("{name} is missing")),
            Some(other) if other != row => {
                told.push(format!("{name} is {} instead of {}", shown(other), shown(row)));
            }
            Some(_) => {}
        }
    }
    told.extend(found.keys().filter(|name| !wanted.contains_key(*name)).map(|name| format!("{name} is too many")));
    let count = told.len();
    told.truncate(5);
    Some(format!("{count} rows differ: {}", told.join("; ")))
}

fn shown(row: &Row) -> String {
    let value = |value: &Option<String>| match value {
        Some(text) if text.len() > 40 => format!("{} bytes", text.len()),
        other => format!("{other:?}"),
    };
    let columns = row.iter().map(|(column, of)| format!("{column}: {}", value(of)));
    format!("{{{}}}", columns.collect::<Vec<_>>().join(", "))
}
