//! The syntax tree of a query. Every node knows its place.

use super::super::span::Span;

/// A name as it was written: folded to lower case unless quoted.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Name {
    pub(in crate::config) text: String,
    pub(in crate::config) span: Span,
}

/// `SELECT … FROM … WHERE …`.
#[derive(Debug)]
pub(in crate::config) struct Select {
    pub(in crate::config) span: Span,
    pub(in crate::config) columns: Vec<SelectItem>,
    pub(in crate::config) from: Vec<FromItem>,
    pub(in crate::config) condition: Option<Expr>,
    /// `DISTINCT`.
    pub(in crate::config) distinct: Option<Span>,
    /// The greatest depth of an expression in it.
    pub(in crate::config) depth: usize,
}

/// An entry of the select list.
#[derive(Debug)]
pub(in crate::config) struct SelectItem {
    pub(in crate::config) expr: Expr,
    pub(in crate::config) alias: Option<Name>,
}

/// An entry of FROM, with the way it is joined to those before.
#[derive(Debug)]
pub(in crate::config) struct FromItem {
    pub(in crate::config) span: Span,
    pub(in crate::config) relation: Relation,
    pub(in crate::config) alias: Option<Name>,
    /// Names given to the columns, `AS t (a, b)`.
    pub(in crate::config) columns: Vec<Name>,
    pub(in crate::config) join: Option<Join>,
}

/// What an entry of FROM reads.
#[derive(Debug)]
pub(in crate::config) enum Relation {
    Table { schema: Option<Name>, name: Name },
    Function(Call),
    Subquery(Box<Select>),
}

/// How an entry of FROM is joined; `,` is `Cross` without a condition.
#[derive(Debug)]
pub(in crate::config) struct Join {
    pub(in crate::config) span: Span,
    pub(in crate::config) kind: JoinKind,
    pub(in crate::config) on: Option<Expr>,
    pub(in crate::config) using: Option<Span>,
}

/// The kinds of joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum JoinKind {
    Comma,
    Inner,
    Left,
    Right,
    Full,
    Cross,
    Natural,
}

/// An expression.
#[derive(Debug)]
pub(in crate::config) struct Expr {
    pub(in crate::config) span: Span,
    pub(in crate::config) kind: ExprKind,
    /// Operators inside each other, to keep every later walk within its stack.
    pub(in crate::config) depth: usize,
}

impl Expr {
    /// The expressions that it is made of; subqueries are not entered.
    pub(in crate::config) fn operands(&self) -> impl Iterator<Item = &Self> {
        let mut found: Vec<&Self> = Vec::new();
        match &self.kind {
            ExprKind::And(members) | ExprKind::Or(members) | ExprKind::List(members) | ExprKind::Tuple(members) => {
                found.extend(members);
            }
            ExprKind::Unknown { operands, .. } => found.extend(operands),
            ExprKind::Call(call) => found.extend(&call.arguments),
            ExprKind::Not(operand)
            | ExprKind::Sign { operand, .. }
            | ExprKind::Is { operand, .. }
            | ExprKind::Cast { operand, .. } => found.push(operand),
            ExprKind::Binary { left, right, .. } => found.extend([&**left, &**right]),
            ExprKind::In { operand, list, .. } => found.extend([&**operand, &**list]),
            ExprKind::Like { operand, pattern } => found.extend([&**operand, &**pattern]),
            ExprKind::Between { operand, low, high, .. } => found.extend([&**operand, &**low, &**high]),
            ExprKind::Case { operand, branches, otherwise } => {
                found.extend(operand.iter().chain(otherwise).map(|side| &**side));
                found.extend(branches.iter().flat_map(|(when, then)| [when, then]));
            }
            ExprKind::Null
            | ExprKind::Boolean(_)
            | ExprKind::Integer(_)
            | ExprKind::Decimal(_)
            | ExprKind::Text(_)
            | ExprKind::Column { .. }
            | ExprKind::Star { .. }
            | ExprKind::Subquery(_)
            | ExprKind::Exists
            | ExprKind::Placeholder => {}
        }
        found.into_iter()
    }
}

/// What an [`Expr`] is.
#[derive(Debug)]
pub(in crate::config) enum ExprKind {
    Null,
    Boolean(bool),
    /// Digits, perhaps with a sign.
    Integer(String),
    Decimal(String),
    Text(String),
    /// `name`, `table.name` or `schema.table.name`.
    Column {
        schema: Option<Name>,
        table: Option<Name>,
        name: Name,
    },
    /// `*` or `table.*`.
    Star {
        table: Option<Name>,
    },
    Call(Call),
    /// `AND` and `OR` of two or more, flattened.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// `-x` and `+x`.
    Sign {
        negative: bool,
        operand: Box<Expr>,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// An operator of Postgres that the language does not have.
    Unknown {
        operator: String,
        operands: Vec<Expr>,
    },
    /// `x IS [NOT] NULL`, `TRUE`, `FALSE`.
    Is {
        operand: Box<Expr>,
        negated: bool,
        what: IsWhat,
    },
    Between {
        operand: Box<Expr>,
        negated: bool,
        low: Box<Expr>,
        high: Box<Expr>,
    },
    In {
        operand: Box<Expr>,
        negated: bool,
        list: Box<Expr>,
    },
    Like {
        operand: Box<Expr>,
        pattern: Box<Expr>,
    },
    Cast {
        operand: Box<Expr>,
        target: Name,
    },
    Case {
        operand: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// `ARRAY[…]` and `ROW(…)`.
    List(Vec<Expr>),
    /// `(a, b)`.
    Tuple(Vec<Expr>),
    Subquery(Box<Select>),
    Exists,
    Placeholder,
}

/// What `IS` compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum IsWhat {
    Null,
    True,
    False,
}

/// Operators between two operands, other than AND and OR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum BinaryOperator {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Concat,
    Overlap,
    /// `->`: JSON text.
    Arrow,
    /// `->>`: a value.
    ArrowText,
}

/// `name(…)` or `schema.name(…)`.
#[derive(Debug)]
pub(in crate::config) struct Call {
    pub(in crate::config) schema: Option<Name>,
    pub(in crate::config) name: Name,
    pub(in crate::config) arguments: Vec<Expr>,
    /// DISTINCT, ORDER BY, FILTER or OVER: the syntax of aggregates.
    pub(in crate::config) aggregate: Option<Span>,
    pub(in crate::config) span: Span,
}

impl Call {
    /// The name with its schema, as it was written.
    pub(in crate::config) fn full_name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", schema.text, self.name.text),
            None => self.name.text.clone(),
        }
    }

    /// The place of the name with its schema.
    pub(in crate::config) fn name_span(&self) -> Span {
        self.schema.as_ref().map_or(self.name.span, |schema| schema.span.to(self.name.span))
    }
}
