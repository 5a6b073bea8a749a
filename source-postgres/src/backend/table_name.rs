//! Names of tables and columns as they stand in SQL text.

use std::fmt;
use std::sync::Arc;

/// The name of a table in Postgres: with its schema, or to be found on the search path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    schema: Option<Arc<str>>,
    name: Arc<str>,
}

impl TableName {
    /// Reads `table` or `schema.table`. The parts are taken literally: case counts.
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) if !schema.is_empty() && !name.is_empty() => {
                Self { schema: Some(schema.into()), name: name.into() }
            }
            _ => Self { schema: None, name: text.into() },
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", Quoted(schema))?;
        }
        write!(f, "{}", Quoted(&self.name))
    }
}

/// An identifier, quoted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A text literal, quoted for any setting of `standard_conforming_strings`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Literal<'a>(pub(crate) &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = if self.0.contains('\\') { "E" } else { "" };
        write!(f, "{escape}'{}'", self.0.replace('\\', "\\\\").replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_break_out() {
        assert_eq!(TableName::parse("app.my\"table").to_string(), r#""app"."my""table""#);
        assert_eq!(TableName::parse("todos").to_string(), r#""todos""#);
        assert_eq!(Literal(r"it's \ here").to_string(), r"E'it''s \\ here'");
    }
}
