//! The body of an upload endpoint, and a connector's upload, over real sockets.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(all(feature = "server", feature = "client"))]

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use syncline_core::{Credentials, ErrorKind, LocalTransaction, Uploaded};
use syncline_transport_http::{Problem, Upload, http_client, upload};

const LIMIT: usize = 4 << 20;

async fn serve() -> String {
    let echo = |Upload(transaction): Upload<LIMIT>| async move {
        match transaction.crud.len() {
            0 => Err(Problem::new(axum::http::StatusCode::UNAUTHORIZED, "PSYNC_S2101", "no")),
            _ => Ok(Json(Uploaded::Applied)),
        }
    };
    let app = Router::new().route("/upload", post(echo)).route("/odd", post(async || "fine"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    endpoint
}

fn transaction(bytes: usize) -> Value {
    json!({ "crud": [{ "op_id": 1, "op": "PUT", "type": "notes", "id": "n1", "data": { "body": "x".repeat(bytes) } }] })
}

async fn answer(endpoint: &str, body: String) -> (u16, Value) {
    // Without a content type, as some clients send it.
    let reply = http_client().unwrap().post(format!("{endpoint}/upload")).body(body).send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

#[tokio::test]
async fn a_body_is_taken_up_to_the_limit_and_rejected_beyond_it() {
    let endpoint = serve().await;
    let frame = transaction(0).to_string().len();
    let (status, body) = answer(&endpoint, transaction(LIMIT - frame).to_string()).await;
    assert_eq!((status, body), (200, json!({ "status": "applied" })));
    // Twice as large is still received, so that the answer arrives; it would otherwise be lost with the connection.
    for bytes in [LIMIT - frame + 1, 2 * LIMIT] {
        let (status, body) = answer(&endpoint, transaction(bytes).to_string()).await;
        assert_eq!((status, &body["status"]), (200, &json!("rejected")), "{body}");
        assert!(body["reason"].as_str().unwrap().contains("4194304 bytes"), "{body}");
    }
}

#[tokio::test]
async fn what_is_no_transaction_is_answered_with_what_is_wrong() {
    let endpoint = serve().await;
    for (body, part) in [
        ("", "EOF"),
        ("{", "line 1 column 1"),
        (r#"{"crud":[{"op":"MERGE","type":"t","id":"1"}]}"#, "MERGE"),
        (r#"{"crud":[{"op":"PUT","id":"1"}]}"#, "missing field `type`"),
        ("[1, 2]", "crud"),
    ] {
        let (status, answer) = answer(&endpoint, body.into()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"]["description"].as_str().unwrap().contains(part), "{answer}");
    }
}

#[tokio::test]
async fn a_connector_learns_what_a_backend_answers() {
    let (endpoint, client) = (serve().await, http_client().unwrap());
    let credentials = Credentials::new("anna");
    let send = |route: &str, body: Value| {
        let (client, url, credentials) = (client.clone(), format!("{endpoint}/{route}"), credentials.clone());
        async move {
            let writes: LocalTransaction = serde_json::from_value(body).unwrap();
            upload(&client, &url, &writes, &credentials).await
        }
    };
    assert_eq!(send("upload", transaction(10)).await.unwrap(), Uploaded::Applied);
    let error = send("upload", json!({ "crud": [] })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "so that a new token is fetched");
    let error = send("odd", transaction(10)).await.unwrap_err();
    assert!(error.to_string().contains("\"fine\"") && error.to_string().contains("applied"), "{error}");
    let error = send("none", transaction(10)).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}
