//! An index of a shadow table, made in slices. `CREATE INDEX` is one statement that sorts all rows and writes them in one
//! commit, and nothing can be written meanwhile (C4).
//!
//! SQLite keeps an index as it keeps a table `WITHOUT ROWID` whose key is the indexed columns and the row id. Such a table is
//! filled in sorted runs, each of them in slices, and then declared to be the index, in the schema table. A key cannot be
//! NULL, though: rows with a NULL get their entries from stubs, rows of a table that has nothing but the indexed columns,
//! whose index has the filled tree by then. That index is declared to be the shadow's instead.

use std::cmp::Ordering;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use super::error::Result;
use super::shadow::{rewrite_schema, roots};
use super::sorted_run::SortedRun;
use super::table_sql::{balanced, identifier};

/// An index on its way.
#[derive(Debug)]
pub(crate) struct ShadowIndex {
    /// Its own name, that of its table, and the statement that would make it.
    name: String,
    table: String,
    sql: String,
    /// The statements that make its tables, and fill them.
    create: String,
    scan: String,
    scan_nulls: String,
    insert: String,
    insert_stub: String,
    stage: Stage,
    /// Up to this row id the rows of the table were looked at.
    after: i64,
    run: SortedRun<Entry>,
    has_nulls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is nothing in the file yet.
    Planned,
    /// Rows are taken into a run.
    Gathering,
    /// The run is written; whether it has all that there is.
    Writing(bool),
    /// Rows with a NULL get their entries.
    Stubs,
}

impl ShadowIndex {
    /// The index `name` of the shadow `table`, which the statement `sql` would make like `model`. `None` if it holds more
    /// than columns.
    pub(crate) fn plan(
        conn: &Connection,
        model: &str,
        (name, table, sql): (String, &str, String),
        rowid: &str,
    ) -> Result<Option<Self>> {
        let mut statement =
            conn.prepare_cached("SELECT name, \"desc\", coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno")?;
        let parts = statement.query_map([model], |row| {
            let order = if row.get(1)? { " DESC" } else { "" };
            let order = format!("COLLATE {}{order}", identifier(&row.get::<_, String>(2)?));
            Ok(row.get::<_, Option<String>>(0)?.map(|column| (identifier(&column), order)))
        })?;
        let Some(parts) = parts.collect::<rusqlite::Result<Option<Vec<(String, String)>>>>()? else { return Ok(None) };
        let list = |each: &dyn Fn(usize, &str, &str) -> String| -> Vec<String> {
            parts.iter().enumerate().map(|(number, (column, order))| each(number, column, order)).collect()
        };
        let columns = list(&|_, column, _| column.to_owned()).join(", ");
        let own = list(&|number, _, _| format!("c{number}")).join(", ");
        let key = list(&|number, _, order| format!("c{number} {order}")).join(", ");
        let values = list(&|number, _, _| format!("?{}", number + 2)).join(", ");
        let is_null = balanced(&list(&|_, column, _| format!("{column} IS NULL")), " OR ", "0");
        Ok(Some(Self {
            create: format!(
                "CREATE TABLE {name}_sorted ({own}, r, PRIMARY KEY ({key}, r)) WITHOUT ROWID; \
                 CREATE TABLE {name}_stubs ({own}); CREATE INDEX {name}_nulls ON {name}_stubs ({key})"
            ),
            scan: format!("SELECT {rowid}, {columns} FROM {table} WHERE {rowid} > ?1 ORDER BY {rowid}"),
            scan_nulls: format!("SELECT {rowid}, {is_null} FROM {table} WHERE {rowid} > ?1 ORDER BY {rowid}"),
            insert: format!("INSERT INTO {name}_sorted (r, {own}) VALUES (?1, {values})"),
            insert_stub: format!(
                "INSERT INTO {name}_stubs (_rowid_, {own}) SELECT {rowid}, {columns} FROM {table} WHERE {rowid} = ?1"
            ),
            table: table.to_owned(),
            stage: Stage::Planned,
            after: i64::MIN,
            run: SortedRun::default(),
            has_nulls: false,
            name,
            sql,
        }))
    }

    /// Goes on, and asks `until` after each row whether to stop. True when the index is there.
    pub(crate) fn advance(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        loop {
            match self.stage {
                Stage::Planned => {
                    // Their columns take every value as it is.
                    conn.execute_batch(&self.create)?;
                    self.stage = Stage::Gathering;
                }
                Stage::Gathering => {
                    let Some(all) = self.gather(conn, &mut until)? else { return Ok(false) };
                    self.run.close();
                    self.stage = Stage::Writing(all);
                }
                Stage::Writing(all) => {
                    if !self.write(conn, &mut until)? {
                        return Ok(false);
                    }
                    self.run = SortedRun::default();
                    if !all {
                        self.stage = Stage::Gathering;
                    } else if self.has_nulls {
                        self.hand_over(conn)?;
                        (self.stage, self.after) = (Stage::Stubs, i64::MIN);
                    } else {
                        conn.execute_batch(&format!("DROP TABLE {}_stubs", self.name))?;
                        self.declare(conn, "sorted")?;
                        return Ok(true);
                    }
                }
                Stage::Stubs => {
                    if !self.add_stubs(conn, &mut until)? {
                        return Ok(false);
                    }
                    // It has the empty tree. The stubs are removed like shadows that are not in use.
                    conn.execute_batch(&format!("DROP TABLE {}_sorted", self.name))?;
                    self.declare(conn, "nulls")?;
                    return Ok(true);
                }
            }
        }
    }

    /// Takes rows until the run is full or there are no more, which the answer tells. `None` if `until` said stop.
    fn gather(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<Option<bool>> {
        let mut statement = conn.prepare_cached(&self.scan)?;
        let width = statement.column_count();
        let mut rows = statement.query([self.after])?;
        while let Some(row) = rows.next()? {
            self.after = row.get(0)?;
            let mut values = Vec::with_capacity(width - 1);
            for column in 1..width {
                values.extend(Key::of(row.get_ref(column)?));
            }
            if values.len() + 1 < width {
                self.has_nulls = true;
            } else {
                let bytes = values.iter().map(Key::bytes).sum();
                self.run.push(Entry { values, row: self.after }, bytes);
            }
            if self.run.is_full() {
                return Ok(Some(false));
            }
            if until() {
                return Ok(None);
            }
        }
        Ok(Some(true))
    }

    /// Writes the run. False if `until` said stop.
    fn write(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        let mut insert = conn.prepare_cached(&self.insert)?;
        while let Some(Entry { values, row }) = self.run.pop() {
            insert.raw_bind_parameter(1, row)?;
            for (number, value) in values.iter().enumerate() {
                insert.raw_bind_parameter(number + 2, value)?;
            }
            insert.raw_execute()?;
            if until() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The index of the stubs gets what was filled.
    fn hand_over(&self, conn: &Connection) -> Result<()> {
        let roots = roots(conn)?;
        let place = |what: &str| {
            let name = format!("{}_{what}", self.name);
            roots.get(&name).copied().ok_or_else(|| syncline_core::Error::internal(format!("{name} is gone")))
        };
        let (filled, empty) = (place("sorted")?, place("nulls")?);
        rewrite_schema(conn, || {
            let mut update = conn.prepare("UPDATE sqlite_master SET rootpage = ?2 WHERE rowid = ?1")?;
            update.execute((filled.0, empty.1))?;
            update.execute((empty.0, filled.1))?;
            Ok(())
        })
    }

    /// Adds the rows with a NULL. False if `until` said stop.
    fn add_stubs(&mut self, conn: &Connection, mut until: impl FnMut() -> bool) -> Result<bool> {
        let mut statement = conn.prepare_cached(&self.scan_nulls)?;
        let mut insert = conn.prepare_cached(&self.insert_stub)?;
        let mut rows = statement.query([self.after])?;
        while let Some(row) = rows.next()? {
            self.after = row.get(0)?;
            if row.get(1)? {
                insert.execute([self.after])?;
            }
            if until() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Declares what was filled to be the index.
    fn declare(&self, conn: &Connection, filled: &str) -> Result<()> {
        rewrite_schema(conn, || {
            let mut update = conn.prepare(
                "UPDATE sqlite_master SET type = 'index', name = ?2, tbl_name = ?3, sql = ?4 WHERE name = ?1",
            )?;
            update.execute((format!("{}_{filled}", self.name), &self.name, &self.table, &self.sql))?;
            Ok(())
        })
    }
}

/// An entry of an index.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    values: Vec<Key>,
    row: i64,
}

/// A value of a key. The order is that of SQLite where values of a column have one type; otherwise more pages are written.
#[derive(Debug)]
enum Key {
    Integer(i64),
    Real(f64),
    Text(Box<[u8]>),
    Blob(Box<[u8]>),
}

impl Key {
    fn of(value: ValueRef<'_>) -> Option<Self> {
        Some(match value {
            ValueRef::Null => return None,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(text) => Self::Text(text.into()),
            ValueRef::Blob(blob) => Self::Blob(blob.into()),
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Integer(_) | Self::Real(_) => 0,
            Self::Text(bytes) | Self::Blob(bytes) => bytes.len(),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Integer(_) => 0,
            Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Blob(_) => 3,
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(one), Self::Integer(two)) => one.cmp(two),
            (Self::Real(one), Self::Real(two)) => one.total_cmp(two),
            (Self::Text(one), Self::Text(two)) | (Self::Blob(one), Self::Blob(two)) => one.cmp(two),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}
