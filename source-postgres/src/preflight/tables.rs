//! The publication and the tables.

use std::collections::BTreeSet;

use postgres_protocol::escape::escape_identifier;
use syncline_core::{ConfigPlace, TablePattern, TableSelection, nearest_name};

use super::{Findings, Occasion};
use crate::catalog::{Catalog, CatalogTable, DEFAULT_SCHEMA};
use crate::state::{State, TableRecord};

/// A statement that names more tables than this would not be read.
const LISTED: usize = 30;

/// What tables are judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) publication: &'a str,
    pub(crate) selection: &'a TableSelection,
    /// What has been read already.
    pub(crate) known: Option<&'a State>,
    pub(crate) occasion: Occasion,
    /// The role that reads, quoted.
    pub(crate) role: &'a str,
}

/// Checks the publication, whose oid is returned (0 if there is none), and every table that the config reads. A table that
/// only a prefix names and that cannot be replicated is taken out of the catalog, unless it was replicated before.
pub(crate) fn check_tables(catalog: &mut Catalog, wanted: Wanted<'_>, findings: &mut Findings) -> u32 {
    let Wanted { publication, selection, known, occasion, .. } = wanted;
    let alter = format!("ALTER PUBLICATION {}", escape_identifier(publication));
    let found = catalog.publication.as_ref().map(|found| (found.oid, found.via_root));
    let mut problems = Vec::new();
    match &catalog.publication {
        None => problems.push(no_publication(publication, catalog)),
        Some(found) if !found.left_out.is_empty() => problems.push(format!(
            "publication {publication} leaves out {}, so that rows would never go away: run `{alter} SET (publish = \
             'insert, update, delete, truncate');`",
            found.left_out.join(" and ")
        )),
        Some(_) => {}
    }
    let via_root = found.map(|(_, via_root)| via_root);
    for pattern in &selection.patterns {
        check_pattern(pattern, catalog, occasion, &mut problems);
    }
    catalog.tables.retain(|table| {
        let is_known = known.is_some_and(|state| state.tables.iter().any(|record| record.oid == table.record.oid));
        let defects = defects(table, via_root, &alter, wanted);
        let named = selection.patterns.iter().any(|pattern| {
            !pattern.is_wildcard() && pattern.matches(DEFAULT_SCHEMA, &table.record.schema, &table.record.name)
        });
        if defects.is_empty() {
            return true;
        }
        if !named && !is_known {
            if occasion != Occasion::Poll {
                tracing::warn!(problem = defects.join("; "), "a table that only a prefix names is left out");
            }
            return false;
        }
        problems.extend(defects);
        true
    });
    problems.into_iter().for_each(|problem| findings.add(occasion.kind(), problem));
    found.map_or(0, |(oid, _)| oid)
}

fn check_pattern(pattern: &TablePattern, catalog: &Catalog, occasion: Occasion, problems: &mut Vec<String>) {
    let schema = pattern.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
    let tables: Vec<&CatalogTable> = catalog
        .tables
        .iter()
        .filter(|table| pattern.matches(DEFAULT_SCHEMA, &table.record.schema, &table.record.name))
        .collect();
    let label = format!("{schema}.{}{}", pattern.name, if pattern.prefix { "%" } else { "" });
    if tables.is_empty() {
        match occasion {
            Occasion::First if !pattern.is_wildcard() => {
                let names = catalog.names.iter().filter(|(of, _)| of == schema).map(|(_, name)| name.as_str());
                let near = nearest_name(&pattern.name, &names.collect::<Vec<_>>());
                problems.push(format!(
                    "{}there is no table {label}: create it, or take it out of the sync config{}",
                    at(pattern.places.table.as_ref()),
                    did_you_mean(near.map(|near| format!("{schema}.{near}")))
                ));
            }
            Occasion::First | Occasion::Again => tracing::warn!(table = label, "no table of this name is there now"),
            Occasion::Poll => {}
        }
        return;
    }
    // Those of a condition too, beside which all columns may be read.
    let named: BTreeSet<&str> =
        pattern.columns.iter().flatten().chain(pattern.places.columns.keys()).map(|name| &**name).collect();
    for column in named {
        if tables.iter().any(|table| table.all_columns.iter().any(|name| name == column)) {
            continue;
        }
        match occasion {
            Occasion::First => {
                let names = tables.iter().flat_map(|table| &table.all_columns).map(String::as_str);
                let near = nearest_name(column, &names.collect::<Vec<_>>());
                problems.push(format!(
                    "{}{} {label} has {} column `{column}`, which the sync config reads: add it, or correct the config{}",
                    at(pattern.places.columns.get(column)),
                    if pattern.prefix { "none of the tables" } else { "table" },
                    if pattern.prefix { "a" } else { "no" },
                    did_you_mean(near.map(|near| format!("`{near}`")))
                ));
            }
            Occasion::Again => tracing::warn!(table = label, column, "no column of this name is there now"),
            Occasion::Poll => {}
        }
    }
}

/// The place in the sync config that a complaint is about, if it is known.
fn at(place: Option<&ConfigPlace>) -> String {
    place.map(|place| format!("sync config {place}: ")).unwrap_or_default()
}

fn did_you_mean(name: Option<String>) -> String {
    name.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// What keeps a table from being replicated. `via_root` is how the publication shows partitions, if there is one; without
/// it all but that can be told.
fn defects(table: &CatalogTable, via_root: Option<bool>, alter: &str, wanted: Wanted<'_>) -> Vec<String> {
    let Wanted { publication, known, occasion, role, .. } = wanted;
    let record = &table.record;
    let label = record.label();
    let name = format!("{}.{}", escape_identifier(&record.schema), escape_identifier(&record.name));
    if matches!(table.kind, 'v' | 'm' | 'f') {
        let what = "is not a table but a view or a foreign table, whose changes are not in the log";
        return vec![format!("{label} {what}")];
    }
    if !table.permanent {
        return vec![format!("table {label} is unlogged: run `ALTER TABLE {name} SET LOGGED;`")];
    }
    let mut defects = Vec::new();
    if table.partitioned && via_root == Some(true) {
        defects.push(format!(
            "table {label} is partitioned, and publication {publication} publishes it by its root, which hides \
             truncated partitions: run `{alter} SET (publish_via_partition_root = false);`"
        ));
    } else if !table.published && via_root.is_some() {
        defects.push(format!("table {label} is not in publication {publication}: run `{alter} ADD TABLE {name};`"));
    }
    let to_be_read = known.is_none_or(|state| !state.is_complete() || state.table_of(record.oid).is_none());
    if table.row_security && to_be_read {
        defects.push(format!(
            "row security is on for table {label} and would hide rows from this role, of which the log tells all: {}",
            bypass(role)
        ));
    }
    if !table.can_select && to_be_read {
        defects.push(format!("this role may not read table {label}: {}", grant(record, role)));
    }
    if record.key.is_empty() {
        defects.push(format!(
            "table {label} has no key by which the log could name its rows: give it a primary key, or a unique index of \
             columns that are NOT NULL as REPLICA IDENTITY, or run `ALTER TABLE {name} REPLICA IDENTITY FULL;`{}",
            if table.partitioned { "; all partitions need the same" } else { "" }
        ));
    }
    for column in &table.generated {
        defects.push(format!(
            "column `{column}` of table {label} is generated and not in the log: compute it in the sync config, or fill \
             an ordinary column by a trigger"
        ));
    }
    for column in &table.unpublished {
        defects.push(format!("publication {publication} leaves out column `{column}` of table {label}: add it there"));
    }
    if occasion != Occasion::Poll && defects.is_empty() && !table.ordered && record.identity == b'f' {
        tracing::warn!(table = label, "rows without a primary key that are alike in all columns count as one row");
    }
    defects
}

/// How a role gets past row security.
pub(crate) fn bypass(role: &str) -> String {
    format!("run `ALTER ROLE {role} BYPASSRLS;` as a superuser")
}

/// How a role may read a table. Partitions are read one by one, which takes the right to read each.
pub(crate) fn grant(record: &TableRecord, role: &str) -> String {
    let itself = (record.schema.as_str(), record.name.as_str());
    let parts = record.parts.iter().map(|part| (part.schema.as_str(), part.name.as_str()));
    let tables: BTreeSet<(&str, &str)> = [itself].into_iter().chain(parts).collect();
    let schemas: BTreeSet<&str> = tables.iter().map(|(schema, _)| *schema).collect();
    let list = |names: Vec<String>| names.join(", ");
    let schemas = list(schemas.into_iter().map(escape_identifier).collect());
    let tables = if tables.len() > LISTED {
        format!("ALL TABLES IN SCHEMA {schemas}")
    } else {
        let name = |(schema, name)| format!("{}.{}", escape_identifier(schema), escape_identifier(name));
        list(tables.into_iter().map(name).collect())
    };
    format!("run `GRANT USAGE ON SCHEMA {schemas} TO {role}; GRANT SELECT ON {tables} TO {role};`")
}

/// The statement that would make the publication.
fn no_publication(publication: &str, catalog: &Catalog) -> String {
    let tables: Vec<String> = catalog
        .tables
        .iter()
        .filter(|table| matches!(table.kind, 'r' | 'p') && table.permanent)
        .map(|table| format!("{}.{}", escape_identifier(&table.record.schema), escape_identifier(&table.record.name)))
        .collect();
    let name = escape_identifier(publication);
    let (statement, role) = if tables.is_empty() || tables.len() > LISTED {
        (format!("CREATE PUBLICATION {name} FOR ALL TABLES;"), "a superuser")
    } else {
        (format!("CREATE PUBLICATION {name} FOR TABLE {};", tables.join(", ")), "the owner of the tables")
    };
    format!("there is no publication `{publication}`: run `{statement}` as {role}")
}
