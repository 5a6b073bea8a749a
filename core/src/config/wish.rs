//! One subscription of a request, explicit or automatic: the values that expressions read from it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytestring::ByteString;
use serde_json::{Map, Value as Json};

use super::evaluate::{Failure, evaluate, has_equals, is_true};
use super::expression::{EachInput, EachPart, Expression, RequestInput, RequestSource};
use super::json_tree::{self, JsonTree, Numbers};
use super::normal_form::Side;
use super::request::{Budget, StreamSubscription};
use crate::identity::Identity;
use crate::json;
use crate::value::Value;

/// What a subscription is evaluated with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) identity: &'a Identity,
    pub(super) parameters: &'a Map<String, Json>,
    /// `None` is the automatic subscription, which has no parameters at all.
    pub(super) subscription: Option<&'a StreamSubscription>,
    pub(super) budget: &'a Budget,
}

impl Wish<'_> {
    /// Whether all filters are true.
    pub(super) fn satisfies(&self, filters: &[Expression<RequestInput>]) -> Result<bool, Failure> {
        for filter in filters {
            if !is_true(&*evaluate(filter, &|input| Cow::Owned(self.input(input)))?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The distinct values of a side, each as JSON. What equals nothing matches nothing.
    pub(super) fn values(&self, side: &Side<RequestInput>) -> Result<Vec<ByteString>, Failure> {
        let value = evaluate(side.expression(), &|input| Cow::Owned(self.input(input)))?;
        let values = match side {
            Side::Value(_) => vec![value.into_owned()],
            Side::Elements(_) => json_tree::each(&value)?,
        };
        self.texts(&values)
    }

    /// The rows of `json_each` over a value that satisfy all filters, as their outputs.
    pub(super) fn rows(
        &self,
        argument: &Expression<RequestInput>,
        filters: &[Expression<EachInput>],
        outputs: &[Side<EachInput>],
    ) -> Result<Vec<Vec<ByteString>>, Failure> {
        let value = evaluate(argument, &|input| Cow::Owned(self.input(input)))?;
        let mut rows = Vec::new();
        'rows: for (key, value) in json_tree::each_rows(&value)? {
            let read = |input: &EachInput| match input {
                EachInput::Part(EachPart::Key) => Cow::Owned(key.clone()),
                EachInput::Part(EachPart::Value) => Cow::Owned(value.clone()),
                EachInput::Request(request) => Cow::Owned(self.input(request)),
            };
            for filter in filters {
                if !is_true(&*evaluate(filter, &read)?) {
                    continue 'rows;
                }
            }
            let mut combined = vec![Vec::with_capacity(outputs.len())];
            for output in outputs {
                let value = evaluate(output.expression(), &read)?.into_owned();
                let values = match output {
                    Side::Value(_) => vec![value],
                    Side::Elements(_) => json_tree::each(&value)?,
                };
                let texts = self.texts(&values)?;
                combined = combined
                    .into_iter()
                    .flat_map(|row| {
                        texts.iter().map(move |text| {
                            let mut row = row.clone();
                            row.push(text.clone());
                            row
                        })
                    })
                    .collect();
                self.budget.spend(combined.len() * size_of::<Vec<ByteString>>());
                if self.budget.is_spent() {
                    // Which ends the whole resolution.
                    return Ok(Vec::new());
                }
            }
            rows.append(&mut combined);
        }
        Ok(rows)
    }

    fn texts(&self, values: &[Value]) -> Result<Vec<ByteString>, Failure> {
        let mut written: Vec<ByteString> = Vec::with_capacity(values.len());
        let mut seen = BTreeSet::new();
        for value in values.iter().filter(|value| has_equals(value)) {
            let mut out = Vec::new();
            json::write_parameter(&mut out, value);
            let text =
                ByteString::try_from(out).map_err(|error| Failure::new("bad-parameter-value", error.to_string()))?;
            self.budget.spend(text.len() + size_of::<ByteString>());
            if seen.insert(text.clone()) {
                written.push(text);
            }
        }
        Ok(written)
    }

    /// A value of the request.
    fn input(&self, input: &RequestInput) -> Value {
        let value = self.read_input(input);
        self.budget.spend(value.size());
        value
    }

    fn read_input(&self, input: &RequestInput) -> Value {
        let numbers = match input.source {
            RequestSource::TokenParameters | RequestSource::UserParameters => Numbers::Exact,
            _ => Numbers::Doubles,
        };
        let source = match input.source {
            RequestSource::Auth => Some(self.identity.claims()),
            RequestSource::TokenParameters => self.identity.claims().get("parameters").and_then(Json::as_object),
            RequestSource::Connection | RequestSource::UserParameters => Some(self.parameters),
            RequestSource::Subscription => match self.subscription {
                None => None,
                Some(wish) => match &wish.parameters {
                    Some(parameters) => Some(parameters),
                    None if input.path.is_empty() => return Value::text("{}"),
                    None => None,
                },
            },
        };
        let Some(source) = source else { return Value::Null };
        let Some((first, rest)) = input.path.split_first() else {
            return JsonTree::Object(entries(source)).value(numbers);
        };
        let mut found = source.get(&**first);
        let mut rest = rest.iter();
        while let Some(key) = rest.next() {
            found = match found {
                Some(Json::Object(map)) => map.get(&**key),
                Some(Json::Array(items)) => json_tree::index(key).and_then(|index| items.get(index)),
                // Units of a text, as `->>` has them.
                Some(Json::String(text)) => {
                    let text = JsonTree::Text(text.clone());
                    let unit = std::iter::once(key).chain(rest).try_fold(text, |text, key| text.step(key));
                    return unit.map_or(Value::Null, |unit| unit.value(Numbers::Doubles));
                }
                _ => None,
            };
        }
        found.map_or(Value::Null, |found| JsonTree::from(found).value(numbers))
    }
}

/// Parameters as text: two subscriptions of a stream with the same text have the same answer.
pub(super) fn parameters_text(subscription: &StreamSubscription) -> String {
    let parameters = subscription.parameters.as_ref().map(|map| JsonTree::Object(entries(map)));
    parameters.map_or_else(String::new, |tree| tree.text(Numbers::Doubles))
}

fn entries(map: &Map<String, Json>) -> Vec<(String, JsonTree)> {
    map.iter().map(|(key, value)| (key.clone(), value.into())).collect()
}
