//! Why a row is sent to a user, or is not: every branch of every stream, with what it makes of the row and of the request.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use super::evaluate::{evaluate, has_equals, is_true};
use super::normal_form::Side;
use super::plan::{KeyValue, Querier, RowEvaluator, Stage, Stream, StreamKind};
use super::querying::{Answer, Answers, ConfigLookup, Querying, Stop};
use super::request::{Budget, ConfigRequest, SubscriptionRef};
use super::row_matcher::{Binder, RowMatcher, read};
use super::sql_text;
use super::table_evaluator::{pattern, write_array};
use super::wish::Wish;
use super::{Definition, Evaluation, SyncConfig, expression};
use crate::checkpoint::LookupRows;
use crate::table::SourceTable;
use crate::value::Value;

/// What a config makes of one row and one request. `Display` is a text for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Each branch of each stream, in the order of the config.
    pub branches: Vec<ExplainedBranch>,
}

/// One branch of a stream: one way for a row to reach a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedBranch {
    /// The stream.
    pub stream: Arc<str>,
    /// The definition of its buckets, as logs name it.
    pub definition: ByteString,
    /// The subscription that it is looked at for; `None` if the request does not use the stream.
    pub subscription: Option<SubscriptionRef>,
    /// What the row comes to.
    pub row: RowOutcome,
    /// What the request comes to.
    pub request: RequestOutcome,
    /// The lookups that were made, each with how many rows it found.
    pub lookups: Vec<(ConfigLookup, usize)>,
    /// The parameters of the buckets in which the row reaches the user.
    pub buckets: Vec<ByteString>,
}

/// What a branch makes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// No query of the branch reads its table.
    OtherTable,
    /// This condition is not true of it.
    Excluded(String),
    /// This key of the bucket is NULL or a blob.
    NoKey(String),
    /// It cannot be evaluated.
    Failed(String),
    /// It is in the buckets with these parameters.
    InBuckets(Vec<ByteString>),
}

/// What a branch makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The request does not subscribe to the stream.
    NotSubscribed,
    /// This condition is not true of it.
    Excluded(String),
    /// This value is NULL, or an empty list.
    NoValue(String),
    /// A lookup found no row.
    NothingFound(ConfigLookup),
    /// It cannot be evaluated.
    Failed(String),
    /// It has the buckets with these parameters.
    HasBuckets(Vec<ByteString>),
}

impl Explanation {
    /// Whether the row reaches the user.
    pub fn is_sent(&self) -> bool {
        self.branches.iter().any(|branch| !branch.buckets.is_empty())
    }
}

impl SyncConfig {
    /// Why a row of `table` is sent to whoever makes a request, or is not. `values` has one value per column of the table;
    /// `lookup` answers as a store would.
    ///
    /// ```
    /// use syncline_core::{ConfigRequest, Identity, LookupRows, SourceColumn, SourceTable, SyncConfig, TableId};
    ///
    /// let config = SyncConfig::parse(
    ///     "
    /// config: { edition: 3 }
    /// streams:
    ///   lists: { auto_subscribe: true, query: SELECT * FROM lists WHERE owner = auth.user_id() AND NOT archived }
    /// ",
    /// )?;
    /// let column = |name: &str| SourceColumn { name: name.into(), key: name == "id", type_name: "text".into() };
    /// let columns = ["id", "owner", "archived"].map(column).into();
    /// let table = SourceTable { id: TableId(1), schema: "public".into(), name: "lists".into(), columns };
    /// let request = ConfigRequest {
    ///     identity: &Identity::new("anna"),
    ///     parameters: &Default::default(),
    ///     include_defaults: true,
    ///     subscriptions: &[],
    /// };
    /// let row = ["l1".into(), "anna".into(), 1.into()];
    /// let explanation = config.explain(&request, &table, &row, |_| LookupRows::default());
    /// assert!(!explanation.is_sent());
    /// assert!(explanation.to_string().contains("the row is left out: NOT archived"));
    /// # Ok::<(), syncline_core::Diagnostics>(())
    /// ```
    pub fn explain(
        &self,
        request: &ConfigRequest<'_>,
        table: &SourceTable,
        values: &[Value],
        mut lookup: impl FnMut(&ConfigLookup) -> LookupRows,
    ) -> Explanation {
        let budget = Budget::unlimited();
        let mut branches = Vec::new();
        let mut evaluation = Evaluation::new();
        self.bind(table).evaluate(values, &mut evaluation);
        for stream in &self.plan().streams {
            for (subscription, of) in wishes(stream, request) {
                let wish = Wish {
                    identity: request.identity,
                    parameters: request.parameters,
                    subscription: of.and_then(|index| request.subscriptions.get(index)),
                    budget: &budget,
                };
                for querier in &stream.queriers {
                    let row = self.row_outcome(querier.definition, table, values, &evaluation);
                    branches.push(self.branch(stream, querier, subscription, wish, row, &mut lookup));
                }
            }
        }
        Explanation { branches }
    }

    /// What a definition makes of a row: what is sent of it decides, and the conditions say why if nothing is.
    fn row_outcome(
        &self,
        definition: usize,
        table: &SourceTable,
        values: &[Value],
        evaluation: &Evaluation,
    ) -> RowOutcome {
        let of_it = evaluation.rows.iter().filter(|row| row.definition == definition);
        let buckets: BTreeSet<ByteString> = of_it.map(|row| row.parameters.clone()).collect();
        if !buckets.is_empty() {
            return RowOutcome::InBuckets(buckets.into_iter().collect());
        }
        if let Some(error) = evaluation.errors.iter().find(|error| error.definition == definition) {
            return RowOutcome::Failed(error.message.clone());
        }
        let evaluators = self.definitions().get(definition).map_or([].as_slice(), Definition::evaluators);
        row_outcome(evaluators, table, values)
    }

    fn branch(
        &self,
        stream: &Stream,
        querier: &Querier,
        subscription: Option<SubscriptionRef>,
        wish: Wish<'_>,
        row: RowOutcome,
        lookup: &mut impl FnMut(&ConfigLookup) -> LookupRows,
    ) -> ExplainedBranch {
        let definition = self.definitions().get(querier.definition);
        let (request, lookups) = match subscription {
            None => (RequestOutcome::NotSubscribed, Vec::new()),
            Some(_) => request_outcome(querier, wish, lookup),
        };
        let buckets = match (&row, &request) {
            (RowOutcome::InBuckets(of_row), RequestOutcome::HasBuckets(of_request)) => {
                of_row.iter().filter(|bucket| of_request.contains(bucket)).cloned().collect()
            }
            _ => Vec::new(),
        };
        ExplainedBranch {
            stream: Arc::clone(&stream.name),
            definition: definition.map(|definition| definition.name().clone()).unwrap_or_default(),
            subscription,
            row,
            request,
            lookups,
            buckets,
        }
    }
}

/// The subscriptions of a request to a stream, with the index of explicit ones; one without any if there is none.
fn wishes(stream: &Stream, request: &ConfigRequest<'_>) -> Vec<(Option<SubscriptionRef>, Option<usize>)> {
    let mut wishes = Vec::new();
    if stream.auto_subscribe && request.include_defaults {
        wishes.push((Some(SubscriptionRef::Default), None));
    }
    for (index, subscription) in request.subscriptions.iter().enumerate() {
        if stream.kind == StreamKind::Stream && subscription.stream == *stream.name {
            wishes.push((Some(SubscriptionRef::Explicit(index)), Some(index)));
        }
    }
    if wishes.is_empty() {
        wishes.push((None, None));
    }
    wishes
}

/// What the queries of a branch make of a row: the buckets of all of them, or else what keeps the last from having any.
fn row_outcome(evaluators: &[RowEvaluator], table: &SourceTable, values: &[Value]) -> RowOutcome {
    let mut buckets = BTreeSet::new();
    let mut other = RowOutcome::OtherTable;
    for evaluator in evaluators {
        if !pattern(&evaluator.rows).matches("public", &table.schema, &table.name) {
            continue;
        }
        match one_row_outcome(evaluator, table, values) {
            RowOutcome::InBuckets(found) => buckets.extend(found),
            outcome => other = outcome,
        }
    }
    if buckets.is_empty() { other } else { RowOutcome::InBuckets(buckets.into_iter().collect()) }
}

fn one_row_outcome(evaluator: &RowEvaluator, table: &SourceTable, values: &[Value]) -> RowOutcome {
    let mut binder = Binder::new(table, &evaluator.rows.table.name);
    let of_elements = |filter: &expression::Expression<expression::RowInput>| {
        let mut found = false;
        filter.inputs(&mut |input| found |= matches!(input, expression::RowInput::Each(..)));
        found
    };
    for filter in evaluator.rows.filters.iter().filter(|filter| !of_elements(filter)) {
        match evaluate(&binder.bind(filter), &|bound| read(values, &[], *bound)).map(|value| is_true(&value)) {
            Ok(true) => {}
            Ok(false) => return RowOutcome::Excluded(sql_text::sql(filter)),
            Err(failure) => return RowOutcome::Failed(failure.message),
        }
    }
    let matcher = RowMatcher::bind(&evaluator.rows, &[], &mut binder);
    let (mut scratch, mut buckets) = (Vec::new(), BTreeSet::new());
    let matched = matcher.matches(values, &mut |keys: &[Cow<'_, Value>], _: &[Cow<'_, Value>]| {
        write_array(&mut scratch, keys);
        buckets.insert(ByteString::from(String::from_utf8_lossy(&scratch).into_owned()));
        Ok(())
    });
    match matched {
        Err(failure) => RowOutcome::Failed(failure.message),
        Ok(()) if !buckets.is_empty() => RowOutcome::InBuckets(buckets.into_iter().collect()),
        Ok(()) => {
            let is_empty = |key: &&Side<expression::RowInput>| {
                let bound = binder.bind(key.expression());
                let value = evaluate(&bound, &|bound| read(values, &[], *bound));
                value.is_ok_and(|value| !has_equals(&value))
            };
            let keys = evaluator.rows.keys.iter().filter(|key| !of_elements(key.expression()));
            match keys.clone().find(is_empty).or_else(|| evaluator.rows.keys.first()) {
                Some(key) => RowOutcome::NoKey(sql_text::side(key)),
                None => RowOutcome::Excluded("no element of its list fits".to_owned()),
            }
        }
    }
}

fn request_outcome(
    querier: &Querier,
    wish: Wish<'_>,
    lookup: &mut impl FnMut(&ConfigLookup) -> LookupRows,
) -> (RequestOutcome, Vec<(ConfigLookup, usize)>) {
    for filter in &querier.wanted.filters {
        match wish.satisfies(std::slice::from_ref(filter)) {
            Ok(true) => {}
            Ok(false) => return (RequestOutcome::Excluded(sql_text::sql(filter)), Vec::new()),
            Err(failure) => return (RequestOutcome::Failed(failure.message), Vec::new()),
        }
    }
    let mut answers = Answers::new();
    let found = 'found: loop {
        let mut querying = Querying { querier, wish, answers: &answers, used: BTreeSet::new() };
        match querying.parameters() {
            Err(Stop::Missing(wanted)) => {
                for key in wanted {
                    match Answer::new(&lookup(&key).into()) {
                        Ok(answer) => answers.insert(key, answer),
                        Err(failure) => break 'found Err(failure.message),
                    };
                }
            }
            Err(Stop::Failure(failure)) => break Err(failure.message),
            Ok(parameters) => break Ok(parameters),
        }
    };
    let lookups: Vec<_> = answers.iter().map(|(key, answer)| (key.clone(), answer.rows().len())).collect();
    let outcome = match found {
        Err(message) => RequestOutcome::Failed(message),
        Ok(parameters) if !parameters.is_empty() => RequestOutcome::HasBuckets(parameters),
        Ok(_) => match (empty_value(querier, wish), lookups.iter().find(|(_, rows)| *rows == 0)) {
            (Some(value), _) => RequestOutcome::NoValue(value),
            (None, Some((key, _))) => RequestOutcome::NothingFound(key.clone()),
            (None, None) => RequestOutcome::HasBuckets(Vec::new()),
        },
    };
    (outcome, lookups)
}

/// A value of the request that a key needs and that is not there.
fn empty_value(querier: &Querier, wish: Wish<'_>) -> Option<String> {
    let stages = querier.wanted.stages.iter().flat_map(|stage| match stage {
        Stage::Lookup { keys, .. } => keys.as_slice(),
        Stage::Each { .. } => &[],
    });
    let values = stages.chain(&querier.parameters).flatten();
    let mut sides = values.filter_map(|value| match value {
        KeyValue::Request(side) => Some(side),
        KeyValue::Output { .. } => None,
    });
    let empty = |side: &&Side<expression::RequestInput>| wish.values(side).is_ok_and(|values| values.is_empty());
    sides.find(empty).map(sql_text::side)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = if self.is_sent() { "the row is sent" } else { "the row is not sent" };
        writeln!(f, "{sent}")?;
        for branch in &self.branches {
            write!(f, "\n{branch}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.subscription {
            None => String::new(),
            Some(SubscriptionRef::Default) => ", subscribed by default".to_owned(),
            Some(SubscriptionRef::Explicit(index)) => format!(", subscription {index}"),
        };
        writeln!(f, "stream {}, buckets {}{of}", self.stream, self.definition)?;
        match &self.row {
            RowOutcome::OtherTable => writeln!(f, "  no query here reads the row's table")?,
            RowOutcome::Excluded(condition) => writeln!(f, "  the row is left out: {condition} is not true")?,
            RowOutcome::NoKey(key) => writeln!(f, "  the row is in no bucket: {key} has no value")?,
            RowOutcome::Failed(message) => writeln!(f, "  the row cannot be evaluated: {message}")?,
            RowOutcome::InBuckets(buckets) => writeln!(f, "  the row is in {}", list(buckets))?,
        }
        for (key, rows) in &self.lookups {
            writeln!(f, "  lookup {} of {} finds {rows} row(s)", key.index, key.values)?;
        }
        match &self.request {
            RequestOutcome::NotSubscribed => writeln!(f, "  the request does not subscribe to it")?,
            RequestOutcome::Excluded(condition) => writeln!(f, "  the request is left out: {condition} is not true")?,
            RequestOutcome::NoValue(value) => writeln!(f, "  the request has no bucket: {value} has no value")?,
            RequestOutcome::NothingFound(key) => {
                writeln!(f, "  the request has no bucket: lookup {} finds nothing for {}", key.index, key.values)?;
            }
            RequestOutcome::Failed(message) => writeln!(f, "  the request cannot be evaluated: {message}")?,
            RequestOutcome::HasBuckets(buckets) => writeln!(f, "  the request has {}", list(buckets))?,
        }
        if !self.buckets.is_empty() {
            writeln!(f, "  it is sent in {}", list(&self.buckets))?;
        }
        Ok(())
    }
}

/// A few names of many.
fn list(buckets: &[ByteString]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<&str> = buckets.iter().take(SHOWN).map(|bucket| &**bucket).collect();
    let more = buckets.len().saturating_sub(SHOWN);
    let rest = format!("{more} more");
    if more > 0 {
        shown.push(&rest);
    }
    if shown.is_empty() { "no bucket".to_owned() } else { format!("bucket {}", shown.join(", ")) }
}
