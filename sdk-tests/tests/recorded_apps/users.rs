//! A user with two devices: one with our client, one with the official SDK.

use std::time::Duration;

use futures::TryStreamExt;
use sdk_tests::{NodeClient, Wire};
use serde_json::{Map, Value as Json, json};
use syncline_core::client::StreamHandle;
use syncline_core::{BoxError, Connector, Credentials, LocalTransaction, SyncClient, Uploaded, async_trait};
use syncline_storage_sqlite::{Database, Schema, Table};
use syncline_transport_http::HttpTransport;
use tokio::task::JoinHandle;

use crate::app::Request;
use crate::content::{Content, Shapes};
use crate::server::{Server, token};

/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both devices sync until this is closed.
#[derive(Debug)]
pub(crate) struct User {
    name: String,
    request: Request,
    shapes: Shapes,
    db: Database,
    sync: SyncClient,
    running: JoinHandle<syncline_core::Result<()>>,
    _subscriptions: Vec<StreamHandle>,
    node: NodeClient,
}

#[derive(Debug)]
struct ReadOnly(String);

#[async_trait]
impl Connector for ReadOnly {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new(self.0.clone()))
    }

    async fn upload(&self, writes: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        Err(format!("nothing is written here: {writes:?}").into())
    }
}

impl User {
    pub(crate) async fn connect(server: &Server, name: &str, request: &Request, shapes: &Shapes) -> Self {
        let token = token(&request.jwt);
        let mut schema = Schema::new();
        for (table, columns) in shapes {
            let columns = columns.iter().fold(Table::new(table), |table, (column, kind)| match *kind {
                "integer" => table.integer(column),
                _ => table.text(column),
            });
            schema = schema.table(columns);
        }
        let db = Database::open_in_memory(schema).await.unwrap();
        let transport = HttpTransport::new(&server.endpoint).unwrap();
        let sync =
            SyncClient::new(db.clone(), transport, ReadOnly(token.clone())).parameters(request.parameters.clone());
        let mut subscriptions = Vec::new();
        for wanted in &request.streams {
            let parameters = Json::Object(wanted.parameters.clone().unwrap_or_default());
            subscriptions.push(sync.subscribe(wanted.stream.as_str(), parameters).await.unwrap());
        }
        let running = tokio::spawn(sync.run());

        let file = server.folder.path().join(format!("{name}.db"));
        let mut node = NodeClient::open(&file, json!(shapes), Wire::default()).await.unwrap();
        let upload = format!("{}/nothing", server.endpoint);
        let parameters = Json::Object(request.parameters.clone());
        node.connect_with(&server.endpoint, &token, &upload, parameters).await.unwrap();
        for wanted in &request.streams {
            node.subscribe(&wanted.stream, json!(wanted.parameters)).await.unwrap();
        }
        Self {
            name: name.to_owned(),
            request: request.clone(),
            shapes: shapes.clone(),
            db,
            sync,
            running,
            _subscriptions: subscriptions,
            node,
        }
    }

    /// Waits until both devices have just what the user should see.
    ///
    /// # Panics
    /// If one of them has not in time; it says after which change.
    pub(crate) async fn sees(&mut self, content: &Content, after: &str) {
        let visible = content.visible(&self.request);
        for (table, columns) in &self.shapes {
            let names: Vec<&str> = std::iter::once("id").chain(columns.keys().map(String::as_str)).collect();
            let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            let sql = format!("SELECT {list} FROM \"{table}\" ORDER BY id");
            let row = |data: &Map<String, Json>| -> Json {
                let value = |name: &&str| ((*name).to_owned(), data.get(*name).cloned().unwrap_or(Json::Null));
                Json::Object(names.iter().map(value).collect())
            };
            let own = visible.iter().filter(|((of, _), _)| of == table);
            let expected = Json::Array(own.map(|(_, data)| row(data)).collect());
            let context = format!("{} after {after}", self.name);
            self.has(&names, &sql, &expected, &context).await;
            self.node.until(&sql, expected).await.unwrap_or_else(|error| panic!("Node: {context}: {error:#}"));
        }
    }

    /// Waits until our client shows these rows, told of each change by the database.
    async fn has(&self, names: &[&str], sql: &str, expected: &Json, context: &str) {
        let pairs = names.iter().map(|name| format!("'{name}', \"{name}\"")).collect::<Vec<_>>().join(", ");
        let rows = format!("SELECT json_group_array(json_object({pairs})) FROM ({sql})");
        let mut found = Json::Null;
        let shown = async {
            let mut watch = self.db.query::<String>(rows).watch();
            while let Some(now) = watch.try_next().await.unwrap() {
                found = serde_json::from_str(&now[0]).unwrap();
                if found == *expected {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, shown).await.is_ok();
        let status = self.sync.current_status();
        assert!(in_time && found == *expected, "{context}: `{sql}` yields {found}, not {expected}; {status:?}");
    }

    /// Disconnects, and closes both devices.
    pub(crate) async fn close(self) {
        self.running.abort();
        self.node.close().await.unwrap();
    }
}
