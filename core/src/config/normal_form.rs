//! The normal form of a condition: an OR of branches, each an AND of filters on one thing and of matches between two.

use super::diagnostic::Report;
use super::expression::{ConditionInput, Expression};
use super::operation::Operation;
use super::resolve::{Owner, Query, QuerySource, owner_of};
use super::scope::Condition;
use super::span::Span;

/// Branches that an AND over ORs may multiply out to.
const LIMIT: usize = 100;

/// One way for rows and a request to belong together: everything in it holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Branch {
    pub(super) filters: Vec<(Owner, Condition)>,
    pub(super) matches: Vec<Match>,
}

/// A value of one thing equals a value of another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    pub(super) left: MatchSide,
    pub(super) right: MatchSide,
}

/// A side of a [`Match`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MatchSide {
    pub(super) owner: Owner,
    pub(super) value: Side<ConditionInput>,
}

/// Values that may be equal to others.
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

    /// The same side over another expression.
    pub(super) fn with<J>(&self, expression: Expression<J>) -> Side<J> {
        match self {
            Self::Value(_) => Side::Value(expression),
            Self::Elements(_) => Side::Elements(expression),
        }
    }
}

/// A condition without NOT over mixtures, whose leaves depend on one thing each or match two.
#[derive(Debug)]
enum Tree {
    Filter(Owner, Condition),
    Match(Match),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// Normalizes the condition of a query; `None` after problems were reported.
pub(super) fn normalize(query: &Query, report: &mut Report) -> Option<Vec<Branch>> {
    normalize_condition(&query.condition, &query.sources, query.span, report)
}

/// The same for a condition by itself; `span` is the place of its query.
pub(super) fn normalize_condition(
    condition: &Condition,
    sources: &[QuerySource],
    span: Span,
    report: &mut Report,
) -> Option<Vec<Branch>> {
    if multiply(condition, false).is_none() {
        report
            .fatal("dnf-too-large", span, format!("this condition multiplies out to more than {LIMIT} branches"))
            .help("put the parts that are joined by OR into queries of their own");
        return None;
    }
    let tree = Normalizer { sources, report }.tree(condition, false)?;
    Some(branches(tree))
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

struct Normalizer<'a> {
    sources: &'a [QuerySource],
    report: &'a mut Report,
}

impl Normalizer<'_> {
    fn tree(&mut self, condition: &Condition, negated: bool) -> Option<Tree> {
        let owner = self.owner(condition);
        if let Ok(owner) = owner
            && !self.must_stay_apart(condition)
        {
            return Some(Tree::Filter(owner, if negated { condition.clone().not() } else { condition.clone() }));
        }
        match condition {
            Expression::Call(Operation::Not, operand) => self.tree(operand.first()?, !negated),
            Expression::Call(operation @ (Operation::And | Operation::Or), members) => {
                let trees: Vec<_> = members.iter().map(|member| self.tree(member, negated)).collect();
                let trees = trees.into_iter().collect::<Option<Vec<_>>>()?;
                let all = (*operation == Operation::And) != negated;
                Some(if all { Tree::All(trees) } else { Tree::Any(trees) })
            }
            Expression::Input(ConditionInput::Present(_)) if negated => {
                // Under NOT a row must be absent, which no bucket can tell.
                self.spans_sources(condition)
            }
            _ if owner.is_ok() => {
                let owner = owner.ok()?;
                Some(Tree::Filter(owner, if negated { condition.clone().not() } else { condition.clone() }))
            }
            Expression::Call(operation @ (Operation::Equal | Operation::InEach | Operation::OverlapEach), sides)
                if !negated =>
            {
                match self.matched(*operation, sides) {
                    Some(found) => Some(Tree::Match(found)),
                    None => self.spans_sources(condition),
                }
            }
            _ => self.spans_sources(condition),
        }
    }

    /// Whether a part of it needs a row that the rest does not: then an OR over both is not one filter of that row.
    fn must_stay_apart(&self, condition: &Condition) -> bool {
        let connective = matches!(condition, Expression::Call(Operation::And | Operation::Or | Operation::Not, _));
        let mut found = false;
        condition.inputs(&mut |input| {
            found |= matches!(input, ConditionInput::Each { .. } | ConditionInput::Present(_));
        });
        connective && found
    }

    fn owner(&self, condition: &Condition) -> Result<Owner, Span> {
        let mut owner = Owner::Constant;
        let mut second = None;
        condition.inputs(&mut |input| {
            let found = input.source().map_or(Owner::Request, |source| owner_of(self.sources, source));
            if owner == Owner::Constant {
                owner = found;
            } else if found != owner && second.is_none() {
                second = Some(input.span().unwrap_or_default());
            }
        });
        second.map_or(Ok(owner), Err)
    }

    /// `=`, IN and `&&` between two things.
    fn matched(&self, operation: Operation, sides: &[Condition]) -> Option<Match> {
        let [left, right] = sides else { return None };
        let (left_elements, right_elements) = match operation {
            Operation::Equal => (false, false),
            Operation::InEach => (false, true),
            _ => (true, true),
        };
        let side = |expression: &Condition, elements: bool| {
            let owner = self.owner(expression).ok()?;
            let expression = expression.clone();
            let value = if elements { Side::Elements(expression) } else { Side::Value(expression) };
            Some(MatchSide { owner, value })
        };
        Some(Match { left: side(left, left_elements)?, right: side(right, right_elements)? })
    }

    fn spans_sources(&mut self, condition: &Condition) -> Option<Tree> {
        let mut place = self.owner(condition).err();
        condition.inputs(&mut |input| place = place.or(input.span()));
        self.report
            .fatal(
                "expression-spans-sources",
                place.unwrap_or_default(),
                "rows and the request can only be compared by `=` and IN, without NOT and without computing with both",
            )
            .help("rows are sorted into buckets by their own values, and a request names the buckets it wants");
        None
    }
}

/// Distributes AND over OR. Filters of one thing stay together, so that only matches multiply.
fn branches(tree: Tree) -> Vec<Branch> {
    match tree {
        Tree::Filter(owner, filter) => vec![Branch { filters: vec![(owner, filter)], ..Branch::default() }],
        Tree::Match(found) => vec![Branch { matches: vec![found], ..Branch::default() }],
        Tree::All(members) => members.into_iter().map(branches).fold(vec![Branch::default()], |left, right| {
            left.iter().flat_map(|left| right.iter().map(move |right| left.and(right))).collect()
        }),
        Tree::Any(members) => {
            let mut result = Vec::new();
            let mut merged: Vec<(Owner, Vec<Condition>)> = Vec::new();
            for branch in members.into_iter().flat_map(branches) {
                match branch.single_filter() {
                    Some(owner) => {
                        let filters = branch.filters.into_iter().map(|(_, filter)| filter).collect();
                        let filter = Expression::all(Operation::And, filters);
                        match merged.iter_mut().find(|(known, _)| *known == owner) {
                            Some((_, filters)) => filters.push(filter),
                            None => merged.push((owner, vec![filter])),
                        }
                    }
                    None => result.push(branch),
                }
            }
            // What depends on the request before what depends on rows: the order of names of buckets.
            merged.sort_by_key(|(owner, _)| *owner);
            result.extend(merged.into_iter().map(|(owner, filters)| Branch {
                filters: vec![(owner, Expression::all(Operation::Or, filters))],
                ..Branch::default()
            }));
            result
        }
    }
}

impl Branch {
    /// The one thing that all of it depends on, if its parts can be one filter.
    fn single_filter(&self) -> Option<Owner> {
        let (owner, _) = self.filters.first()?;
        let mut apart = false;
        for (other, filter) in &self.filters {
            apart |= other != owner;
            filter.inputs(&mut |input| {
                apart |= matches!(input, ConditionInput::Each { .. } | ConditionInput::Present(_));
            });
        }
        (self.matches.is_empty() && !apart).then_some(*owner)
    }

    fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.filters.extend(other.filters.iter().cloned());
        for found in &other.matches {
            if !both.matches.contains(found) {
                both.matches.push(found.clone());
            }
        }
        both
    }
}
