//! What an application declares: the tables that it reads and writes.

use std::collections::HashSet;

use serde::Serialize;

use super::error::Result;

/// SQLite's limit is 2000 columns; `id` is one of them.
const MAX_COLUMNS: usize = 1999;

/// The tables of a client's database. Adding, changing or removing a table or a column needs no migration: the tables are
/// rebuilt from what was downloaded when the database is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    tables: Vec<Table>,
}

impl Schema {
    /// No tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table. Problems are reported, all at once, when the database is opened.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    /// The tables, in order.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The synced table of this name.
    pub(crate) fn synced(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name && !table.local_only)
    }

    /// Checks names, duplicates and limits.
    ///
    /// # Errors
    /// `Invalid`, with every problem in its message.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut names = HashSet::new();
        for table in &self.tables {
            table.collect_problems(&mut problems);
            if !names.insert(table.name.to_lowercase()) {
                problems.push(format!("table {:?} is declared twice", table.name));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(syncline_core::Error::invalid(format!("the schema is wrong: {}", problems.join("; "))).into())
    }
}

/// A table: a text primary key `id`, which is always there, and columns.
///
/// Synced rows carry no constraints, because what the server sends must always fit; [`Table::required`] binds local
/// writes alone. An application may put triggers and indexes of its own on the table, but what refuses a synced row gives
/// way: the row is shown without its triggers, and a unique index, or another that it cannot be shown with, is dropped.
/// The log names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    name: String,
    columns: Vec<Column>,
    indexes: Vec<Index>,
    local_only: bool,
    previous: PreviousValues,
    metadata: bool,
    required: Vec<String>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name, also the member of the synced row.
    pub name: String,
    /// Its type, a preference as always in SQLite.
    pub kind: ColumnType,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ColumnType {
    /// Text.
    Text,
    /// A 64-bit integer; booleans are 0 and 1.
    Integer,
    /// A double.
    Real,
}

impl ColumnType {
    /// The word in `CREATE TABLE`.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
        }
    }
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Index {
    /// Its name, unique in the table.
    pub name: String,
    /// Its columns; `true` for descending order.
    pub columns: Vec<(String, bool)>,
}

/// Which values before a write go into the upload queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PreviousValues {
    /// None.
    Untracked,
    /// Those of all columns.
    All,
    /// Those of these columns.
    Of(Vec<String>),
}

impl Table {
    /// A table with the column `id` alone. Its name is that of the synced rows.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            columns: Vec::new(),
            indexes: Vec::new(),
            local_only: false,
            previous: PreviousValues::Untracked,
            metadata: false,
            required: Vec::new(),
        }
    }

    /// Adds a text column.
    #[must_use]
    pub fn text(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnType::Text)
    }

    /// Adds an integer column.
    #[must_use]
    pub fn integer(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnType::Integer)
    }

    /// Adds a column of doubles.
    #[must_use]
    pub fn real(self, name: impl Into<String>) -> Self {
        self.column(name, ColumnType::Real)
    }

    /// Adds a column.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, kind: ColumnType) -> Self {
        self.columns.push(Column { name: name.into(), kind });
        self
    }

    /// Adds an index; a column written `-name` is in descending order.
    #[must_use]
    pub fn index<C: Into<String>>(mut self, name: impl Into<String>, columns: impl IntoIterator<Item = C>) -> Self {
        let columns = columns.into_iter().map(|column| {
            let column: String = column.into();
            match column.strip_prefix('-') {
                Some(name) => (name.to_owned(), true),
                None => (column, false),
            }
        });
        self.indexes.push(Index { name: name.into(), columns: columns.collect() });
        self
    }

    /// Keeps the table on this device: neither uploaded nor synced. If a later schema makes it a synced one, its rows are
    /// set aside in a table `<name>_local`, from which the application may insert them.
    #[must_use]
    pub fn local_only(mut self) -> Self {
        self.local_only = true;
        self
    }

    /// Sends the values before an update or delete along with it, for conflict resolution.
    #[must_use]
    pub fn track_previous(mut self) -> Self {
        self.previous = PreviousValues::All;
        self
    }

    /// The same for some columns.
    #[must_use]
    pub fn track_previous_of<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.previous = PreviousValues::Of(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Sends the note of [`WriteTransaction::metadata`](crate::WriteTransaction::metadata) along with each write.
    #[must_use]
    pub fn track_metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// Refuses local writes that leave this column NULL. Synced rows are not held to it.
    #[must_use]
    pub fn required(mut self, column: impl Into<String>) -> Self {
        self.required.push(column.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its columns without `id`, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Its indexes.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// Whether it stays on this device.
    pub fn is_local_only(&self) -> bool {
        self.local_only
    }

    pub(crate) fn previous(&self) -> &PreviousValues {
        &self.previous
    }

    pub(crate) fn tracks_metadata(&self) -> bool {
        self.metadata
    }

    pub(crate) fn required_columns(&self) -> &[String] {
        &self.required
    }

    fn collect_problems(&self, problems: &mut Vec<String>) {
        let table = &self.name;
        check_name("table", table, problems);
        let lower = table.to_lowercase();
        if lower.starts_with("syncline_") || lower.starts_with("sqlite_") {
            problems.push(format!("table {table:?} has a prefix that is reserved"));
        }
        if self.columns.len() > MAX_COLUMNS {
            problems.push(format!("table {table:?} has more than {MAX_COLUMNS} columns"));
        }
        let mut names = HashSet::new();
        for column in &self.columns {
            check_name("column", &column.name, problems);
            let lower = column.name.to_lowercase();
            if lower == "id" {
                problems.push(format!("table {table:?} declares the column \"id\", which every table has"));
            } else if !names.insert(lower) {
                problems.push(format!("table {table:?} declares the column {:?} twice", column.name));
            }
        }
        let known = |name: &str| name.eq_ignore_ascii_case("id") || self.columns.iter().any(|c| c.name == name);
        let mut index_names = HashSet::new();
        for index in &self.indexes {
            check_name("index", &index.name, problems);
            if !index_names.insert(index.name.to_lowercase()) {
                problems.push(format!("table {table:?} declares the index {:?} twice", index.name));
            }
            if index.columns.is_empty() {
                problems.push(format!("the index {:?} of table {table:?} has no columns", index.name));
            }
            for (column, _) in index.columns.iter().filter(|(column, _)| !known(column)) {
                problems.push(format!("the index {:?} of table {table:?} names no column: {column:?}", index.name));
            }
        }
        let listed = match &self.previous {
            PreviousValues::Of(columns) => columns.as_slice(),
            _ => &[],
        };
        for column in listed.iter().chain(&self.required) {
            if !self.columns.iter().any(|c| &c.name == column) {
                problems.push(format!("table {table:?} names no column: {column:?}"));
            }
        }
        if self.local_only && (self.previous != PreviousValues::Untracked || self.metadata) {
            problems.push(format!("table {table:?} is local only, so there is no upload to track values for"));
        }
    }
}

/// The characters that official SDKs refuse, and control characters.
fn check_name(what: &str, name: &str, problems: &mut Vec<String>) {
    const FORBIDDEN: &[char] = &['"', '\'', '%', ',', '.', '#', '[', ']', '`'];
    if name.is_empty() {
        problems.push(format!("a {what} has no name"));
    } else if name.contains(|c: char| c.is_whitespace() || c.is_control() || FORBIDDEN.contains(&c)) {
        problems.push(format!("the {what} name {name:?} contains a character that is not allowed"));
    } else if what == "column" && name.starts_with('-') {
        problems.push(format!("the {what} name {name:?} begins with a minus"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(table: Table) -> String {
        Schema::new().table(table).validate().expect_err("the schema is wrong").to_string()
    }

    #[test]
    fn a_good_schema_is_accepted() {
        let table =
            Table::new("todos").text("list_id").integer("done").real("x").index("by_list", ["list_id", "-done"]);
        let schema = Schema::new().table(table).table(Table::new("lists").track_previous());
        assert!(schema.validate().is_ok());
    }

    #[test]
    fn every_problem_is_named() {
        assert!(problem(Table::new("syncline_queue")).contains("reserved"));
        assert!(problem(Table::new("a b")).contains("not allowed"));
        assert!(problem(Table::new("")).contains("no name"));
        assert!(problem(Table::new("t").text("ID")).contains("every table has"));
        assert!(problem(Table::new("t").text("a").integer("A")).contains("twice"));
        assert!(problem(Table::new("t").text("a").index("i", ["b"])).contains("names no column"));
        assert!(problem(Table::new("t").required("x")).contains("names no column"));
        assert!(problem(Table::new("t").local_only().track_previous()).contains("local only"));
        let wide = (0..2000).fold(Table::new("t"), |table, n| table.text(format!("c{n}")));
        assert!(problem(wide).contains("more than 1999"));
        let both = Schema::new().table(Table::new("t")).table(Table::new("T").text("a b"));
        let message = both.validate().expect_err("wrong").to_string();
        assert!(message.contains("declared twice") && message.contains("not allowed"), "{message}");
    }
}
