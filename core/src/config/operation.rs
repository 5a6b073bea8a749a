//! The operations of expressions.

/// What a call computes from its arguments. The name of an operation is part of canonical forms and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Not,
    And,
    Or,
    Equal,
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
}

impl Operation {
    /// Its name in canonical forms.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Not => "not",
            Self::And => "and",
            Self::Or => "or",
            Self::Equal => "=",
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
        }
    }
}
