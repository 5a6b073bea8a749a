//! Expressions as SQL again, for people: names as they were resolved, conditions as the plan has them.

use super::expression::{EachInput, EachPart, Expression, RequestInput, RequestSource, RowInput, TablePart};
use super::normal_form::Side;
use super::operation::Operation;
use crate::value::Value;

/// An input that has a name in SQL.
pub(super) trait Named {
    fn name(&self) -> String;
}

impl Named for RowInput {
    fn name(&self) -> String {
        match self {
            Self::Column(name) => identifier(name),
            Self::Each(function, part) => format!("element{}.{}", function + 1, part.name()),
            Self::Table(TablePart::Schema) => "schema()".into(),
            Self::Table(TablePart::Name) => "table_name()".into(),
            Self::Table(TablePart::Suffix) => "table_suffix()".into(),
        }
    }
}

impl Named for EachPart {
    fn name(&self) -> String {
        match self {
            Self::Key => "key".into(),
            Self::Value => "value".into(),
        }
    }
}

impl Named for EachInput {
    fn name(&self) -> String {
        match self {
            Self::Part(part) => part.name(),
            Self::Request(request) => request.name(),
        }
    }
}

impl Named for RequestInput {
    fn name(&self) -> String {
        let members = |table: &str| {
            let path: Vec<String> = self.path.iter().map(|key| identifier(key)).collect();
            format!("{table}.{}", path.join("."))
        };
        let source = match self.source {
            RequestSource::TokenParameters => return members("token_parameters"),
            RequestSource::UserParameters => return members("user_parameters"),
            RequestSource::Auth => "auth",
            RequestSource::Connection => "connection",
            RequestSource::Subscription => "subscription",
        };
        match self.path.as_slice() {
            [] => format!("{source}.parameters()"),
            [only] if self.source == RequestSource::Auth && &**only == "sub" => "auth.user_id()".into(),
            [only] => format!("{source}.parameter({})", text(only)),
            path => {
                let path: String = path.iter().map(|key| format!(".{key}")).collect();
                format!("{source}.parameter({})", text(&format!("${path}")))
            }
        }
    }
}

/// The text of an expression.
pub(super) fn sql<I: Named>(expression: &Expression<I>) -> String {
    write(expression, false)
}

/// The text of a key, and of what it is compared with.
pub(super) fn side<I: Named>(side: &Side<I>) -> String {
    match side {
        Side::Value(value) => sql(value),
        Side::Elements(list) => format!("an element of {}", write(list, true)),
    }
}

/// `inside` is where an operator needs parentheses.
fn write<I: Named>(expression: &Expression<I>, inside: bool) -> String {
    let (operation, arguments) = match expression {
        Expression::Literal(value) => return literal(value),
        Expression::Input(input) => return input.name(),
        Expression::Call(operation, arguments) => (*operation, arguments.as_slice()),
    };
    let part = |index: usize| arguments.get(index).map_or_else(String::new, |argument| write(argument, true));
    let infix = |operator: &str| {
        let parts: Vec<_> = arguments.iter().map(|argument| write(argument, true)).collect();
        parts.join(&format!(" {operator} "))
    };
    let written = match operation {
        Operation::Not => format!("NOT {}", part(0)),
        Operation::And => infix("AND"),
        Operation::Or => infix("OR"),
        Operation::IsNull => format!("{} IS NULL", part(0)),
        Operation::IsTrue => format!("{} IS TRUE", part(0)),
        Operation::IsFalse => format!("{} IS FALSE", part(0)),
        Operation::Between => format!("{} BETWEEN {} AND {}", part(0), part(1), part(2)),
        Operation::InJson | Operation::InEach => format!("{} IN {}", part(0), part(1)),
        Operation::InList => {
            let members: Vec<_> = arguments.iter().skip(1).map(|member| write(member, false)).collect();
            format!("{} IN ARRAY[{}]", part(0), members.join(", "))
        }
        Operation::Overlap | Operation::OverlapEach => infix("&&"),
        Operation::LegacyArrow => infix("->"),
        Operation::LegacyArrowText => infix("->>"),
        // What is not a list is told where it is met.
        Operation::Array | Operation::ArrayOrNull => return part(0),
        Operation::Cast(_) => return format!("{}{}", part(0), operation.name()),
        Operation::Case => return case(arguments),
        Operation::Function(function) => {
            let arguments: Vec<_> = arguments.iter().map(|argument| write(argument, false)).collect();
            let name = function.name();
            return format!("{}({})", name.strip_prefix("legacy ").unwrap_or(name), arguments.join(", "));
        }
        other => infix(other.name()),
    };
    if inside { format!("({written})") } else { written }
}

fn case<I: Named>(arguments: &[Expression<I>]) -> String {
    let mut parts = arguments.chunks_exact(2);
    let mut written = String::from("CASE");
    for part in &mut parts {
        written.push_str(&format!(" WHEN {} THEN {}", sql(&part[0]), sql(&part[1])));
    }
    if let [otherwise] = parts.remainder() {
        written.push_str(&format!(" ELSE {}", sql(otherwise)));
    }
    written + " END"
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => crate::json::shortest_real(*real),
        Value::Text(value) => text(value),
        Value::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn identifier(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain && !name.starts_with(|first: char| first.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
