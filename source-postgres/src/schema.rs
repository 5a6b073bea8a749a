//! What a change of a table's definition means for the rows that were read before it.

use crate::catalog::CatalogTable;
use crate::pgoutput::Relation;
use crate::state::TableRecord;

/// What is to be done about a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// The rows are as they would be read now: only the record changes.
    Harmless(TableRecord),
    /// They may not be.
    Reread(&'static str),
}

/// Compares a table with what the catalog says now.
pub(crate) fn compare(known: &TableRecord, now: &CatalogTable) -> Change {
    let record = &now.record;
    if known.schema != record.schema || known.name != record.name {
        return Change::Reread("it was renamed");
    }
    if known.key != record.key {
        return Change::Reread("its key is another");
    }
    if known.membership != record.membership {
        return Change::Reread("it was out of the publication for a while");
    }
    let mut parts = record.parts.clone();
    let mut rewritten = false;
    for before in &known.parts {
        let Some(part) = parts.iter_mut().find(|part| part.oid == before.oid) else {
            return Change::Reread("a partition is gone");
        };
        if part.filter != before.filter {
            return Change::Reread("the publication has another condition for it");
        }
        rewritten |= part.file != before.file;
        part.progress = before.progress.clone();
    }
    for column in &known.columns {
        let Some(now) = record.columns.iter().find(|now| now.name == column.name) else { continue };
        if (now.number, now.type_oid, now.type_modifier) != (column.number, column.type_oid, column.type_modifier) {
            return Change::Reread("a column is another or has another type");
        }
        // Both change with a conversion to the same type, one alone with harmless things.
        if rewritten && now.version != column.version {
            return Change::Reread("the values of a column were computed anew");
        }
    }
    for column in &record.columns {
        if known.columns.iter().any(|before| before.name == column.name) {
            continue;
        }
        if column.number <= known.width {
            return Change::Reread("a column is read that was not read before");
        }
        if rewritten || now.filled.contains(&column.name) {
            return Change::Reread("a column was added with a default");
        }
    }
    let stale = known.stale;
    let record = TableRecord { parts, stale, ..record.clone() };
    if record == *known { Change::None } else { Change::Harmless(record) }
}

/// Whether rows of this relation have the columns that the table was read with.
pub(crate) fn fits(known: &TableRecord, relation: &Relation, reads: impl Fn(&str) -> bool) -> bool {
    let itself = relation.oid == known.oid;
    if itself && (relation.schema != known.schema || relation.name != known.name) {
        return false;
    }
    let mut found = 0;
    for column in &relation.columns {
        if !reads(&column.name) && !known.key.contains(&column.name) {
            continue;
        }
        let fits = known.columns.iter().any(|known| {
            known.name == column.name
                && known.type_oid == column.type_oid
                && known.type_modifier == column.type_modifier
        });
        if !fits {
            return false;
        }
        found += 1;
    }
    found == known.columns.len()
}
