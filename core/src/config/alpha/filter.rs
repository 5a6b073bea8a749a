//! Conditions of streams of edition 2, with their subqueries.

use super::super::diagnostic::SqlReport;
use super::super::expression::{ConditionInput, Expression, SourceId};
use super::super::operation::Operation;
use super::super::resolve::QuerySource;
use super::super::rules::{Class, Clause, ClauseResolver, Kind, row_list, single_table};
use super::super::scope::Condition;
use super::super::span::Span;
use super::super::sql::ast::{BinaryOperator, Expr, ExprKind, Select};

/// Builds the condition of a query over all its tables.
pub(super) struct Filters {
    pub(super) fixed_json: bool,
    /// The whole query.
    pub(super) whole: Span,
    /// The tables of the query, its own first.
    pub(super) sources: Vec<QuerySource>,
}

impl Filters {
    /// A condition; `negated` if an odd number of NOTs stand over it. `None` after problems were reported.
    pub(super) fn condition(
        &mut self,
        expr: &Expr,
        resolver: &ClauseResolver<'_>,
        negated: bool,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let (operation, members) = match &expr.kind {
            ExprKind::And(members) => (Operation::And, members),
            ExprKind::Or(members) => (Operation::Or, members),
            ExprKind::Not(operand) => {
                return Some(self.condition(operand, resolver, !negated, report)?.not());
            }
            ExprKind::In { operand, negated: own, list } if matches!(list.kind, ExprKind::Subquery(_)) => {
                return self.subquery(expr.span, operand, list, negated != *own, false, resolver, report);
            }
            ExprKind::Binary { operator: BinaryOperator::Overlap, left, right }
                if matches!(right.kind, ExprKind::Subquery(_)) =>
            {
                return self.subquery(expr.span, left, right, negated, true, resolver, report);
            }
            _ => {
                let clause = resolver.clause(expr, report)?;
                if negated && clause.is_match() {
                    resolver.negated(expr.span, report);
                    return None;
                }
                return Some(clause.value);
            }
        };
        let members: Vec<_> = members.iter().map(|member| self.condition(member, resolver, negated, report)).collect();
        Some(Expression::Call(operation, members.into_iter().collect::<Option<_>>()?))
    }

    /// `operand IN (SELECT …)`, or `operand && (SELECT …)`.
    #[allow(clippy::too_many_arguments, reason = "the parts of one expression")]
    fn subquery(
        &mut self,
        span: Span,
        operand: &Expr,
        list: &Expr,
        negated: bool,
        overlaps: bool,
        resolver: &ClauseResolver<'_>,
        report: &mut SqlReport<'_>,
    ) -> Option<Condition> {
        let ExprKind::Subquery(select) = &list.kind else { return None };
        let operand_span = operand.span;
        let operand = resolver.clause(operand, report);
        let found = self.rows(select, list.span, report);
        if negated {
            resolver.negated(span, report);
            return None;
        }
        let (operand, (column, condition, matches)) = (operand?, found?);
        if operand.is_match() || (overlaps && operand.class != Class::Row) {
            let message = "this cannot be searched in the rows of a subquery";
            report
                .fatal("bad-left-operand", operand_span, message)
                .help("write a column there, or before IN a value of the request");
            return None;
        }
        if !matches && operand.class == Class::Row {
            report
                .fatal("subquery-without-parameter", self.whole, "this subquery finds the same for every request")
                .help("compare one of its columns with auth.user_id() or another value of the request");
            return None;
        }
        let equal = match overlaps {
            false => Expression::Call(Operation::Equal, vec![operand.value, column]),
            true => Expression::Call(Operation::InEach, vec![column, row_list(&operand.value)]),
        };
        Some(Expression::all(Operation::And, vec![equal, condition]))
    }

    /// The column and the condition of a subquery, and whether it is matched with the request.
    fn rows(
        &mut self,
        select: &Select,
        span: Span,
        report: &mut SqlReport<'_>,
    ) -> Option<(Condition, Condition, bool)> {
        let source = SourceId(self.sources.len());
        let table = single_table(select, source, report)?;
        let resolver = ClauseResolver { kind: Kind::Stream, fixed_json: self.fixed_json, rows: Some(&table.rows) };
        self.sources.push(table.source());
        let column = match select.columns.as_slice() {
            [item] => resolver.clause(&item.expr, report).map(|column| (column, item.expr.span)),
            _ => {
                report
                    .fatal("not-a-single-column", span, "a subquery must select exactly one column")
                    .help("name the column that is compared");
                None
            }
        };
        let mut all = vec![Expression::Input(ConditionInput::Present(source))];
        let mut matches = false;
        let mut complete = true;
        let members = match select.condition.as_ref() {
            Some(Expr { kind: ExprKind::And(members), .. }) => members.iter().collect(),
            Some(condition) => vec![condition],
            None => Vec::new(),
        };
        for member in members {
            match self.member(member, &resolver, report) {
                Some(clause) => {
                    matches |= clause.is_match();
                    all.push(clause.value);
                }
                None => complete = false,
            }
        }
        let (column, column_span) = column?;
        if column.class != Class::Row {
            report
                .fatal("not-a-single-column", column_span, "a subquery selects a column of its table")
                .help("name the column that is compared");
            return None;
        }
        complete.then(|| (column.value, Expression::all(Operation::And, all), matches))
    }

    /// A member of the AND of a subquery.
    fn member(&self, expr: &Expr, resolver: &ClauseResolver<'_>, report: &mut SqlReport<'_>) -> Option<Clause> {
        if let ExprKind::Or(_) = &expr.kind {
            report
                .fatal("subquery-or", expr.span, "a subquery cannot have OR")
                .help("write two subqueries, joined by OR");
            return None;
        }
        if let ExprKind::Not(operand) = &expr.kind {
            let clause = resolver.clause(operand, report)?;
            if clause.is_match() {
                return resolver.negated(expr.span, report);
            }
            return Some(Clause { value: clause.value.not(), ..clause });
        }
        resolver.clause(expr, report)
    }
}
