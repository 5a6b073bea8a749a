//! An application's backend that takes uploads now and applies them later, as one with a queue does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use syncline_transport_http::axum::extract::State;
use syncline_transport_http::axum::routing::post;
use syncline_transport_http::axum::{self, Router};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// What a client has sent.
#[derive(Debug)]
enum Sent {
    Upload,
    /// Its id, and the number of the write checkpoint that it will wait for.
    Checkpoint(String, i64),
}

/// The backend of one client. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct LaterBackend {
    url: String,
    sent: UnboundedReceiver<Sent>,
    server: JoinHandle<std::io::Result<()>>,
}

#[derive(Debug, Clone)]
struct Taking {
    sent: UnboundedSender<Sent>,
    /// The largest number that was asked for.
    largest: Arc<AtomicI64>,
}

impl LaterBackend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/upload", listener.local_addr().unwrap());
        let (sender, sent) = unbounded_channel();
        let app = Router::new().route("/upload", post(upload)).route("/checkpoint", post(checkpoint));
        let app = app.with_state(Taking { sent: sender, largest: Arc::default() });
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        Self { url, sent, server }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for an upload and for the request of a write checkpoint after it: whose it is, and its number.
    pub(crate) async fn uploaded(&mut self) -> (String, i64) {
        let mut uploaded = false;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.sent.recv()).await;
            match next.expect("a client uploads").unwrap() {
                Sent::Upload => uploaded = true,
                Sent::Checkpoint(client, number) if uploaded => return (client, number),
                // It asks for the last number when it connects, and may ask again.
                Sent::Checkpoint(..) => {}
            }
        }
    }
}

impl Drop for LaterBackend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn upload(State(taking): State<Taking>) -> axum::Json<Json> {
    taking.sent.send(Sent::Upload).unwrap();
    axum::Json(json!({}))
}

async fn checkpoint(State(taking): State<Taking>, axum::Json(body): axum::Json<Json>) -> axum::Json<Json> {
    let asked: i64 = body["checkpoint_request_id"].as_str().unwrap().parse().unwrap();
    let number = taking.largest.fetch_max(asked, Ordering::Relaxed).max(asked);
    taking.sent.send(Sent::Checkpoint(body["client_id"].as_str().unwrap().to_owned(), number)).unwrap();
    axum::Json(json!({ "checkpoint_request_id": number.to_string() }))
}
