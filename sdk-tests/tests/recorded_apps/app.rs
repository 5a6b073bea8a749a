//! A recorded application: its sync config, its rows, and what each request sees.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use syncline_core::Value;

/// See `12-apps.json` among the recorded cases.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) config: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) requests: BTreeMap<String, Request>,
    expect: Json,
}

/// A row of the source.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) table: String,
    columns: Map<String, Json>,
}

/// Who asks, and for what.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Request {
    pub(crate) jwt: Map<String, Json>,
    pub(crate) parameters: Map<String, Json>,
    pub(crate) streams: Vec<Subscription>,
    include_defaults: bool,
}

/// A stream that is subscribed to.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) stream: String,
    pub(crate) parameters: Option<Map<String, Json>>,
}

/// Rows that a client sees, by table and id.
pub(crate) type Visible = BTreeMap<(String, String), Map<String, Json>>;

#[derive(Deserialize)]
struct Area {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    input: Input,
    expect: Json,
}

#[derive(Deserialize)]
struct Input {
    config: String,
    rows: Vec<Row>,
    requests: BTreeMap<String, Request>,
}

impl App {
    pub(crate) fn all() -> Vec<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/sync-rules-cases/12-apps.json");
        let area: Area = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let app = |Case { id, input, expect }| {
            let Input { config, rows, requests } = input;
            assert!(
                requests.values().all(|request: &Request| request.include_defaults),
                "the SDKs always include them"
            );
            Self { id, config, rows, requests, expect }
        };
        area.cases.into_iter().map(app).collect()
    }

    /// What a request saw of all rows, as it was recorded.
    pub(crate) fn visible(&self, request: &str) -> Visible {
        let rows = self.expect["requests"][request]["visible"].as_array().unwrap();
        let row = |row: &Json| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            ((text("table"), text("id")), serde_json::from_str(&text("data")).unwrap())
        };
        rows.iter().map(row).collect()
    }
}

impl Row {
    /// Names and values of the columns; numbers are recorded as `{"int": "1"}`.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, Value)> {
        self.columns.iter().map(|(name, value)| {
            let value = match value {
                Json::Null => Value::Null,
                Json::String(text) => Value::text(text.as_str()),
                number => Value::Integer(number["int"].as_str().unwrap().parse().unwrap()),
            };
            (name.as_str(), value)
        })
    }
}
