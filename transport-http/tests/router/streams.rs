//! Sync streams: formats, compression, ends.

use serde_json::{Value, json};
use syncline_core::ServiceLimits;
use syncline_transport_http::HttpLimits;

use crate::bench::{Bench, LIMIT, SECRET, claims, lines_until, token};

#[tokio::test]
async fn an_application_has_routes_and_state_of_its_own_beside_the_stream() {
    let bench = Bench::start().await;
    let get = |path: &str| bench.client.get(bench.url(path));
    assert_eq!(get("/api/hello").send().await.unwrap().text().await.unwrap(), "hello");
    let refused = get("/api/me").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "PSYNC_S2106");
    let token = token("HS256", Some("sample-kid"), SECRET, &claims());
    let body: Value = get("/api/me").bearer_auth(token).send().await.unwrap().json().await.unwrap();
    assert_eq!(body, json!({ "user": "user-1" }));

    let lines = lines_until(bench.stream().send().await.unwrap(), "checkpoint_complete").await;
    let data = lines.iter().find_map(|line| line.get("data")).unwrap();
    assert_eq!(data["data"][0]["data"], "{\"id\":\"l1\",\"name\":\"Groceries\"}");
}

#[tokio::test]
async fn formats_are_negotiated_and_named_exactly() {
    let bench = Bench::start().await;
    let bson = "application/vnd.powersync.bson-stream";
    for (accept, expected) in [
        (None, "application/x-ndjson"),
        (Some("*/*"), "application/x-ndjson"),
        (Some("application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8"), bson),
    ] {
        let mut request = bench.stream();
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let mut answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], expected);
        let first = tokio::time::timeout(LIMIT, answer.chunk()).await.unwrap().unwrap().unwrap();
        if expected == bson {
            assert!(i32::from_le_bytes(first[..4].try_into().unwrap()) > 4);
        } else {
            assert_eq!(first[0], b'{');
        }
    }
}

#[tokio::test]
async fn compressed_lines_arrive_while_the_stream_is_open() {
    let bench = Bench::start().await;
    for (accept, encoding) in [("gzip", "gzip"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "gzip"), ("br", "")] {
        let raw = bench.stream().header("accept-encoding", accept).send().await.unwrap();
        let named = raw.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(named.as_deref().unwrap_or(""), encoding, "{accept}");
        // A client that decodes gets whole lines although the stream does not end.
        let decoding = reqwest::Client::builder().timeout(LIMIT).build().unwrap();
        let request = bench.stream().header("accept-encoding", accept).build().unwrap();
        let lines = lines_until(decoding.execute(request).await.unwrap(), "checkpoint_complete").await;
        assert!(lines.iter().any(|line| line.get("data").is_some()), "{accept}");
    }
}

#[tokio::test]
async fn a_change_arrives_in_an_open_stream() {
    let bench = Bench::start().await;
    for encoding in ["identity", "gzip", "zstd"] {
        let decoding = reqwest::Client::builder().timeout(LIMIT).build().unwrap();
        let request = bench.stream().header("accept-encoding", encoding).build().unwrap();
        let answer = decoding.execute(request).await.unwrap();
        bench.streams_are(1).await;
        let changes = async {
            let mut number = 0;
            loop {
                number += 1;
                bench.source.put("lists", json!({ "id": "l2", "name": format!("{encoding}{number}") })).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            lines = lines_until(answer, "checkpoint_diff") => assert!(lines[0].get("checkpoint").is_some()),
            () = changes => {}
        }
        bench.streams_are(0).await; // the client has gone
    }
}

#[tokio::test]
async fn too_many_streams_are_refused_without_a_body() {
    let limits = ServiceLimits { streams: 1, ..ServiceLimits::default() };
    let bench = Bench::with(HttpLimits::default(), limits).await;
    let first = bench.stream().send().await.unwrap();
    assert_eq!(first.status(), 200);
    let second = bench.stream().send().await.unwrap();
    assert_eq!(second.status(), 429);
    assert!(second.text().await.unwrap().is_empty());
    drop(first);
    bench.streams_are(0).await;
    assert_eq!(bench.stream().send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_yields_too_many_buckets_is_told_so_by_its_answer() {
    let limits = ServiceLimits { buckets_per_stream: 0, ..ServiceLimits::default() };
    let bench = Bench::with(HttpLimits::default(), limits).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    // As long as there is no checkpoint, there is nothing to refuse.
    let answer = loop {
        let answer = bench.stream().send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is served");
    };
    assert_eq!(answer.status(), 400);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "PSYNC_S2305");
    let description = body["error"]["description"].as_str().unwrap();
    assert!(description.contains("raise `buckets_per_stream`"), "{description}");
    bench.streams_are(0).await;
}

#[tokio::test]
async fn closing_ends_streams_and_answers_503() {
    let bench = Bench::start().await;
    let open = bench.stream().send().await.unwrap();
    bench.streams_are(1).await;
    bench.service.close().await;
    // The stream ends cleanly: its text can be read to the end.
    tokio::time::timeout(LIMIT, open.text()).await.unwrap().unwrap();
    let refused = bench.stream().send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "PSYNC_S2003");
    for (probe, status) in [("startup", 200), ("liveness", 200), ("readiness", 400)] {
        let answer = bench.client.get(bench.url(&format!("/probes/{probe}"))).send().await.unwrap();
        assert_eq!(answer.status(), status, "{probe}");
    }
}

#[tokio::test]
async fn a_stream_of_an_expiring_token_says_so_and_ends() {
    let bench = Bench::start().await;
    let mut claims = claims();
    claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 30); // within the tolerance
    claims["iat"] = json!(claims["exp"].as_i64().unwrap() - 100);
    let token = token("HS256", Some("sample-kid"), SECRET, &claims);
    let request = bench.client.post(bench.url("/sync/stream")).header("authorization", format!("Token {token}"));
    let text = tokio::time::timeout(LIMIT, request.send().await.unwrap().text()).await.unwrap().unwrap();
    assert!(text.contains("{\"token_expires_in\":0}"), "{text}");
}
