//! The rows that the database should have, and what of them each request should see.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use syncline_core::{
    ConfigRequest, Evaluation, Identity, LookupRows, SourceColumn, SourceTable, StreamSubscription, SyncConfig,
    TableId, Value,
};

use crate::app::{App, Request, Visible};

/// All tables with their rows.
#[derive(Debug)]
pub(crate) struct Content {
    config: SyncConfig,
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Default)]
struct Table {
    columns: Vec<String>,
    integers: BTreeSet<String>,
    /// By the text of the id.
    rows: BTreeMap<String, Vec<Value>>,
}

/// What the tables of a client have: names of columns, and of their types in SQLite.
pub(crate) type Shapes = BTreeMap<String, BTreeMap<String, &'static str>>;

/// One change of the database.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    table: String,
    id: String,
    /// The row as it is then; `None` is a deletion.
    row: Option<Vec<Value>>,
}

impl Content {
    pub(crate) fn new(app: &App) -> Self {
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for row in &app.rows {
            let table = tables.entry(row.table.clone()).or_default();
            for (name, value) in row.columns() {
                if !table.columns.iter().any(|known| known == name) {
                    table.columns.push(name.to_owned());
                }
                if matches!(value, Value::Integer(_)) {
                    table.integers.insert(name.to_owned());
                }
            }
        }
        for row in &app.rows {
            let table = tables.get_mut(&row.table).unwrap();
            let by_name: BTreeMap<&str, Value> = row.columns().collect();
            let values: Vec<Value> =
                table.columns.iter().map(|name| by_name.get(name.as_str()).cloned().unwrap_or(Value::Null)).collect();
            table.rows.insert(text(&by_name["id"]), values);
        }
        Self { config: SyncConfig::parse(&app.config).unwrap(), tables }
    }

    /// Makes all tables and their rows.
    pub(crate) fn sql(&self) -> String {
        let mut sql = String::new();
        for (name, table) in &self.tables {
            let column = |column: &String| {
                let kind = if table.integers.contains(column) { "bigint" } else { "text" };
                format!("\"{column}\" {kind}{}", if column == "id" { " PRIMARY KEY" } else { "" })
            };
            let columns: Vec<String> = table.columns.iter().map(column).collect();
            sql.push_str(&format!("CREATE TABLE \"{name}\" ({});\n", columns.join(", ")));
            for row in table.rows.values() {
                sql.push_str(&format!("{};\n", insert(name, row)));
            }
        }
        sql
    }

    /// Every row goes and comes back; every value gives way to each other one of its column, and comes back.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, table) in &self.tables {
            for (id, row) in &table.rows {
                let mut change =
                    |row: Option<Vec<Value>>| changes.push(Change { table: name.clone(), id: id.clone(), row });
                change(None);
                change(Some(row.clone()));
                for (place, column) in table.columns.iter().enumerate().filter(|(_, column)| *column != "id") {
                    let mut others: Vec<Value> = vec![Value::Null];
                    for other in table.rows.values().map(|other| &other[place]) {
                        if !others.contains(other) {
                            others.push(other.clone());
                        }
                    }
                    if table.integers.contains(column) {
                        others.extend([Value::Integer(0), Value::Integer(1)]);
                    }
                    for other in others.into_iter().filter(|other| *other != row[place]) {
                        let mut changed = row.clone();
                        changed[place] = other;
                        change(Some(changed));
                    }
                    change(Some(row.clone()));
                }
            }
        }
        changes
    }

    /// Makes a change here, and returns what makes it in the database.
    pub(crate) fn apply(&mut self, change: &Change) -> String {
        let Change { table: name, id, row } = change;
        let table = self.tables.get_mut(name).unwrap();
        let Some(row) = row else {
            table.rows.remove(id);
            return format!("DELETE FROM \"{name}\" WHERE id::text = '{id}'");
        };
        if table.rows.insert(id.clone(), row.clone()).is_none() {
            return insert(name, row);
        }
        let sets: Vec<String> =
            table.columns.iter().zip(row).map(|(column, value)| format!("\"{column}\" = {}", literal(value))).collect();
        format!("UPDATE \"{name}\" SET {} WHERE id::text = '{id}'", sets.join(", "))
    }

    /// The tables of clients: all that any row leads to.
    pub(crate) fn shapes(&self) -> Shapes {
        let mut shapes = Shapes::new();
        self.evaluate(|evaluation| {
            for row in &evaluation.rows {
                let data: Map<String, Json> = serde_json::from_slice(&row.data).unwrap();
                let shape = shapes.entry(row.object_type.to_string()).or_default();
                for (column, value) in data.into_iter().filter(|(column, _)| column != "id") {
                    let kind = if value.is_number() { "integer" } else { "text" };
                    let known = shape.entry(column).or_insert(kind);
                    if kind == "integer" {
                        *known = kind;
                    }
                }
            }
        });
        shapes
    }

    /// What a request should see.
    pub(crate) fn visible(&self, request: &Request) -> Visible {
        let mut lookups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut buckets: BTreeMap<_, Visible> = BTreeMap::new();
        self.evaluate(|evaluation| {
            for entry in evaluation.lookups.drain(..) {
                lookups.entry((entry.index, entry.values)).or_default().extend(entry.outputs);
            }
            for row in evaluation.rows.drain(..) {
                let bucket = buckets.entry((row.definition, row.parameters)).or_default();
                let name = (row.object_type.to_string(), row.object_id.to_string());
                bucket.insert(name, serde_json::from_slice(&row.data).unwrap());
            }
        });
        let subscriptions: Vec<StreamSubscription> = request
            .streams
            .iter()
            .map(|one| StreamSubscription {
                stream: one.stream.clone(),
                parameters: one.parameters.clone(),
                override_priority: None,
            })
            .collect();
        let identity = Identity::from_claims(request.jwt.clone());
        let request = ConfigRequest {
            identity: &identity,
            parameters: &request.parameters,
            include_defaults: true,
            subscriptions: &subscriptions,
        };
        let resolved = self.config.resolve_with(&request, |wanted| {
            let rows = lookups.get(&(wanted.index, wanted.values.clone())).cloned().unwrap_or_default();
            LookupRows { rows }
        });
        let resolved = resolved.unwrap().buckets;
        resolved
            .into_iter()
            .filter_map(|bucket| buckets.get(&(bucket.definition, bucket.parameters)))
            .flat_map(Clone::clone)
            .collect()
    }

    fn evaluate(&self, mut take: impl FnMut(&mut Evaluation)) {
        let mut evaluation = Evaluation::new();
        for (number, (name, table)) in (1..).zip(&self.tables) {
            let column = |name: &String| SourceColumn {
                name: name.as_str().into(),
                key: name == "id",
                type_name: "text".into(),
            };
            let columns = table.columns.iter().map(column).collect();
            let description =
                SourceTable { id: TableId(number), schema: "public".into(), name: name.as_str().into(), columns };
            let evaluator = self.config.bind(&description);
            for row in table.rows.values() {
                evaluation.clear();
                evaluator.evaluate(row, &mut evaluation);
                assert!(evaluation.errors.is_empty(), "{:?}", evaluation.errors);
                take(&mut evaluation);
            }
        }
    }
}

fn insert(table: &str, row: &[Value]) -> String {
    format!("INSERT INTO \"{table}\" VALUES ({})", row.iter().map(literal).collect::<Vec<_>>().join(", "))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        other => format!("'{}'", text(other).replace('\'', "''")),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Integer(integer) => integer.to_string(),
        other => panic!("no value of these apps: {other:?}"),
    }
}
