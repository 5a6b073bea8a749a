//! The SQL of an application's table: the table itself, its indexes, and the statements that publish rows.

use super::schema::Table;

/// An identifier in double quotes.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal in single quotes.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Joins pieces with an operator as a balanced tree: SQLite limits the depth of an expression to 1000.
pub(crate) fn balanced(pieces: &[String], operator: &str, empty: &str) -> String {
    match pieces {
        [] => empty.to_owned(),
        [one] => one.clone(),
        _ => {
            let (left, right) = pieces.split_at(pieces.len() / 2);
            format!("({}{operator}{})", balanced(left, operator, empty), balanced(right, operator, empty))
        }
    }
}

/// `CREATE TABLE` under `name`. Only the key is constrained, and only to what every server sends.
pub(crate) fn create_table(table: &Table, name: &str) -> String {
    let mut sql =
        format!("CREATE TABLE {} (\"id\" TEXT PRIMARY KEY NOT NULL CHECK (typeof(\"id\") = 'text')", identifier(name));
    for column in table.columns() {
        sql.push_str(", ");
        sql.push_str(&identifier(&column.name));
        sql.push(' ');
        sql.push_str(column.kind.sql());
    }
    sql.push(')');
    sql
}

/// `CREATE INDEX` for every index, on the table called `name`. The epoch makes the names of a rebuilt table new ones.
pub(crate) fn create_indexes(table: &Table, name: &str, epoch: i64) -> Vec<String> {
    let indexes = table.indexes().iter().map(|index| {
        let columns: Vec<String> = index
            .columns
            .iter()
            .map(|(column, descending)| format!("{}{}", identifier(column), if *descending { " DESC" } else { "" }))
            .collect();
        let index_name = format!("syncline_{epoch}_{}_{}", table.name(), index.name);
        format!("CREATE INDEX {} ON {} ({})", identifier(&index_name), identifier(name), columns.join(", "))
    });
    indexes.collect()
}

/// Inserts or replaces a row: `?1` is the id, `?2…` are the columns. An upsert, so that hooks and triggers of the
/// application see an update where a row was there.
pub(crate) fn upsert(table: &Table, name: &str) -> String {
    let columns: Vec<String> = table.columns().iter().map(|column| identifier(&column.name)).collect();
    let mut sql = format!("INSERT INTO {} (\"id\"", identifier(name));
    for column in &columns {
        sql.push_str(", ");
        sql.push_str(column);
    }
    sql.push_str(") VALUES (?1");
    for number in 0..columns.len() {
        sql.push_str(&format!(", ?{}", number + 2));
    }
    sql.push_str(") ON CONFLICT (\"id\") DO ");
    if columns.is_empty() {
        sql.push_str("NOTHING");
        return sql;
    }
    sql.push_str("UPDATE SET ");
    for (number, column) in columns.iter().enumerate() {
        if number > 0 {
            sql.push_str(", ");
        }
        sql.push_str(&format!("{column} = excluded.{column}"));
    }
    sql
}

/// Deletes a row by its id.
pub(crate) fn delete(name: &str) -> String {
    format!("DELETE FROM {} WHERE \"id\" = ?1", identifier(name))
}
