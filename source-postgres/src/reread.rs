//! Rows that are read again because the stream sent only part of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use syncline_core::{Error, Result, RowKey, SourceRow, SourceTable, TableSelection};

use crate::catalog::DEFAULT_SCHEMA;
use crate::error::PgError;
use crate::layout::{Layout, split_key};
use crate::link::Link;
use crate::lsn::Lsn;
use crate::preflight::Occasion;
use crate::snapshot::reading_failed;
use crate::state::TableRecord;
use crate::value::TypeRegistry;
use crate::visibility::Streamed;

const LIMIT: Duration = Duration::from_secs(60);

/// The tables as the stream has them.
#[derive(Debug, Default)]
pub(crate) struct Readable {
    selection: TableSelection,
    tables: Vec<TableRecord>,
    /// The role that reads, quoted.
    role: String,
}

impl Readable {
    pub(crate) fn new(selection: TableSelection, tables: Vec<TableRecord>, role: String) -> Self {
        Self { selection, tables, role }
    }
}

/// Reads the rows with these keys, as they are after everything that the stream has sent; returns an answer for each, and a
/// position after them.
pub(crate) async fn rows(
    link: &mut Link,
    streamed: &Streamed,
    readable: &Readable,
    table: &SourceTable,
    keys: &[RowKey],
) -> Result<(Vec<Option<(Arc<SourceTable>, SourceRow)>>, Lsn)> {
    // Without this the answer may be older than the very change that asks for it.
    streamed.wait(link).await?;
    let record = readable.tables.iter().find(|record| u64::from(record.oid) == table.id.0);
    let mut found = HashMap::new();
    if let Some(record) = record {
        let mut types = TypeRegistry::new(readable.selection.values);
        let connection = link.connection().await?;
        types.load(connection, record.columns.iter().map(|column| column.type_oid)).await?;
        let columns = record.columns.iter().map(|column| (column.name.as_str(), column.type_oid));
        let reads = |name: &str| readable.selection.reads(DEFAULT_SCHEMA, &record.schema, &record.name, name);
        let layout = Layout::new(record, columns, &types, reads)
            .ok_or_else(|| Error::internal(format!("table {} has no key", record.label())))?;
        let sql = select(record, keys)?;
        let read = async {
            connection.begin(&sql).await?;
            let mut all = Vec::new();
            while let Some(rows) = connection.rows().await? {
                all.extend(rows);
            }
            Ok::<_, PgError>(all)
        };
        let read = tokio::time::timeout(LIMIT, read).await.map_err(|_| PgError::Timeout(LIMIT))?;
        let described = if *layout.table == *table { Arc::new(table.clone()) } else { layout.table.clone() };
        for row in read.map_err(|error| reading_failed(error, record, &readable.role, Occasion::Again))? {
            let row = layout
                .snapshot_row(row)
                .map_err(|error| Error::data(format!("a row of table {} cannot be read: {error}", record.label())))?;
            found.insert(row.key.clone(), (described.clone(), row));
        }
    }
    let at = link.insert_lsn().await?;
    Ok((keys.iter().map(|key| found.get(key).cloned()).collect(), at))
}

fn select(record: &TableRecord, keys: &[RowKey]) -> Result<String> {
    let columns = record.columns.iter().map(|column| escape_identifier(&column.name)).collect::<Vec<_>>().join(", ");
    let mut alternatives = Vec::with_capacity(keys.len());
    for key in keys {
        let values = split_key(&key.key, record.key.len())
            .map_err(|error| Error::invalid(format!("not a key of table {}: {error}", record.label())))?;
        let mut conditions = Vec::with_capacity(values.len());
        for (name, value) in record.key.iter().zip(values) {
            let name = escape_identifier(name);
            conditions.push(match value {
                None => format!("{name} IS NULL"),
                Some(value) => {
                    let text = std::str::from_utf8(&value)
                        .map_err(|_| Error::invalid(format!("a key of table {} is not UTF-8", record.label())))?;
                    format!("{name} = {}", escape_literal(text))
                }
            });
        }
        alternatives.push(format!("({})", conditions.join(" AND ")));
    }
    if alternatives.is_empty() {
        alternatives.push("false".into());
    }
    let filter = record.parts.first().and_then(|part| part.filter.as_ref());
    // A partitioned table has no rows of its own, one with heirs has only its own.
    let only = if record.parts.iter().any(|part| part.oid == record.oid) { "ONLY " } else { "" };
    Ok(format!(
        "SELECT {columns} FROM {only}{}.{} WHERE ({}){}",
        escape_identifier(&record.schema),
        escape_identifier(&record.name),
        alternatives.join(" OR "),
        filter.map(|filter| format!(" AND ({filter})")).unwrap_or_default()
    ))
}
