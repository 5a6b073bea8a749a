//! What the catalog says now about the publication and the tables that a sync config reads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use syncline_core::{SourceSchema, TableSelection};

use crate::connection::{Connection, Rows};
use crate::error::PgError;
use crate::link::Link;
use crate::state::{ColumnRecord, PartRecord, Progress, TableRecord};

const LIMIT: Duration = Duration::from_secs(30);

/// The schema of a pattern that names none.
pub(crate) const DEFAULT_SCHEMA: &str = "public";

/// Types whose order and equality are those of their text as the index sees it; others are read in one go.
const ORDERED_TYPES: [&str; 11] =
    ["int2", "int4", "int8", "oid", "text", "varchar", "uuid", "date", "timestamp", "timestamptz", "bool"];

/// All tables of the database that are not the system's, with their columns.
pub(crate) async fn schema(link: &mut Link) -> Result<SourceSchema, PgError> {
    let sql = "SELECT n.nspname, c.relname, a.attname FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
         ORDER BY n.nspname, c.relname, a.attnum";
    let rows = link.query(sql).await?;
    let mut schema = SourceSchema::new().default_schema(DEFAULT_SCHEMA);
    for row in 0..rows.len() {
        let text = |name| rows.text(row, name);
        schema = schema.table(text("nspname")?, text("relname")?, [text("attname")?]);
    }
    Ok(schema)
}

/// The publication and the tables, as they are now.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) publication: Option<Publication>,
    pub(crate) tables: Vec<CatalogTable>,
    /// Schema and name of everything that a query could name in the schemas that some pattern names.
    pub(crate) names: Vec<(String, String)>,
}

/// A publication.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) oid: u32,
    /// What it leaves out of insert, update, delete and truncate.
    pub(crate) left_out: Vec<&'static str>,
    pub(crate) via_root: bool,
}

/// A table that some pattern names.
#[derive(Debug)]
pub(crate) struct CatalogTable {
    /// What to record of it, with nothing read yet.
    pub(crate) record: TableRecord,
    /// `r`, `p`, or something that cannot be replicated.
    pub(crate) kind: char,
    pub(crate) permanent: bool,
    pub(crate) published: bool,
    pub(crate) can_select: bool,
    /// Policies would hide rows from this role.
    pub(crate) row_security: bool,
    pub(crate) partitioned: bool,
    /// Whether it can be read in order of its key.
    pub(crate) ordered: bool,
    /// Names of all its columns.
    pub(crate) all_columns: Vec<String>,
    /// Columns that are named, or in the key, but that the stream does not carry, since they are generated.
    pub(crate) generated: Vec<String>,
    /// Columns that are named but that the publication's column list leaves out.
    pub(crate) unpublished: Vec<String>,
    /// Columns whose existing rows got a value when they were added.
    pub(crate) filled: BTreeSet<String>,
    /// An estimate of its rows.
    pub(crate) estimate: Option<u64>,
}

/// A row of `pg_publication_tables`; older servers have fewer columns.
#[derive(Debug, Deserialize)]
struct PublishedTable {
    schemaname: String,
    tablename: String,
    attnames: Option<Vec<String>>,
    rowfilter: Option<String>,
}

/// Reads all that is needed in a handful of queries, however many tables there are.
///
/// All of them see one snapshot: a table that is dropped between two of them would otherwise look like one without a key.
pub(crate) async fn load(
    connection: &mut Connection,
    version: u32,
    publication: &str,
    selection: &TableSelection,
) -> Result<Catalog, PgError> {
    connection.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", LIMIT).await?;
    let loaded = load_in_snapshot(connection, version, publication, selection).await;
    // Nothing was written, so ending it this way loses nothing, whether or not a query failed.
    let ended = connection.query("ROLLBACK", LIMIT).await;
    let catalog = loaded?;
    ended?;
    Ok(catalog)
}

async fn load_in_snapshot(
    connection: &mut Connection,
    version: u32,
    publication: &str,
    selection: &TableSelection,
) -> Result<Catalog, PgError> {
    let (publication, published, memberships) = load_publication(connection, version, publication).await?;
    let (relations, names) = load_relations(connection, selection).await?;
    let parts = load_parts(connection, &relations).await?;

    let oids = with_rows(&relations, &parts);
    let columns = load_columns(connection, &oids).await?;
    let keys = load_keys(connection, &oids).await?;
    let by_name: HashMap<(&str, &str), &PublishedTable> =
        published.iter().map(|table| ((table.schemaname.as_str(), table.tablename.as_str()), table)).collect();

    let tables = relations
        .iter()
        .map(|relation| {
            let own_parts: Vec<&Relation> = if relation.kind == 'p' {
                parts.iter().filter(|part| part.root == relation.oid).collect()
            } else {
                vec![relation]
            };
            table(version, selection, relation, &own_parts, &columns, &keys, &by_name, &memberships)
        })
        .collect();
    Ok(Catalog { publication, tables, names })
}

/// The tables of which columns and keys are asked for, each once.
fn with_rows(relations: &[Relation], parts: &[Relation]) -> Vec<u32> {
    let tables = relations.iter().filter(|relation| matches!(relation.kind, 'r' | 'p'));
    tables.chain(parts).map(|relation| relation.oid).collect()
}

/// A row of `pg_class`.
#[derive(Debug)]
struct Relation {
    oid: u32,
    namespace: u32,
    schema: String,
    name: String,
    kind: char,
    permanent: bool,
    identity: u8,
    file: u32,
    width: i16,
    row_security: bool,
    can_select: bool,
    estimate: Option<u64>,
    toast: u32,
    /// If it is a partition: itself and what it is a part of.
    ancestors: Vec<Ancestor>,
    root: u32,
}

/// A partition, or the table that a partition belongs to.
#[derive(Debug, Clone, Copy)]
struct Ancestor {
    oid: u32,
    namespace: u32,
    /// The version of the entry that makes it a partition; 0 for the root.
    attached: u32,
}

impl Relation {
    fn read(rows: &Rows, row: usize) -> Result<Self, PgError> {
        Ok(Self {
            oid: rows.parse(row, "oid")?,
            namespace: rows.parse(row, "relnamespace")?,
            schema: rows.text(row, "nspname")?.to_owned(),
            name: rows.text(row, "relname")?.to_owned(),
            kind: rows.parse(row, "relkind")?,
            permanent: rows.text(row, "relpersistence")? == "p",
            identity: rows.text(row, "relreplident")?.bytes().next().unwrap_or(b'n'),
            file: rows.parse(row, "relfilenode")?,
            width: rows.parse(row, "relnatts")?,
            row_security: rows.is_true(row, "row_security"),
            can_select: rows.is_true(row, "can_select"),
            estimate: rows.parse::<i64>(row, "estimate")?.try_into().ok(),
            toast: rows.parse(row, "reltoastrelid")?,
            ancestors: rows
                .get(row, "ancestors")
                .map_or(Some(Vec::new()), |text| text.split(',').map(Ancestor::read).collect())
                .ok_or_else(|| PgError::Protocol("a query returned something else as ancestors".into()))?,
            root: rows.parse(row, "root")?,
        })
    }

    /// Another number after it was out of the publication, or out of what it is a partition of.
    fn link(&self, memberships: &HashMap<u32, u32>) -> u64 {
        let mut hash = Sha256::new();
        let itself = Ancestor { oid: self.oid, namespace: self.namespace, attached: 0 };
        for ancestor in self.ancestors.iter().chain([&itself]) {
            hash.update(ancestor.oid.to_be_bytes());
            hash.update(ancestor.attached.to_be_bytes());
            for member in [ancestor.oid, ancestor.namespace] {
                hash.update(memberships.get(&member).copied().unwrap_or(0).to_be_bytes());
            }
        }
        hash.finalize().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

impl Ancestor {
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|word| word.parse().ok());
        let mut number = || numbers.next().flatten();
        Some(Self { oid: number()?, namespace: number()?, attached: number()? })
    }
}

const RELATION: &str = "c.oid, c.relnamespace, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, \
    c.relfilenode, c.relnatts, row_security_active(c.oid) AS row_security, c.reltuples::bigint AS estimate, \
    has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS can_select, c.reltoastrelid, \
    CASE WHEN c.relispartition THEN (SELECT string_agg(format('%s:%s:%s', a.oid, a.relnamespace, \
            coalesce(i.xmin::text, '0')), ',' ORDER BY a.oid) \
        FROM pg_partition_ancestors(c.oid) p (relid) JOIN pg_class a ON a.oid = p.relid \
        LEFT JOIN pg_inherits i ON i.inhrelid = a.oid) END AS ancestors";

async fn load_publication(
    connection: &mut Connection,
    version: u32,
    name: &str,
) -> Result<(Option<Publication>, Vec<PublishedTable>, HashMap<u32, u32>), PgError> {
    let literal = escape_literal(name);
    let sql = format!(
        "SELECT oid, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot \
         FROM pg_publication WHERE pubname = {literal}"
    );
    let rows = connection.query(&sql, LIMIT).await?;
    if rows.len() == 0 {
        return Ok((None, Vec::new(), HashMap::new()));
    }
    let actions =
        [("pubinsert", "insert"), ("pubupdate", "update"), ("pubdelete", "delete"), ("pubtruncate", "truncate")];
    let publication = Publication {
        oid: rows.parse(0, "oid")?,
        left_out: actions.iter().filter(|(column, _)| !rows.is_true(0, column)).map(|(_, action)| *action).collect(),
        via_root: rows.is_true(0, "pubviaroot"),
    };
    let sql = format!("SELECT to_json(p)::text AS entry FROM pg_publication_tables p WHERE p.pubname = {literal}");
    let rows = connection.query(&sql, LIMIT).await?;
    let published = (0..rows.len())
        .map(|row| {
            serde_json::from_str(rows.text(row, "entry")?)
                .map_err(|error| PgError::Protocol(format!("an entry of pg_publication_tables: {error}")))
        })
        .collect::<Result<_, PgError>>()?;
    let mut sql = format!("SELECT prrelid AS member, oid FROM pg_publication_rel WHERE prpubid = {}", publication.oid);
    if version >= 150_000 {
        sql.push_str(&format!(
            " UNION ALL SELECT pnnspid, oid FROM pg_publication_namespace WHERE pnpubid = {}",
            publication.oid
        ));
    }
    let rows = connection.query(&sql, LIMIT).await?;
    let memberships = (0..rows.len())
        .map(|row| Ok((rows.parse(row, "member")?, rows.parse(row, "oid")?)))
        .collect::<Result<_, PgError>>()?;
    Ok((Some(publication), published, memberships))
}

/// The relations that some pattern names, and the names of all that are in their schemas. A partition is left out if its
/// root is named too.
async fn load_relations(
    connection: &mut Connection,
    selection: &TableSelection,
) -> Result<(Vec<Relation>, Vec<(String, String)>), PgError> {
    let schemas: BTreeSet<&str> =
        selection.patterns.iter().map(|pattern| pattern.schema.as_deref().unwrap_or(DEFAULT_SCHEMA)).collect();
    if schemas.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let schemas = schemas.into_iter().map(|schema| match schema.strip_suffix('%') {
        Some(prefix) => format!("starts_with(n.nspname::text, {})", escape_literal(prefix)),
        None => format!("n.nspname = {}", escape_literal(schema)),
    });
    let schemas = schemas.collect::<Vec<_>>().join(" OR ");
    let sql = format!(
        "SELECT {RELATION}, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END AS root \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ({schemas}) \
             AND has_table_privilege(c.oid, 'SELECT') IS NOT NULL ORDER BY n.nspname, c.relname"
    );
    // Functions look past the snapshot: of a table that has just been dropped they know neither rights nor root.
    let rows = connection.query(&sql, LIMIT).await?;
    let (mut relations, mut names) = (Vec::new(), Vec::new());
    for row in 0..rows.len() {
        if rows.get(row, "root").is_none() {
            continue;
        }
        let relation = Relation::read(&rows, row)?;
        names.push((relation.schema.clone(), relation.name.clone()));
        if selection.matches(DEFAULT_SCHEMA, &relation.schema, &relation.name) {
            relations.push(relation);
        }
    }
    let named: BTreeSet<u32> = relations.iter().map(|relation| relation.oid).collect();
    relations.retain(|relation| relation.root == relation.oid || !named.contains(&relation.root));
    Ok((relations, names))
}

async fn load_parts(connection: &mut Connection, relations: &[Relation]) -> Result<Vec<Relation>, PgError> {
    let roots: Vec<String> =
        relations.iter().filter(|relation| relation.kind == 'p').map(|relation| relation.oid.to_string()).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {RELATION}, t.root FROM \
             (SELECT r AS root, (pg_partition_tree(r)).relid::oid AS leaf FROM unnest(ARRAY[{}]::oid[]) r) t \
         JOIN pg_class c ON c.oid = t.leaf JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT') IS NOT NULL ORDER BY t.root, c.oid",
        roots.join(",")
    );
    let rows = connection.query(&sql, LIMIT).await?;
    (0..rows.len()).map(|row| Relation::read(&rows, row)).collect()
}

/// A row of `pg_attribute`.
#[derive(Debug)]
struct Attribute {
    record: ColumnRecord,
    generated: bool,
    filled: bool,
    ordered: bool,
}

async fn load_columns(connection: &mut Connection, oids: &[u32]) -> Result<HashMap<u32, Vec<Attribute>>, PgError> {
    let mut columns: HashMap<u32, Vec<Attribute>> = HashMap::new();
    if oids.is_empty() {
        return Ok(columns);
    }
    let sql = format!(
        "SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.xmin AS version, t.typname, \
             a.attgenerated <> '' AS generated, a.atthasmissing AS filled, \
             t.typnamespace = 'pg_catalog'::regnamespace AND coalesce(l.collisdeterministic, true) AS plain \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation \
         WHERE a.attrelid IN ({}) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
        list(oids)
    );
    let rows = connection.query(&sql, LIMIT).await?;
    for row in 0..rows.len() {
        let record = ColumnRecord {
            name: rows.text(row, "attname")?.to_owned(),
            number: rows.parse(row, "attnum")?,
            type_oid: rows.parse(row, "atttypid")?,
            type_modifier: rows.parse(row, "atttypmod")?,
            version: rows.parse(row, "version")?,
        };
        let ordered = rows.is_true(row, "plain") && ORDERED_TYPES.contains(&rows.text(row, "typname")?);
        columns.entry(rows.parse(row, "attrelid")?).or_default().push(Attribute {
            record,
            generated: rows.is_true(row, "generated"),
            filled: rows.is_true(row, "filled"),
            ordered,
        });
    }
    Ok(columns)
}

/// The numbers of the columns of an index.
#[derive(Debug)]
struct Index {
    table: u32,
    primary: bool,
    identity: bool,
    columns: Vec<i16>,
}

async fn load_keys(connection: &mut Connection, oids: &[u32]) -> Result<Vec<Index>, PgError> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT indrelid, indisprimary, indisreplident, indnkeyatts, indkey::text AS columns FROM pg_index \
         WHERE indrelid IN ({}) AND indisvalid AND indimmediate AND (indisprimary OR indisreplident)",
        list(oids)
    );
    let rows = connection.query(&sql, LIMIT).await?;
    (0..rows.len())
        .map(|row| {
            let count: usize = rows.parse(row, "indnkeyatts")?;
            Ok(Index {
                table: rows.parse(row, "indrelid")?,
                primary: rows.is_true(row, "indisprimary"),
                identity: rows.is_true(row, "indisreplident"),
                columns: rows
                    .text(row, "columns")?
                    .split(' ')
                    .filter_map(|word| word.parse().ok())
                    .take(count)
                    .collect(),
            })
        })
        .collect()
}

fn list(oids: &[u32]) -> String {
    oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The key of a table: its replica identity, or its primary key if the whole row is the identity.
fn key_of(relation: &Relation, columns: &[Attribute], keys: &[Index]) -> Vec<String> {
    let index = keys.iter().filter(|index| index.table == relation.oid).find(|index| match relation.identity {
        b'i' => index.identity,
        b'd' | b'f' => index.primary,
        _ => false,
    });
    match index {
        Some(index) => index
            .columns
            .iter()
            .filter_map(|number| columns.iter().find(|column| column.record.number == *number))
            .map(|column| column.record.name.clone())
            .collect(),
        None if relation.identity == b'f' => {
            columns.iter().filter(|column| !column.generated).map(|column| column.record.name.clone()).collect()
        }
        None => Vec::new(),
    }
}

#[allow(clippy::too_many_arguments, reason = "it joins the results of as many queries")]
fn table(
    version: u32,
    selection: &TableSelection,
    relation: &Relation,
    parts: &[&Relation],
    columns: &HashMap<u32, Vec<Attribute>>,
    keys: &[Index],
    published: &HashMap<(&str, &str), &PublishedTable>,
    memberships: &HashMap<u32, u32>,
) -> CatalogTable {
    let attributes = columns.get(&relation.oid).map(Vec::as_slice).unwrap_or_default();
    let entry = |relation: &Relation| published.get(&(relation.schema.as_str(), relation.name.as_str())).copied();
    let key = key_of(relation, attributes, keys);
    // Every leaf must have the same key, or rows of two leaves could not be told apart.
    let same_key = parts.iter().all(|part| {
        let attributes = columns.get(&part.oid).map(Vec::as_slice).unwrap_or_default();
        key_of(part, attributes, keys) == key
    });
    let reads = |name: &str| selection.reads(DEFAULT_SCHEMA, &relation.schema, &relation.name, name);
    let listed = parts.first().and_then(|part| entry(part)).and_then(|entry| entry.attnames.as_ref());
    let in_list = |name: &str| listed.is_none_or(|names| names.iter().any(|listed| listed == name));
    // From 18 on a publication may carry generated columns, and then lists them.
    let carried = |column: &Attribute| {
        in_list(&column.record.name) && (!column.generated || version >= 180_000 && listed.is_some())
    };
    // A star takes what there is; only a name must be there.
    let wanted = |column: &&Attribute| {
        let named = |columns: &Vec<Arc<str>>| columns.iter().any(|name| **name == *column.record.name);
        let patterns = selection.patterns.iter();
        patterns
            .filter(|pattern| pattern.matches(DEFAULT_SCHEMA, &relation.schema, &relation.name))
            .any(|pattern| pattern.columns.as_ref().is_some_and(named))
    };
    let names = |column: &Attribute| column.record.name.clone();
    CatalogTable {
        kind: relation.kind,
        permanent: relation.permanent && parts.iter().all(|part| part.permanent),
        published: parts.iter().all(|part| entry(part).is_some()),
        can_select: relation.can_select && parts.iter().all(|part| part.can_select),
        row_security: relation.row_security || parts.iter().any(|part| part.row_security),
        partitioned: relation.kind == 'p',
        ordered: key.iter().all(|name| attributes.iter().any(|column| column.record.name == *name && column.ordered))
            && (relation.identity != b'f' || keys.iter().any(|index| index.table == relation.oid && index.primary)),
        all_columns: attributes.iter().map(names).collect(),
        generated: attributes
            .iter()
            .filter(|column| wanted(column) || key.contains(&column.record.name))
            .filter(|column| column.generated && !carried(column))
            .map(names)
            .collect(),
        unpublished: attributes.iter().filter(wanted).filter(|c| !in_list(&c.record.name)).map(names).collect(),
        filled: parts
            .iter()
            .flat_map(|part| columns.get(&part.oid).map(Vec::as_slice).unwrap_or_default())
            .filter(|column| column.filled)
            .map(names)
            .collect(),
        estimate: parts.iter().map(|part| part.estimate).sum(),
        record: TableRecord {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            identity: relation.identity,
            width: relation.width,
            membership: [relation.oid, relation.namespace]
                .iter()
                .find_map(|member| memberships.get(member))
                .copied()
                .unwrap_or(0),
            columns: attributes
                .iter()
                .filter(|column| carried(column) && (reads(&column.record.name) || key.contains(&column.record.name)))
                .map(|column| column.record.clone())
                .collect(),
            key: if same_key { key } else { Vec::new() },
            parts: parts
                .iter()
                .map(|part| PartRecord {
                    oid: part.oid,
                    schema: part.schema.clone(),
                    name: part.name.clone(),
                    file: part.file,
                    toast: part.toast,
                    link: part.link(memberships),
                    filter: entry(part).and_then(|entry| entry.rowfilter.clone()),
                    progress: Progress::Pending,
                })
                .collect(),
            stale: None,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn relation(oid: u32, kind: char, root: u32) -> Relation {
        Relation {
            oid,
            namespace: 7,
            schema: "public".into(),
            name: format!("t{oid}"),
            kind,
            permanent: true,
            identity: b'd',
            file: 1,
            width: 1,
            row_security: false,
            can_select: true,
            estimate: None,
            toast: 0,
            ancestors: Vec::new(),
            root,
        }
    }

    #[test]
    fn each_table_with_rows_is_asked_for_once() {
        let relations: Vec<Relation> =
            [(1, 'p'), (2, 'r'), (3, 'p'), (4, 'v')].map(|(oid, kind)| relation(oid, kind, oid)).into();
        let parts = [relation(10, 'r', 1), relation(11, 'r', 3)];
        assert_eq!(with_rows(&relations, &parts), [1, 2, 3, 10, 11]);
    }

    #[test]
    fn a_partition_that_was_attached_or_published_again_has_another_link() {
        let part = |text: &str| Relation {
            ancestors: text.split(',').map(|text| Ancestor::read(text).unwrap()).collect(),
            ..relation(2, 'r', 1)
        };
        let memberships = |root: u32| HashMap::from([(1, root)]);
        let link = part("1:7:0,2:7:50").link(&memberships(5));
        assert_eq!(link, part("1:7:0,2:7:50").link(&memberships(5)));
        assert_ne!(link, part("1:7:0,2:7:51").link(&memberships(5)));
        assert_ne!(link, part("1:7:0,2:7:50").link(&memberships(6)));
        assert!(Ancestor::read("1:x:2").is_none() && Ancestor::read("1:2").is_none());
    }
}
