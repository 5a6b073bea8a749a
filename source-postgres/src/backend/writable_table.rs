//! What a client may write of one table.

use std::collections::BTreeSet;
use std::sync::Arc;

use syncline_core::ConflictResolver;

use crate::backend::table_name::TableName;
use crate::backend::write_rule::{Sight, WriteRule};

/// A table that clients may write, with its rule and its options; see
/// [`PostgresBackend::table_with`](crate::PostgresBackend::table_with).
#[derive(Debug, Clone)]
pub struct WritableTable {
    pub(crate) name: Arc<str>,
    pub(crate) stored_as: TableName,
    pub(crate) id_column: Arc<str>,
    pub(crate) rule: WriteRule,
    pub(crate) columns: Option<BTreeSet<Arc<str>>>,
    pub(crate) resolver: Option<Arc<dyn ConflictResolver>>,
}

impl WritableTable {
    /// The synced table `name`, as clients call it: stored in the Postgres table of the same name on the search path,
    /// with its rows' ids in the column `id`, all of its columns writable, the last write to arrive wins.
    pub fn new(name: impl Into<Arc<str>>, rule: WriteRule) -> Self {
        let name = name.into();
        let stored_as = TableName::parse(&name);
        Self { name, stored_as, id_column: "id".into(), rule, columns: None, resolver: None }
    }

    /// The table in Postgres: `table` or `schema.table`, taken literally (case counts).
    #[must_use]
    pub fn stored_as(mut self, table: &str) -> Self {
        self.stored_as = TableName::parse(table);
        self
    }

    /// The column that holds the synced id. It needs a unique index of its own.
    #[must_use]
    pub fn id_column(mut self, column: impl Into<Arc<str>>) -> Self {
        self.id_column = column.into();
        self
    }

    /// Restricts what clients may write to these columns (and the id). A write of another column is rejected.
    #[must_use]
    pub fn columns<C: Into<Arc<str>>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Decides how writes meet rows that have changed meanwhile, instead of [`LastWriteWins`](syncline_core::LastWriteWins).
    ///
    /// It sees rows and values in the JSON of Postgres (`to_jsonb`), the uploaded `data` and `old` included, so that
    /// they compare; the columns it writes instead are read the same way and are not restricted by
    /// [`columns`](Self::columns). The rule is asked first, and once more for what is written instead.
    #[must_use]
    pub fn resolver(mut self, resolver: impl ConflictResolver + 'static) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// What must be read of a row to decide about a write.
    pub(crate) fn sight(&self) -> Sight {
        if self.resolver.is_some() { Sight::Row } else { self.rule.sight() }
    }
}
