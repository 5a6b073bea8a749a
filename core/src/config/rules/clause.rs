//! Clauses: expressions of the older languages, by what they depend on.
//!
//! A *match* compares a row with a parameter, so that it sorts rows into buckets. What may be combined with what follows from
//! there: every way for a row to match must name a value for the same parameters.

use std::collections::BTreeSet;

use super::super::diagnostic::SqlReport;
use super::super::expression::Expression;
use super::super::operation::Operation;
use super::super::scope::Condition;
use super::super::span::Span;

/// An expression and what it depends on.
#[derive(Debug, Clone)]
pub(in crate::config) struct Clause {
    pub(in crate::config) value: Condition,
    pub(in crate::config) class: Class,
}

/// What a [`Clause`] depends on.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) enum Class {
    /// Nothing.
    Static,
    /// Columns of the row.
    Row,
    /// Parameters of the bucket, or values of the request.
    Parameter,
    /// Both, by equality or IN.
    Match(Inputs),
}

/// What a match asks of the parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::config) struct Inputs {
    /// The forms of the parameters that it names values for.
    pub(in crate::config) parameters: BTreeSet<String>,
    /// A list of the row is among its values.
    pub(in crate::config) unbounded: bool,
    /// A list of the request is among its inputs.
    pub(in crate::config) expanding: bool,
}

impl Clause {
    pub(super) fn new(value: Condition, class: Class) -> Self {
        Self { value, class }
    }

    /// A match with one parameter.
    pub(super) fn matching(value: Condition, parameter: &Condition, unbounded: bool, expanding: bool) -> Self {
        let parameters = BTreeSet::from([parameter.form()]);
        Self::new(value, Class::Match(Inputs { parameters, unbounded, expanding }))
    }

    pub(in crate::config) fn is_match(&self) -> bool {
        matches!(self.class, Class::Match(_))
    }

    /// What it asks of the parameters when it is part of a match.
    pub(super) fn inputs(&self) -> Inputs {
        match &self.class {
            Class::Static | Class::Row => Inputs::default(),
            Class::Parameter => Inputs { parameters: BTreeSet::from([self.value.form()]), ..Inputs::default() },
            Class::Match(inputs) => inputs.clone(),
        }
    }
}

/// AND or OR of clauses; `None` after a problem was reported. `computes` tells whether parameters may be computed with.
pub(super) fn connect(
    operation: Operation,
    members: Vec<Clause>,
    span: Span,
    computes: bool,
    report: &mut SqlReport<'_>,
) -> Option<Clause> {
    let mut members = members.into_iter();
    let mut class = members.next()?;
    let mut values = vec![class.value.clone()];
    for member in members {
        if class.class == Class::Parameter && !matches!(member.class, Class::Static | Class::Parameter) {
            // What it asks of parameters is known by its form.
            class.value = Expression::all(operation, values.clone());
        }
        class.class = pair(operation, &class, &member, span, computes, report)?;
        values.push(member.value);
    }
    Some(Clause::new(Expression::all(operation, values), class.class))
}

fn pair(
    operation: Operation,
    left: &Clause,
    right: &Clause,
    span: Span,
    computes: bool,
    report: &mut SqlReport<'_>,
) -> Option<Class> {
    match (&left.class, &right.class) {
        (Class::Static, Class::Static) => return Some(Class::Static),
        (Class::Static | Class::Row, Class::Static | Class::Row) => return Some(Class::Row),
        (Class::Static | Class::Parameter, Class::Static | Class::Parameter) if computes => {
            return Some(Class::Parameter);
        }
        _ => {}
    }
    let (mut left, right) = (left.inputs(), right.inputs());
    if operation == Operation::Or {
        if left.parameters != right.parameters {
            report
                .fatal("or-parameters-differ", span, "both sides of this OR must match the same parameters")
                .help("write a query for each side");
            return None;
        }
    } else {
        if left.unbounded && right.unbounded {
            report
                .fatal("multiple-in-expressions", span, "a query can match one list of the row only")
                .help("put both lists into one column");
            return None;
        }
        if left.expanding && right.expanding {
            report
                .fatal("multiple-array-parameters", span, "a query can match one list of the request only")
                .help("write a query for each list");
            return None;
        }
    }
    left.parameters.extend(right.parameters);
    left.unbounded |= right.unbounded;
    left.expanding |= right.expanding;
    Some(Class::Match(left))
}
