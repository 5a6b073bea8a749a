//! Users: what their tokens claim, what their clients send, and what they subscribe to.

use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value as Json};
use syncline_core::{ConfigRequest, Identity, StreamSubscription};

use super::values;

/// The names of values that a request may have.
pub(crate) const KEYS: [&str; 3] = ["p0", "p1", "list"];

#[derive(Debug, Clone)]
pub(crate) struct User {
    claims: Map<String, Json>,
    parameters: Map<String, Json>,
    include_defaults: bool,
    subscriptions: Vec<StreamSubscription>,
}

impl User {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_claims(self.claims.clone())
    }

    pub(crate) fn request<'a>(&'a self, identity: &'a Identity) -> ConfigRequest<'a> {
        ConfigRequest {
            identity,
            parameters: &self.parameters,
            include_defaults: self.include_defaults,
            subscriptions: &self.subscriptions,
        }
    }
}

fn list() -> impl Strategy<Value = Json> {
    proptest::collection::vec(values::json(), 0..4).prop_map(Json::Array)
}

fn map() -> impl Strategy<Value = Map<String, Json>> {
    let values = (option::weighted(0.9, values::json()), option::weighted(0.8, values::json()));
    let list = option::weighted(0.9, prop_oneof![3 => list(), 1 => values::json()]);
    (values, list).prop_map(|((p0, p1), list)| {
        let found = KEYS.into_iter().zip([p0, p1, list]);
        found.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    })
}

fn subscription() -> impl Strategy<Value = StreamSubscription> {
    let stream = proptest::sample::select(&["s0", "s0", "s1", "unknown"][..]);
    (stream, option::weighted(0.8, map())).prop_map(|(stream, parameters)| StreamSubscription {
        stream: stream.into(),
        parameters,
        override_priority: None,
    })
}

pub(crate) fn user() -> impl Strategy<Value = User> {
    let subject = option::weighted(0.95, prop_oneof![4 => values::text().prop_map(Json::from), 1 => values::json()]);
    let subscriptions = proptest::collection::vec(subscription(), 0..3);
    (map(), subject, map(), proptest::bool::weighted(0.9), subscriptions).prop_map(
        |(mut claims, subject, parameters, include_defaults, subscriptions)| {
            claims.extend(subject.map(|subject| ("sub".to_owned(), subject)));
            // What bucket definitions call token parameters.
            claims.insert("parameters".to_owned(), Json::Object(claims.clone()));
            User { claims, parameters, include_defaults, subscriptions }
        },
    )
}
