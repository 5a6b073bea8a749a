//! The input of a case: config, rows and requests.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value as Json};
use syncline_core::{
    BucketPriority, Bytes, Diagnostics, Identity, SourceColumn, SourceSchema, SourceTable, StreamSubscription,
    SyncConfig, TableId, Value,
};

#[derive(Debug, Deserialize)]
pub(crate) struct Input {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) default_schema: Option<String>,
    #[serde(default)]
    source_schema: Option<SchemaInput>,
    #[serde(default)]
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    #[serde(default)]
    pub(crate) requests: Map<String, Json>,
}

/// The tables of one schema.
#[derive(Debug, Deserialize)]
struct SchemaInput {
    name: String,
    tables: Vec<TableInput>,
}

#[derive(Debug, Deserialize)]
struct TableInput {
    name: String,
    columns: Vec<ColumnInput>,
}

#[derive(Debug, Deserialize)]
struct ColumnInput {
    name: String,
}

impl Input {
    pub(crate) fn parse(&self) -> Result<SyncConfig, Diagnostics> {
        let Some(known) = &self.source_schema else { return SyncConfig::parse(&self.config) };
        let mut schema = SourceSchema::new().default_schema(known.name.as_str());
        for table in &known.tables {
            let columns = table.columns.iter().map(|column| column.name.as_str());
            schema = schema.table(known.name.as_str(), table.name.as_str(), columns);
        }
        SyncConfig::parse_with_schema(&self.config, &schema)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    #[serde(rename = "ref")]
    pub(crate) reference: String,
    pub(crate) connection: String,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) key: String,
    columns: Columns,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) put: Vec<Row>,
    #[serde(default)]
    pub(crate) delete: Vec<Key>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Key {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) key: String,
}

/// Columns in the order of the file, which is the order of the data.
#[derive(Debug, Clone)]
struct Columns(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

impl Row {
    pub(crate) fn table(&self) -> SourceTable {
        let column = |(name, _): &(String, Json)| SourceColumn {
            name: name.as_str().into(),
            key: name == "id",
            type_name: "text".into(),
        };
        SourceTable {
            id: TableId(1),
            // Tables of other connections go by both names.
            schema: match self.connection.as_str() {
                "default" => self.schema.as_str().into(),
                other => format!("{other}.{}", self.schema).into(),
            },
            name: self.table.as_str().into(),
            columns: self.columns.0.iter().map(column).collect(),
        }
    }

    pub(crate) fn values(&self) -> Vec<Value> {
        self.columns.0.iter().map(|(_, value)| read(value)).collect()
    }
}

fn read(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::String(text) => Value::text(text.as_str()),
        Json::Object(tagged) => {
            let (tag, text) = tagged.iter().next().unwrap();
            let text = text.as_str().unwrap();
            match tag.as_str() {
                "int" => Value::Integer(text.parse().unwrap()),
                "real" => Value::Real(text.parse().unwrap()),
                "blob" => {
                    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
                    Value::Blob(Bytes::from_iter((0..text.len()).step_by(2).map(byte)))
                }
                other => panic!("unknown value {other}"),
            }
        }
        other => panic!("unknown value {other}"),
    }
}

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) identity: Identity,
    pub(crate) parameters: Map<String, Json>,
    pub(crate) include_defaults: bool,
    pub(crate) subscriptions: Vec<StreamSubscription>,
}

impl Request {
    pub(crate) fn read(request: &Json) -> Self {
        let subscription = |stream: &Json| StreamSubscription {
            stream: stream["stream"].as_str().unwrap().into(),
            parameters: stream["parameters"].as_object().cloned(),
            override_priority: stream["override_priority"].as_u64().map(|priority| BucketPriority(priority as u8)),
        };
        Self {
            identity: Identity::from_claims(request["jwt"].as_object().unwrap().clone()),
            parameters: request["parameters"].as_object().cloned().unwrap_or_default(),
            include_defaults: request["include_defaults"].as_bool().unwrap_or(true),
            subscriptions: request["streams"].as_array().into_iter().flatten().map(subscription).collect(),
        }
    }
}
