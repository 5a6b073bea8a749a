//! `explain`, and `check --explain`: which rows of a file a user would get, and for each row what decides it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json};
use syncline_core::{
    ConfigLookup, ConfigRequest, EvaluatedLookup, Evaluation, Identity, LookupRows, SourceColumn, SourceTable,
    StreamSubscription, SyncConfig, TableId, Value,
};

use crate::settings::Settings;

/// What the user asks with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Request {
    /// Further claims of the token, as a JSON object.
    #[arg(long, default_value = "{}", requires = "user")]
    claims: String,
    /// The parameters of the connection, as a JSON object.
    #[arg(long, default_value = "{}", requires = "user")]
    parameters: String,
    /// A stream that is subscribed to, with its parameters if it has any: `items` or `items={"list":"l1"}`.
    #[arg(long, requires = "user")]
    subscribe: Vec<String>,
}

/// Who asks, and for which rows.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Question {
    /// The user: the claim `sub` of the token.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    request: Request,
    /// A JSON file with the rows of each table: `{"lists": [{"id": "l1", …}], …}`. Rows that lookups need belong in it too.
    rows: PathBuf,
}

/// A row of the file with its table.
struct Row {
    table: SourceTable,
    values: Vec<Value>,
    label: String,
}

/// Prints the explanation of every row.
pub(crate) fn explain(settings: &Settings, question: &Question) -> Result<()> {
    let Question { user, request, rows } = question;
    for explained in explanations(&settings.sync_config()?, user, request, rows)? {
        println!("{explained}");
    }
    Ok(())
}

/// The explanation of every row of a file.
pub(crate) fn explanations(config: &SyncConfig, user: &str, asked: &Request, path: &Path) -> Result<Vec<String>> {
    let mut identity = Identity::new(user);
    for (name, value) in object("claims", &asked.claims)? {
        identity = identity.claim(name, value);
    }
    let parameters = object("parameters", &asked.parameters)?;
    let subscriptions = asked.subscribe.iter().map(|text| subscription(config, text)).collect::<Result<Vec<_>>>()?;
    let request = ConfigRequest {
        identity: &identity,
        parameters: &parameters,
        include_defaults: true,
        subscriptions: &subscriptions,
    };
    let rows = read_rows(path)?;
    let mut evaluation = Evaluation::new();
    for row in &rows {
        config.bind(&row.table).evaluate_lookups(&row.values, &mut evaluation);
    }
    let explained = rows.iter().map(|row| {
        let explanation =
            config.explain(&request, &row.table, &row.values, |wanted| found(&evaluation.lookups, wanted));
        format!("{}: {explanation}", row.label)
    });
    Ok(explained.collect())
}

/// What a lookup finds among all rows of the file.
fn found(entries: &[EvaluatedLookup], wanted: &ConfigLookup) -> LookupRows {
    let entries = entries.iter().filter(|entry| entry.index == wanted.index && entry.values == wanted.values);
    LookupRows { rows: entries.flat_map(|entry| entry.outputs.iter().cloned()).collect() }
}

fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let path = path.display();
    let tables: Map<String, Json> =
        serde_json::from_str(&text).with_context(|| format!("{path} must hold a JSON object of tables"))?;
    let mut rows = Vec::new();
    for (number, (name, list)) in (1..).zip(&tables) {
        let Json::Array(list) = list else { bail!("{path}: `{name}` must be a list of rows") };
        let (schema, table) = name.split_once('.').unwrap_or(("public", name));
        for (index, row) in list.iter().enumerate() {
            let Json::Object(row) = row else { bail!("{path}: row {index} of `{name}` must be an object") };
            let column = |name: &String| SourceColumn {
                name: name.as_str().into(),
                key: name == "id",
                type_name: "text".into(),
            };
            let id = row.get("id").map_or_else(|| format!("number {index}"), Json::to_string);
            rows.push(Row {
                table: SourceTable {
                    id: TableId(number),
                    schema: schema.into(),
                    name: table.into(),
                    columns: row.keys().map(column).collect(),
                },
                values: row.values().map(Value::from_json).collect(),
                label: format!("{name} {id}"),
            });
        }
    }
    Ok(rows)
}

fn subscription(config: &SyncConfig, text: &str) -> Result<StreamSubscription> {
    let (stream, parameters) = match text.split_once('=') {
        Some((stream, parameters)) => (stream, Some(object("subscribe", parameters)?)),
        None => (text, None),
    };
    if !config.stream_names().iter().any(|name| **name == *stream) {
        let names: Vec<&str> = config.stream_names().iter().map(|name| &**name).collect();
        bail!("there is no stream `{stream}`; there are {}", names.join(", "));
    }
    Ok(StreamSubscription { stream: stream.to_owned(), parameters, override_priority: None })
}

fn object(name: &str, text: &str) -> Result<Map<String, Json>> {
    serde_json::from_str(text).with_context(|| format!("--{name} must be a JSON object"))
}
