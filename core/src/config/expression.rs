//! Expressions after names are resolved, over any kind of input: columns of a row, values of a request, or indexes.

use std::sync::Arc;

use super::operation::Operation;
use super::span::Span;
use crate::json;
use crate::value::Value;

/// An expression whose inputs are of type `I`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression<I> {
    Literal(Value),
    Input(I),
    Call(Operation, Vec<Self>),
}

/// A column of the table that a query reads.
pub(super) type Column = Arc<str>;

/// Where request values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// The verified claims of the token.
    Auth,
    /// What the client sends once per connection.
    Connection,
    /// What the client sends with one subscription.
    Subscription,
    /// The claim `parameters`, as bucket definitions read it.
    TokenParameters,
    /// What the client sends once per connection, as bucket definitions read it.
    UserParameters,
}

/// A value of the request: a path into one of its sources; the empty path is all of it, as JSON text.
#[derive(Debug, Clone)]
pub(super) struct RequestInput {
    pub(super) source: RequestSource,
    pub(super) path: Vec<Arc<str>>,
    /// Where it stands in the document, for diagnostics.
    pub(super) span: Span,
}

impl PartialEq for RequestInput {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.path == other.path
    }
}

/// A table or a table function in FROM, numbered over a whole query with its subqueries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(pub(super) usize);

/// A column of `json_each`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EachPart {
    Key,
    Value,
}

/// An input of an expression over a row of `json_each` and the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EachInput {
    Part(EachPart),
    Request(RequestInput),
}

/// What is known of a table rather than of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TablePart {
    Schema,
    Name,
    /// What follows the prefix of a pattern.
    Suffix,
}

/// An input of a condition, which may compare rows with each other and with the request. Spans are places in the document.
#[derive(Debug, Clone)]
pub(super) enum ConditionInput {
    Column {
        source: SourceId,
        name: Column,
        span: Span,
    },
    Each {
        source: SourceId,
        part: EachPart,
        span: Span,
    },
    Table {
        source: SourceId,
        part: TablePart,
        span: Span,
    },
    /// True of every row of the source: it must have one.
    Present(SourceId),
    Request(RequestInput),
    /// A parameter of the bucket, in a data query of a bucket definition.
    Bucket {
        name: Column,
        span: Span,
    },
}

/// Places do not count: the same input twice is one input.
impl PartialEq for ConditionInput {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Column { source, name, .. }, Self::Column { source: of, name: other, .. }) => {
                (source, name) == (of, other)
            }
            (Self::Each { source, part, .. }, Self::Each { source: of, part: other, .. }) => {
                (source, part) == (of, other)
            }
            (Self::Table { source, part, .. }, Self::Table { source: of, part: other, .. }) => {
                (source, part) == (of, other)
            }
            (Self::Present(source), Self::Present(other)) => source == other,
            (Self::Request(request), Self::Request(other)) => request == other,
            (Self::Bucket { name, .. }, Self::Bucket { name: other, .. }) => name == other,
            _ => false,
        }
    }
}

impl ConditionInput {
    /// What its rows come from; `None` for the request.
    pub(super) fn source(&self) -> Option<SourceId> {
        match self {
            Self::Column { source, .. } | Self::Each { source, .. } | Self::Table { source, .. } => Some(*source),
            Self::Present(source) => Some(*source),
            Self::Request(_) | Self::Bucket { .. } => None,
        }
    }

    /// Where it stands in the document.
    pub(super) fn span(&self) -> Option<Span> {
        match self {
            Self::Column { span, .. } | Self::Each { span, .. } | Self::Table { span, .. } => Some(*span),
            Self::Bucket { span, .. } => Some(*span),
            Self::Present(_) => None,
            Self::Request(request) => Some(request.span),
        }
    }
}

/// An input of an expression over one row of one table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowInput {
    Column(Column),
    /// A column of one of the row's `json_each`, numbered.
    Each(usize, EachPart),
    Table(TablePart),
}

impl<I> Expression<I> {
    /// Visits every input, from left to right.
    pub(super) fn inputs<'a>(&'a self, visit: &mut impl FnMut(&'a I)) {
        match self {
            Self::Literal(_) => {}
            Self::Input(input) => visit(input),
            Self::Call(_, arguments) => arguments.iter().for_each(|argument| argument.inputs(visit)),
        }
    }

    /// The same expression with other expressions for its inputs; `None` if one of them has no counterpart.
    pub(super) fn replace<J>(&self, translate: &mut impl FnMut(&I) -> Option<Expression<J>>) -> Option<Expression<J>> {
        Some(match self {
            Self::Literal(value) => Expression::Literal(value.clone()),
            Self::Input(input) => translate(input)?,
            Self::Call(operation, arguments) => Expression::Call(
                *operation,
                arguments.iter().map(|argument| argument.replace(translate)).collect::<Option<_>>()?,
            ),
        })
    }

    /// Whether it has no inputs.
    pub(super) fn is_constant(&self) -> bool {
        let mut constant = true;
        self.inputs(&mut |_| constant = false);
        constant
    }

    pub(super) fn not(self) -> Self {
        Self::Call(Operation::Not, vec![self])
    }

    /// `operation` over all of them; one alone stays as it is, since it is only asked whether it is true.
    pub(super) fn all(operation: Operation, mut members: Vec<Self>) -> Self {
        match members.pop() {
            Some(only) if members.is_empty() => only,
            Some(last) => {
                members.push(last);
                Self::Call(operation, members)
            }
            None => Self::Literal(Value::Integer(i64::from(operation == Operation::And))),
        }
    }
}

/// An input that can be written into a canonical form.
pub(super) trait Form {
    fn write(&self, out: &mut Vec<u8>);
}

impl Form for Column {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"[\"c\",");
        json::write_string(out, self);
        out.push(b']');
    }
}

impl Form for RowInput {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Column(column) => column.write(out),
            Self::Each(function, part) => {
                out.extend_from_slice(format!("[\"e\",{function},\"{}\"]", part.name()).as_bytes());
            }
            Self::Table(part) => out.extend_from_slice(match part {
                TablePart::Schema => b"[\"t\",\"schema\"]".as_slice(),
                TablePart::Name => b"[\"t\",\"name\"]",
                TablePart::Suffix => b"[\"t\",\"suffix\"]",
            }),
        }
    }
}

impl EachPart {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

impl Form for EachPart {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("[\"e\",\"{}\"]", self.name()).as_bytes());
    }
}

impl Form for EachInput {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Part(part) => part.write(out),
            Self::Request(request) => request.write(out),
        }
    }
}

/// Without the number of its source, which depends on the query around it.
impl Form for ConditionInput {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Column { name, .. } => name.write(out),
            Self::Each { part, .. } => part.write(out),
            Self::Table { part, .. } => RowInput::Table(*part).write(out),
            Self::Present(_) => out.extend_from_slice(b"[\"present\"]"),
            Self::Request(request) => request.write(out),
            Self::Bucket { name, .. } => {
                out.extend_from_slice(b"[\"bucket\",");
                json::write_string(out, name);
                out.push(b']');
            }
        }
    }
}

impl Form for RequestInput {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.source {
            RequestSource::Auth => b"[\"auth\"".as_slice(),
            RequestSource::Connection => b"[\"connection\"",
            RequestSource::Subscription => b"[\"subscription\"",
            RequestSource::TokenParameters => b"[\"token_parameters\"",
            RequestSource::UserParameters => b"[\"user_parameters\"",
        });
        for key in &self.path {
            out.push(b',');
            json::write_string(out, key);
        }
        out.push(b']');
    }
}

impl<I: Form> Expression<I> {
    /// Appends the canonical form: JSON, equal for equal expressions and for no others.
    pub(super) fn write_form(&self, out: &mut Vec<u8>) {
        match self {
            Self::Literal(value) => {
                out.extend_from_slice(match value {
                    Value::Text(_) => b"[\"t\",".as_slice(),
                    Value::Null => b"[\"n\",",
                    Value::Integer(_) => b"[\"i\",",
                    Value::Real(_) => b"[\"r\",",
                    Value::Blob(_) => b"[\"b\",",
                });
                match value {
                    Value::Blob(bytes) => {
                        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        json::write_string(out, &hex);
                    }
                    other => json::write_value(out, other),
                }
                out.push(b']');
            }
            Self::Input(input) => input.write(out),
            Self::Call(operation, arguments) => {
                out.extend_from_slice(b"[\"f\",");
                json::write_string(out, operation.name());
                for argument in arguments {
                    out.push(b',');
                    argument.write_form(out);
                }
                out.push(b']');
            }
        }
    }

    /// The canonical form by itself.
    pub(super) fn form(&self) -> String {
        let mut out = Vec::new();
        self.write_form(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}
