//! The operations of expressions.

use super::functions::Function;

/// What a call computes from its arguments. The name of an operation is part of canonical forms and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Not,
    And,
    Or,
    Equal,
    /// NULL if a side is NULL; edition 3 negates [`Equal`](Self::Equal) instead.
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    IsNull,
    IsTrue,
    IsFalse,
    /// `x BETWEEN low AND high`.
    Between,
    /// `x IN json`: membership in the JSON array that the second argument's text holds.
    InJson,
    /// `x IN json` in a condition: membership in the rows of `json_each`.
    InEach,
    /// `x IN ARRAY[…]`: membership in the arguments that follow the first.
    InList,
    /// `a && b`: whether two JSON arrays share an element.
    Overlap,
    /// `a && b` in a condition: whether the rows of `json_each` share one.
    OverlapEach,
    Add,
    Subtract,
    Multiply,
    Divide,
    Concat,
    /// `->`.
    Arrow,
    /// `->>`.
    ArrowText,
    /// `->` and `->>` with dots in every path, and with NULL where the fixed rules have `null`, and the other way round.
    LegacyArrow,
    LegacyArrowText,
    /// A text that holds a JSON array, and NULL, as they are; anything else is an error.
    Array,
    /// A text that holds a JSON array as it is, and NULL for anything else.
    ArrayOrNull,
    Cast(CastTarget),
    /// An operator of Postgres that has no value here.
    NotImplemented(&'static str),
    /// Conditions and values in turn, then the value for none of them.
    Case,
    Function(Function),
}

/// What a value is cast to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CastTarget {
    Text,
    Numeric,
    Integer,
    Real,
    Blob,
}

impl CastTarget {
    /// The names of the types.
    pub(super) const NAMES: [&'static str; 5] = ["text", "numeric", "integer", "real", "blob"];

    pub(super) fn find(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "text" => Self::Text,
            "numeric" => Self::Numeric,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "blob" => Self::Blob,
            _ => return None,
        })
    }
}

impl Operation {
    /// Its name in canonical forms.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Not => "not",
            Self::And => "and",
            Self::Or => "or",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::Greater => ">",
            Self::LessOrEqual => "<=",
            Self::GreaterOrEqual => ">=",
            Self::IsNull => "is_null",
            Self::IsTrue => "is_true",
            Self::IsFalse => "is_false",
            Self::Between => "between",
            Self::InJson => "in_json",
            Self::InEach => "in_each",
            Self::InList => "in",
            Self::Overlap => "&&",
            Self::OverlapEach => "&&_each",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Concat => "||",
            Self::Arrow => "->",
            Self::ArrowText => "->>",
            Self::LegacyArrow => "legacy ->",
            Self::LegacyArrowText => "legacy ->>",
            Self::Array => "array",
            Self::ArrayOrNull => "array_or_null",
            Self::Cast(CastTarget::Text) => "::text",
            Self::Cast(CastTarget::Numeric) => "::numeric",
            Self::Cast(CastTarget::Integer) => "::integer",
            Self::Cast(CastTarget::Real) => "::real",
            Self::Cast(CastTarget::Blob) => "::blob",
            Self::NotImplemented(operator) => operator,
            Self::Case => "case",
            Self::Function(function) => function.name(),
        }
    }
}
