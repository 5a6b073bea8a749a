//! How a querier is answered: stage by stage, with whatever lookups it needs, up to the parameters of its buckets.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::evaluate::Failure;
use super::plan::{KeyValue, Querier, Stage};
use super::relation::{Column, Relation, elements};
use super::request::Budget;
use super::wish::Wish;
use crate::checkpoint::LookupRows;
use crate::lookup_change::{LookupChange, LookupDifference};

/// A question to a lookup index of the config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigLookup {
    /// The index: [`SyncConfig::lookup_forms`](super::SyncConfig::lookup_forms) has its form.
    pub index: usize,
    /// The key as a compact JSON array.
    pub values: ByteString,
}

/// Answers to lookups that are known.
pub(super) type Answers = BTreeMap<ConfigLookup, Answer>;

/// Rows of values, each as JSON.
pub(super) type AnswerRows = Vec<Vec<ByteString>>;

/// An answer to a lookup.
#[derive(Debug)]
pub(super) enum Answer {
    /// All rows that it has.
    Rows(AnswerRows),
    /// What differs from the answer before.
    Difference { gone: AnswerRows, come: AnswerRows },
}

impl Answer {
    pub(super) fn new(change: &LookupChange) -> Result<Self, Failure> {
        Ok(match change {
            LookupChange::Whole(LookupRows { rows }) => Self::Rows(parsed(rows)?),
            LookupChange::Difference(LookupDifference { gone, come }) => {
                Self::Difference { gone: parsed(gone)?, come: parsed(come)? }
            }
        })
    }

    /// All rows, as far as it tells.
    pub(super) fn rows(&self) -> &[Vec<ByteString>] {
        match self {
            Self::Rows(rows) => rows,
            Self::Difference { .. } => &[],
        }
    }
}

fn parsed(rows: &[ByteString]) -> Result<AnswerRows, Failure> {
    let rows = rows.iter().map(elements).collect::<Option<_>>();
    rows.ok_or_else(|| Failure::new("bad-lookup", "a row of an answer to a lookup is not a JSON array"))
}

/// The failure of a subscription that would have more buckets of one kind than any may.
pub(super) fn too_many(budget: &Budget) -> Failure {
    let message = format!("this request asks for more than {} buckets of one kind", budget.combinations);
    Failure::new("too-many-buckets", message)
}

/// Why a querier has no answer.
#[derive(Debug)]
pub(super) enum Stop {
    Failure(Failure),
    /// It needs the answers to these first.
    Missing(Vec<ConfigLookup>),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// One querier, for one subscription.
#[derive(Debug)]
pub(super) struct Querying<'a> {
    pub(super) querier: &'a Querier,
    pub(super) wish: Wish<'a>,
    pub(super) answers: &'a Answers,
    /// The lookups that were used.
    pub(super) used: BTreeSet<ConfigLookup>,
}

/// The values that the parts of a key or a parameter may have.
struct Values {
    /// Those that all values of the request yield; `None` if there is no value of the request among them.
    request: Option<Vec<ByteString>>,
    columns: Vec<Column>,
}

impl Querying<'_> {
    /// The parameters of all buckets, each as a compact JSON array.
    pub(super) fn parameters(&mut self) -> Result<Vec<ByteString>, Stop> {
        let querier = self.querier;
        if !self.wish.satisfies(&querier.wanted.filters)? {
            return Ok(Vec::new());
        }
        let mut found: Vec<Relation> = Vec::new();
        for (number, stage) in querier.wanted.stages.iter().enumerate() {
            let relation = match stage {
                Stage::Each { argument, filters, outputs } => {
                    let rows = self.wish.rows(argument, filters, outputs)?;
                    Relation { columns: (0..outputs.len()).map(|output| (number, output)).collect(), rows }
                }
                Stage::Lookup { index, keys } => self.look_up(number, *index, keys, &mut found)?,
            };
            if relation.rows.is_empty() || self.wish.budget.is_spent() {
                return Ok(Vec::new());
            }
            let relation = relation.keep(|column| is_used(querier, number, column));
            self.wish.budget.spend(relation.size());
            if !relation.columns.is_empty() {
                found.push(relation);
            }
        }
        self.combine(found)
    }

    fn values(&self, values: &[KeyValue]) -> Result<Values, Failure> {
        let mut request: Option<Vec<ByteString>> = None;
        let mut columns = Vec::new();
        for value in values {
            match value {
                KeyValue::Request(side) => {
                    let found = self.wish.values(side)?;
                    request = Some(match request {
                        None => found,
                        Some(known) => known.into_iter().filter(|value| found.contains(value)).collect(),
                    });
                }
                KeyValue::Output { stage, output } => columns.push((*stage, *output)),
            }
        }
        Ok(Values { request, columns })
    }

    /// Joins the relations that these values are of into one, which it takes out of `found`; only rows in which all values
    /// of a key are equal remain.
    fn gather(&self, keys: &[Values], found: &mut Vec<Relation>) -> Result<Relation, Stop> {
        let mut gathered = Relation::unit();
        for key in keys {
            for column in &key.columns {
                let Some(place) = found.iter().position(|relation| relation.position(*column).is_some()) else {
                    continue;
                };
                let relation = found.remove(place);
                let equal = equal_columns(keys, &gathered, &relation);
                if equal.is_empty() && gathered.product(&relation) > self.limit() {
                    return Err(self.too_many().into());
                }
                gathered = gathered.join(&relation, &equal);
                self.wish.budget.spend(gathered.size());
                if self.wish.budget.is_spent() {
                    return Ok(Relation::default());
                }
            }
        }
        for key in keys {
            let places: Vec<usize> = key.columns.iter().filter_map(|column| gathered.position(*column)).collect();
            if let Some((first, rest)) = places.split_first() {
                gathered.rows.retain(|row| {
                    rest.iter().all(|place| row[*place] == row[*first])
                        && key.request.as_ref().is_none_or(|values| values.contains(&row[*first]))
                });
            }
        }
        Ok(gathered)
    }

    fn look_up(
        &mut self,
        number: usize,
        index: usize,
        keys: &[Vec<KeyValue>],
        found: &mut Vec<Relation>,
    ) -> Result<Relation, Stop> {
        let keys = keys.iter().map(|values| self.values(values)).collect::<Result<Vec<_>, _>>()?;
        let gathered = self.gather(&keys, found)?;
        let mut columns = gathered.columns.clone();
        let mut rows = Vec::new();
        let mut missing = BTreeSet::new();
        let mut outputs = None;
        for row in &gathered.rows {
            for values in self.key_texts(&keys, &gathered, row)? {
                let lookup = ConfigLookup { index, values };
                let Some(Answer::Rows(answer)) = self.answers.get(&lookup) else {
                    missing.insert(lookup);
                    continue;
                };
                for output in answer {
                    if *outputs.get_or_insert(output.len()) != output.len() {
                        return Err(Failure::new("bad-lookup", "answers to a lookup differ in their columns").into());
                    }
                    rows.push(row.iter().chain(output).cloned().collect());
                }
                self.used.insert(lookup);
            }
            if self.wish.budget.is_spent() {
                return Ok(Relation::default());
            }
        }
        if !missing.is_empty() {
            return Err(Stop::Missing(missing.into_iter().collect()));
        }
        columns.extend((0..outputs.unwrap_or(0)).map(|output| (number, output)));
        Ok(Relation { columns, rows })
    }

    /// The keys that a row leads to, as compact JSON arrays.
    fn key_texts(&self, keys: &[Values], gathered: &Relation, row: &[ByteString]) -> Result<Vec<ByteString>, Failure> {
        let mut texts: Vec<String> = vec!["[".to_owned()];
        for (at, key) in keys.iter().enumerate() {
            let own: Vec<&ByteString> = match key.columns.first().and_then(|column| gathered.position(*column)) {
                Some(place) => vec![&row[place]],
                None => key.request.iter().flatten().collect(),
            };
            if texts.len().saturating_mul(own.len()) > self.limit() {
                return Err(self.too_many());
            }
            texts = texts
                .iter()
                .flat_map(|head| own.iter().map(move |value| format!("{head}{}{value}", if at > 0 { "," } else { "" })))
                .collect();
            self.wish.budget.spend(texts.iter().map(|text| text.len() + size_of::<String>()).sum());
        }
        Ok(texts.into_iter().map(|text| ByteString::from(text + "]")).collect())
    }

    /// All combinations of the values of all parameters.
    fn combine(&self, mut found: Vec<Relation>) -> Result<Vec<ByteString>, Stop> {
        let parameters =
            self.querier.parameters.iter().map(|values| self.values(values)).collect::<Result<Vec<_>, _>>()?;
        // Only what has several columns in one parameter must be joined; other relations are independent.
        let mut independent = Vec::new();
        for parameter in parameters.iter().filter(|parameter| parameter.columns.len() > 1) {
            let joined = self.gather(std::slice::from_ref(parameter), &mut found)?;
            found.push(joined);
        }
        for parameter in parameters.iter().filter(|parameter| parameter.columns.len() == 1) {
            let place = found.iter().position(|relation| relation.position(parameter.columns[0]).is_some());
            if let (Some(place), Some(values)) = (place, &parameter.request)
                && let Some(at) = found[place].position(parameter.columns[0])
            {
                found[place].rows.retain(|row| values.contains(&row[at]));
            }
        }
        let is_parameter = |column| parameters.iter().any(|parameter| parameter.columns.first() == Some(&column));
        for relation in found {
            if relation.rows.is_empty() {
                return Ok(Vec::new());
            }
            independent.push(relation.keep(is_parameter));
        }
        let mut combined = vec![vec![ByteString::new(); parameters.len()]];
        for relation in independent {
            let mut targets = Vec::new();
            for (target, parameter) in parameters.iter().enumerate() {
                if let Some(place) = parameter.columns.first().and_then(|column| relation.position(*column)) {
                    targets.push((target, place));
                }
            }
            combined = self.extended(combined, &relation.rows, &targets)?;
        }
        for (target, parameter) in parameters.iter().enumerate().filter(|(_, parameter)| parameter.columns.is_empty()) {
            let rows: Vec<Vec<ByteString>> =
                parameter.request.iter().flatten().map(|value| vec![value.clone()]).collect();
            combined = self.extended(combined, &rows, &[(target, 0)])?;
        }
        Ok(combined.iter().map(|values| ByteString::from(format!("[{}]", values.join(",")))).collect())
    }

    fn limit(&self) -> usize {
        self.wish.budget.combinations
    }

    fn too_many(&self) -> Failure {
        too_many(self.wish.budget)
    }

    /// Each of `heads` with each of `rows` written into the places (target, place in the row).
    fn extended(
        &self,
        heads: Vec<Vec<ByteString>>,
        rows: &[Vec<ByteString>],
        targets: &[(usize, usize)],
    ) -> Result<Vec<Vec<ByteString>>, Stop> {
        if heads.len().saturating_mul(rows.len()) > self.limit() {
            return Err(self.too_many().into());
        }
        let width = heads.first().map_or(0, Vec::len) * size_of::<ByteString>() + size_of::<Vec<ByteString>>();
        let bytes = |rows: &[Vec<ByteString>]| rows.iter().flatten().map(|text| text.len()).sum::<usize>();
        let texts = bytes(&heads).saturating_mul(rows.len()).saturating_add(bytes(rows).saturating_mul(heads.len()));
        self.wish.budget.spend((heads.len() * rows.len()).saturating_mul(width).saturating_add(texts));
        if self.wish.budget.is_spent() {
            return Ok(Vec::new());
        }
        let mut combined = Vec::with_capacity(heads.len() * rows.len());
        for head in heads {
            for row in rows {
                let mut both = head.clone();
                for (target, place) in targets {
                    both[*target] = row[*place].clone();
                }
                combined.push(both);
            }
        }
        Ok(combined)
    }
}

/// Whether a column is needed after this stage.
fn is_used(querier: &Querier, number: usize, column: Column) -> bool {
    let is = |value: &KeyValue| matches!(value, KeyValue::Output { stage, output } if (*stage, *output) == column);
    let later = querier.wanted.stages.iter().skip(number + 1);
    let in_stages = later.filter_map(|stage| match stage {
        Stage::Lookup { keys, .. } => Some(keys),
        Stage::Each { .. } => None,
    });
    in_stages.flatten().chain(&querier.parameters).flatten().any(is)
}

/// Pairs of columns of both relations that belong to one key.
fn equal_columns(keys: &[Values], left: &Relation, right: &Relation) -> Vec<(usize, usize)> {
    let mut equal = Vec::new();
    for key in keys {
        let of = |relation: &Relation| key.columns.iter().find_map(|column| relation.position(*column));
        if let (Some(left), Some(right)) = (of(left), of(right)) {
            equal.push((left, right));
        }
    }
    equal
}
