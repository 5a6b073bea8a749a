//! The normal form of a condition: an OR of branches, each an AND of row filters, request filters and matches.

use super::diagnostic::SqlReport;
use super::expression::{Column, ConditionInput, Expression, RequestInput};
use super::operation::Operation;
use super::span::Span;

/// Branches that an AND over ORs may multiply out to.
const LIMIT: usize = 100;

type Condition = Expression<ConditionInput>;

/// One way for a row and a request to belong together: everything in it holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Branch {
    pub(super) row: Vec<Expression<Column>>,
    pub(super) request: Vec<Expression<RequestInput>>,
    pub(super) matches: Vec<Match>,
}

/// A value of the row equals a value of the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    pub(super) row: Side<Column>,
    pub(super) request: Side<RequestInput>,
}

/// One side of a [`Match`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Side<I> {
    /// The value itself.
    Value(Expression<I>),
    /// Any element of the JSON array that the expression gives.
    Elements(Expression<I>),
}

impl<I> Side<I> {
    pub(super) fn expression(&self) -> &Expression<I> {
        match self {
            Self::Value(expression) | Self::Elements(expression) => expression,
        }
    }
}

/// A condition without NOT over mixtures, whose leaves depend on one side each or match the two.
#[derive(Debug)]
enum Tree {
    Row(Expression<Column>),
    Request(Expression<RequestInput>),
    Match(Match),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// Normalizes the condition of a query; `None` after problems were reported. No condition is one empty branch.
pub(super) fn normalize(condition: Option<&Condition>, span: Span, report: &mut SqlReport<'_>) -> Option<Vec<Branch>> {
    let Some(condition) = condition else { return Some(vec![Branch::default()]) };
    if multiply(condition, false).is_none() {
        report
            .fatal("dnf-too-large", span, format!("this condition multiplies out to more than {LIMIT} branches"))
            .help("split it into several queries, or combine columns in the table");
        return None;
    }
    Some(branches(tree(condition, false, report)?))
}

/// The number of branches that a condition multiplies out to; `None` above the limit in any AND.
fn multiply(condition: &Condition, negated: bool) -> Option<usize> {
    match condition {
        Expression::Call(Operation::Not, operand) => multiply(operand.first()?, !negated),
        Expression::Call(operation @ (Operation::And | Operation::Or), members) => {
            let counts = members.iter().map(|member| multiply(member, negated));
            if (*operation == Operation::And) == negated {
                counts.sum()
            } else {
                counts
                    .into_iter()
                    .try_fold(1usize, |product, count| product.checked_mul(count?).filter(|product| *product <= LIMIT))
            }
        }
        _ => Some(1),
    }
}

fn tree(condition: &Condition, negated: bool, report: &mut SqlReport<'_>) -> Option<Tree> {
    if let Some(row) = row_side(condition) {
        return Some(Tree::Row(if negated { row.not() } else { row }));
    }
    if let Some(request) = request_side(condition) {
        return Some(Tree::Request(if negated { request.not() } else { request }));
    }
    match condition {
        Expression::Call(Operation::Not, operand) => tree(operand.first()?, !negated, report),
        Expression::Call(operation @ (Operation::And | Operation::Or), members) => {
            let trees: Vec<_> = members.iter().map(|member| tree(member, negated, report)).collect();
            let trees = trees.into_iter().collect::<Option<Vec<_>>>()?;
            let all = (*operation == Operation::And) != negated;
            Some(if all { Tree::All(trees) } else { Tree::Any(trees) })
        }
        Expression::Call(operation @ (Operation::Equal | Operation::InEach | Operation::OverlapEach), sides)
            if !negated =>
        {
            match matched(*operation, sides) {
                Some(found) => Some(Tree::Match(found)),
                None => spans_sources(condition, report),
            }
        }
        _ => spans_sources(condition, report),
    }
}

/// `=`, IN and `&&` between a row and the request, either way round.
fn matched(operation: Operation, sides: &[Condition]) -> Option<Match> {
    fn made<I>(expression: Expression<I>, elements: bool) -> Side<I> {
        if elements { Side::Elements(expression) } else { Side::Value(expression) }
    }
    let [left, right] = sides else { return None };
    let (left_elements, right_elements) = match operation {
        Operation::Equal => (false, false),
        Operation::InEach => (false, true),
        _ => (true, true),
    };
    if let (Some(row), Some(request)) = (row_side(left), request_side(right)) {
        return Some(Match { row: made(row, left_elements), request: made(request, right_elements) });
    }
    let (row, request) = (row_side(right)?, request_side(left)?);
    Some(Match { row: made(row, right_elements), request: made(request, left_elements) })
}

fn spans_sources(condition: &Condition, report: &mut SqlReport<'_>) -> Option<Tree> {
    let mut place = None;
    condition.inputs(&mut |input| {
        if let (ConditionInput::Request(request), None) = (input, place) {
            place = Some(request.span);
        }
    });
    report
        .fatal(
            "expression-spans-sources",
            place.unwrap_or_default(),
            "a row and the request can only be compared by `=` and IN, without NOT and without computing with both",
        )
        .help("rows are sorted into buckets by their own values, and a request names the buckets it wants");
    None
}

/// The expression over columns alone; `None` if it uses the request, or no column at all.
fn row_side(condition: &Condition) -> Option<Expression<Column>> {
    if condition.is_constant() {
        return None;
    }
    condition.map(&mut |input| match input {
        ConditionInput::Column(name, _) => Some(name.clone()),
        ConditionInput::Request(_) => None,
    })
}

/// The expression over request values and constants alone.
fn request_side(condition: &Condition) -> Option<Expression<RequestInput>> {
    condition.map(&mut |input| match input {
        ConditionInput::Column(..) => None,
        ConditionInput::Request(request) => Some(request.clone()),
    })
}

/// Distributes AND over OR. Filters of one side stay together, so that only matches multiply.
fn branches(tree: Tree) -> Vec<Branch> {
    match tree {
        Tree::Row(row) => vec![Branch { row: vec![row], ..Branch::default() }],
        Tree::Request(request) => vec![Branch { request: vec![request], ..Branch::default() }],
        Tree::Match(found) => vec![Branch { matches: vec![found], ..Branch::default() }],
        Tree::All(members) => members.into_iter().map(branches).fold(vec![Branch::default()], |left, right| {
            left.iter().flat_map(|left| right.iter().map(move |right| left.and(right))).collect()
        }),
        Tree::Any(members) => {
            let (mut result, mut rows, mut requests) = (Vec::new(), Vec::new(), Vec::new());
            for branch in members.into_iter().flat_map(branches) {
                match branch {
                    Branch { row, request, matches } if request.is_empty() && matches.is_empty() => {
                        rows.push(Expression::all(Operation::And, row));
                    }
                    Branch { row, request, matches } if row.is_empty() && matches.is_empty() => {
                        requests.push(Expression::all(Operation::And, request));
                    }
                    branch => result.push(branch),
                }
            }
            if !requests.is_empty() {
                let request = vec![Expression::all(Operation::Or, requests)];
                result.push(Branch { request, ..Branch::default() });
            }
            if !rows.is_empty() {
                result.push(Branch { row: vec![Expression::all(Operation::Or, rows)], ..Branch::default() });
            }
            result
        }
    }
}

impl Branch {
    fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.row.extend(other.row.iter().cloned());
        both.request.extend(other.request.iter().cloned());
        for found in &other.matches {
            if !both.matches.contains(found) {
                both.matches.push(found.clone());
            }
        }
        both
    }
}
