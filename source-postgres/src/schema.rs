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
        if part.link != before.link {
            return Change::Reread("it or a partition of it was out of the publication or of the table for a while");
        }
        rewritten |= part.file != before.file;
        // So it looks, too, after a while without a log, in which it may have been written to.
        if before.file != 0 && part.file != before.file && (part.toast != before.toast || part.toast == 0) {
            return Change::Reread("all its rows were written anew");
        }
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

/// Whether old rows of this relation name a row by the key that the table was read with.
pub(crate) fn names_rows(known: &TableRecord, relation: &Relation) -> bool {
    match relation.identity {
        // Old rows are whole.
        b'f' => true,
        b'd' | b'i' => {
            let mut flagged = relation.columns.iter().filter(|column| column.key);
            flagged.clone().count() == known.key.len() && flagged.all(|column| known.key.contains(&column.name))
        }
        _ => false,
    }
}

/// Whether rows of this relation have the columns that the table was read with, and its key.
pub(crate) fn fits(known: &TableRecord, relation: &Relation, reads: impl Fn(&str) -> bool) -> bool {
    let itself = relation.oid == known.oid;
    if itself && (relation.schema != known.schema || relation.name != known.name) {
        return false;
    }
    if !names_rows(known, relation) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::RelationColumn;
    use crate::state::ColumnRecord;

    #[test]
    fn a_relation_must_have_the_key_that_the_table_was_read_with() {
        let record = |name: &str, number| ColumnRecord {
            name: name.into(),
            number,
            type_oid: 25,
            type_modifier: -1,
            version: 1,
        };
        let known = TableRecord {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            identity: b'd',
            membership: 0,
            width: 2,
            key: vec!["id".into()],
            columns: vec![record("id", 1), record("code", 2)],
            parts: Vec::new(),
            stale: None,
        };
        let relation = |identity: u8, keys: &[&str]| Relation {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            identity,
            columns: ["id", "code"]
                .map(|name| RelationColumn {
                    key: keys.contains(&name),
                    name: name.into(),
                    type_oid: 25,
                    type_modifier: -1,
                })
                .into(),
        };
        let fits = |identity, keys: &[&str]| fits(&known, &relation(identity, keys), |_| true);
        assert!(fits(b'd', &["id"]) && fits(b'i', &["id"]) && fits(b'f', &["id", "code"]));
        assert!(!fits(b'i', &["code"]), "another index");
        assert!(!fits(b'd', &["id", "code"]) && !fits(b'd', &[]) && !fits(b'n', &[]));
    }
}
