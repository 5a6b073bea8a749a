//! What tables a source has, as far as someone has looked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A schema, and a table in it.
type TableName = (Arc<str>, Arc<str>);
pub(super) type Columns = BTreeSet<Arc<str>>;

/// The tables and columns of a source, for warnings about names that it does not have: see
/// [`SyncConfig::parse_with_schema`](super::SyncConfig::parse_with_schema).
///
/// ```
/// use syncline_core::{SourceSchema, SyncConfig};
///
/// let schema = SourceSchema::new().table("public", "lists", ["id", "owner_id"]);
/// let config = SyncConfig::parse_with_schema(
///     "
/// config: { edition: 3 }
/// streams:
///   mine:
///     auto_subscribe: true
///     query: SELECT * FROM list WHERE owner_id = auth.user_id()
/// ",
///     &schema,
/// )?;
/// let [warning] = config.warnings() else { panic!("one table is not there") };
/// assert_eq!((warning.kind, warning.line, warning.column), ("table-not-found", 6, 26));
/// assert_eq!(warning.suggestion.as_deref(), Some("did you mean `lists`?"));
/// # Ok::<(), syncline_core::Diagnostics>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSchema {
    default_schema: Arc<str>,
    tables: BTreeMap<TableName, Columns>,
}

impl SourceSchema {
    /// A source without tables, whose default schema is `public`, as in Postgres.
    pub fn new() -> Self {
        Self { default_schema: "public".into(), tables: BTreeMap::new() }
    }

    /// Tables that a config names without a schema are in this one.
    #[must_use]
    pub fn default_schema(mut self, name: impl Into<Arc<str>>) -> Self {
        self.default_schema = name.into();
        self
    }

    /// Adds a table, or columns to one that is there.
    #[must_use]
    pub fn table(
        mut self,
        schema: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        columns: impl IntoIterator<Item = impl Into<Arc<str>>>,
    ) -> Self {
        let known = self.tables.entry((schema.into(), name.into())).or_default();
        known.extend(columns.into_iter().map(Into::into));
        self
    }

    /// Whether it has no table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The columns that a name in FROM may have: those of all tables that it means, which may be a pattern. `None` if there is
    /// no such table.
    pub(super) fn columns(&self, schema: Option<&str>, name: &str) -> Option<Columns> {
        let is = |pattern: &str, text: &str| match pattern.strip_suffix('%') {
            Some(prefix) => text.starts_with(prefix),
            None => pattern == text,
        };
        let schema = schema.unwrap_or(&self.default_schema);
        let mut found = self.tables.iter().filter(|((of, table), _)| is(schema, of) && is(name, table)).peekable();
        found.peek()?;
        Some(found.flat_map(|(_, columns)| columns.iter().cloned()).collect())
    }

    /// The names of the tables of a schema.
    pub(super) fn names(&self, schema: Option<&str>) -> Vec<&str> {
        let schema = schema.unwrap_or(&self.default_schema);
        self.tables.keys().filter(|(of, _)| **of == *schema).map(|(_, table)| &**table).collect()
    }
}

impl Default for SourceSchema {
    fn default() -> Self {
        Self::new()
    }
}
