//! What Postgres knows about a table: its columns and their types.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use syncline_core::{Error, Result};
use tokio_postgres::Client;

use crate::backend::refusal::database_error;
use crate::backend::statement;
use crate::backend::table_name::Quoted;
use crate::backend::writable_table::WritableTable;
use crate::backend::write_rule::Sight;

/// A write that names an unknown column has the table looked up again, at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A table as it is in the database.
#[derive(Debug)]
pub(crate) struct TableShape {
    /// Schema and name, quoted.
    pub(crate) table: String,
    /// The column of the id.
    pub(crate) id: Column,
    /// The other columns by name.
    pub(crate) columns: HashMap<Arc<str>, Column>,
    read_at: Instant,
}

/// A column as it is in the database.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    /// Schema and name of its type, quoted, which a text is cast to. Without a length and without a domain: a cast to
    /// `varchar(3)` would cut silently what an assignment refuses.
    pub(crate) type_name: String,
    pub(crate) family: Family,
    /// Whether Postgres computes it.
    pub(crate) generated: bool,
}

/// How JSON becomes text for a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Boolean,
    Number,
    Array,
    Json,
    Other,
}

impl TableShape {
    pub(crate) fn may_be_outdated(&self) -> bool {
        self.read_at.elapsed() > LOOK_AGAIN
    }

    /// The column, be it the id or another.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        if *self.id.name == *name { Some(&self.id) } else { self.columns.get(name) }
    }
}

/// Makes sure that the role may do what a writable table needs.
///
/// # Errors
/// `Invalid` names the privileges that it lacks; `Unavailable`.
pub(crate) async fn check_privileges(client: &Client, table: &WritableTable, shape: &TableShape) -> Result<()> {
    if table.rule.is_read_only() {
        return Ok(());
    }
    let id = &*shape.id.name;
    let is_written = |column: &&Column| {
        !column.generated && table.columns.as_ref().is_none_or(|listed| listed.contains(&column.name))
    };
    let mut written: Vec<&str> = shape.columns.values().filter(is_written).map(|column| &*column.name).collect();
    written.sort_unstable();
    let sight = table.sight();
    let read: Vec<&str> = match &sight {
        Sight::Nothing => Vec::new(),
        Sight::Columns(columns) => columns.iter().map(|column| &**column).collect(),
        Sight::Row => shape.columns.keys().map(|column| &**column).collect(),
    };
    let mut wanted = vec![("DELETE", None), ("SELECT", Some(id)), ("INSERT", Some(id))];
    wanted.extend(read.into_iter().filter(|column| *column != id).map(|column| ("SELECT", Some(column))));
    wanted.extend(written.iter().flat_map(|column| [("INSERT", Some(*column)), ("UPDATE", Some(*column))]));
    let (privileges, columns): (Vec<&str>, Vec<Option<&str>>) = wanted.into_iter().unzip();
    let rows =
        client.query(statement::LACKING, &[&shape.table, &privileges, &columns]).await.map_err(database_error)?;
    if rows.is_empty() {
        return Ok(());
    }
    let lacking: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let message = format!(
        "the backend's role may not write table {} as clients do: grant it {}",
        shape.table,
        lacking.join(", ")
    );
    Err(Error::invalid(message))
}

/// Tables that were looked up, by synced name.
#[derive(Debug, Default)]
pub(crate) struct Catalog(Mutex<HashMap<Arc<str>, Arc<TableShape>>>);

impl Catalog {
    /// The table, from memory or from the database.
    ///
    /// # Errors
    /// `Invalid` if the table does not suit: it is missing, or its id column has no unique index; `Unavailable`.
    pub(crate) async fn shape(&self, client: &Client, table: &WritableTable) -> Result<Arc<TableShape>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&table.name).cloned();
        match known {
            Some(shape) => Ok(shape),
            None => self.look_up(client, table).await,
        }
    }

    /// The table as the database has it now.
    ///
    /// # Errors
    /// As [`shape`](Self::shape).
    pub(crate) async fn look_up(&self, client: &Client, table: &WritableTable) -> Result<Arc<TableShape>> {
        let shape = Arc::new(read(client, table).await?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(table.name.clone(), shape.clone());
        Ok(shape)
    }

    /// Forgets everything: the database said that something is not as it was.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

const COLUMNS: &str = "
    SELECT quote_ident(cn.nspname) || '.' || quote_ident(c.relname), a.attname::text,
           quote_ident(tn.nspname) || '.' || quote_ident(t.typname), t.typname::text, t.typcategory::text,
           a.attgenerated <> '' OR a.attidentity = 'a',
           EXISTS (SELECT FROM pg_catalog.pg_index i
                   WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                     AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    CROSS JOIN LATERAL (
        WITH RECURSIVE under AS (
            SELECT typname, typnamespace, typcategory, typbasetype FROM pg_catalog.pg_type WHERE oid = a.atttypid
            UNION ALL
            SELECT b.typname, b.typnamespace, b.typcategory, b.typbasetype
            FROM pg_catalog.pg_type b JOIN under ON b.oid = under.typbasetype
        ) SELECT * FROM under WHERE typbasetype = 0
    ) AS t
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
    WHERE c.oid = to_regclass($1::text) AND c.relkind IN ('r', 'p')";

async fn read(client: &Client, table: &WritableTable) -> Result<TableShape> {
    let rows = client.query(COLUMNS, &[&table.stored_as.to_string()]).await.map_err(database_error)?;
    let name = &table.name;
    let Some(first) = rows.first() else {
        return Err(Error::invalid(format!(
            "there is no table {} in the database to write `{name}` to",
            table.stored_as
        )));
    };
    let qualified: String = first.get(0);
    let mut id = None;
    let mut columns = HashMap::with_capacity(rows.len());
    for row in &rows {
        let column_name: Arc<str> = Arc::from(row.get::<_, &str>(1));
        let family = match (row.get::<_, &str>(3), row.get::<_, &str>(4)) {
            ("json" | "jsonb", _) => Family::Json,
            (_, "B") => Family::Boolean,
            (_, "N") => Family::Number,
            (_, "A") => Family::Array,
            _ => Family::Other,
        };
        let column = Column { name: column_name.clone(), type_name: row.get(2), family, generated: row.get(5) };
        if column_name != table.id_column {
            columns.insert(column_name, column);
        } else if row.get(6) && !column.generated {
            id = Some(column);
        } else {
            return Err(Error::invalid(format!(
                "uploads to `{name}` need a column {} of {qualified} that is writable and has a unique index of its own",
                Quoted(&column_name)
            )));
        }
    }
    let Some(id) = id else {
        let column = Quoted(&table.id_column).to_string();
        return Err(Error::invalid(format!("table {qualified} has no column {column} for the ids of `{name}`")));
    };
    let shape = TableShape { table: qualified, id, columns, read_at: Instant::now() };
    if let Sight::Columns(needed) = table.rule.sight()
        && let Some(missing) = needed.iter().find(|column| shape.column(column).is_none())
    {
        return Err(Error::invalid(format!(
            "table {} has no column `{missing}`, which its write rule reads",
            shape.table
        )));
    }
    Ok(shape)
}
