//! The small endpoints, errors, tokens and CORS, held to what the official service was recorded to answer.

use serde_json::{Value, json};

use crate::bench::{Bench, LIMIT, SECRET, claims, token};

const RECORDED: &str = include_str!("../../../core/tests/data/vectors/http_small.json");

/// Where we answer otherwise on purpose.
const DIFFERENT: [(&str, &str); 6] = [
    ("null_parameters", "some SDKs send null, so it is taken for none"),
    ("admin_no_auth", "there is no admin API"),
    ("no_sync_config", "a stream waits for the first config"),
    ("probe_startup", "recorded of a service that had not started"),
    ("probe_readiness", "recorded of a service that had not started"),
    ("shutting_down", "has a test of its own"),
];

/// The token that a recorded case is about.
fn token_of(case: &str) -> String {
    let now = claims()["iat"].as_i64().unwrap();
    let mut claims = claims();
    let kid = Some("sample-kid");
    let remove = |claims: &mut Value, name: &str| drop(claims.as_object_mut().unwrap().remove(name));
    match case {
        "jwt_expired" => (claims["iat"], claims["exp"]) = (json!(now - 1000), json!(now - 500)),
        "jwt_expired_within_tolerance_60s" => (claims["iat"], claims["exp"]) = (json!(now - 1000), json!(now - 30)),
        "jwt_wrong_aud" => claims["aud"] = json!("other"),
        "jwt_no_aud" => remove(&mut claims, "aud"),
        "jwt_aud_array_ok" => claims["aud"] = json!(["x", "app"]),
        "jwt_no_sub" => remove(&mut claims, "sub"),
        "jwt_no_iat" => remove(&mut claims, "iat"),
        "jwt_no_exp" => remove(&mut claims, "exp"),
        "jwt_too_long" => claims["exp"] = json!(now + 90_000),
        "jwt_params_array" => claims["parameters"] = json!([]),
        "jwt_unknown_kid" => return token("HS256", Some("other"), SECRET, &claims),
        "jwt_no_kid" => return token("HS256", None, SECRET, &claims),
        "jwt_wrong_alg_for_kid" => return token("HS512", kid, SECRET, &claims),
        "jwt_bad_signature" => return token("HS256", kid, b"another secret, just as long as it", &claims),
        "jwt_numeric_sub" => claims["sub"] = json!(42),
        "jwt_iat_future" => claims["iat"] = json!(now + 100),
        "jwt_nbf_future" => claims["nbf"] = json!(now + 1000),
        _ => {}
    }
    token("HS256", kid, SECRET, &claims)
}

#[tokio::test]
async fn small_endpoints_answer_as_recorded() {
    let bench = Bench::start().await;
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let mut compared = 0;
    for case in recorded["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (request, expected) = (&case["request"], &case["response"]);
        if DIFFERENT.iter().any(|(different, _)| *different == name) {
            continue;
        }
        let method = request["method"].as_str().unwrap_or("GET").parse().unwrap();
        let path = request["path"].as_str().unwrap();
        if path == "/nope" {
            continue; // unknown paths belong to the application
        }
        let mut call = bench.client.request(method, bench.url(path));
        for (header, value) in request["headers"].as_object().into_iter().flatten() {
            call = call.header(header, value.as_str().unwrap().replace("<jwt>", &token_of(name)));
        }
        match request["body"].as_str() {
            Some("<JSON of 1.1 MB>") => call = call.body(json!({ "x": "x".repeat(1_100_000) }).to_string()),
            Some(body) => call = call.body(body.to_owned()),
            None => {}
        }
        let answer = call.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        if name == "preflight" {
            assert!(answer.status().is_success());
            for header in ["allow-origin", "max-age"] {
                let header = format!("access-control-{header}");
                assert_eq!(headers[&header], expected["headers"][&header].as_str().unwrap());
            }
            for (header, values) in [
                ("access-control-allow-methods", ["GET", "HEAD", "POST"].as_slice()),
                (
                    "access-control-allow-headers",
                    ["content-type", "authorization", "user-agent", "x-user-agent"].as_slice(),
                ),
            ] {
                let allowed = headers[header].to_str().unwrap();
                assert!(values.iter().all(|value| allowed.contains(value)), "{header}: {allowed}");
            }
            compared += 1;
            continue;
        }
        assert_eq!(status, expected["status"], "{name}: {:?}", answer.text().await);
        assert_eq!(headers["access-control-allow-origin"], "*", "{name}");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.eq_ignore_ascii_case("content-type"), "{name}");
        let media_type = |value: &str| value.split(';').next().unwrap().trim().to_owned();
        let content_type = headers["content-type"].to_str().unwrap();
        assert_eq!(
            media_type(content_type),
            media_type(expected["headers"]["content-type"].as_str().unwrap()),
            "{name}"
        );
        if content_type == "application/x-ndjson" {
            assert_eq!(headers["x-accel-buffering"], "no");
        } else {
            let body: Value = tokio::time::timeout(LIMIT, answer.json()).await.unwrap().unwrap();
            let error = &expected["json"]["error"];
            if error.is_object() {
                assert_eq!(body["error"]["code"], error["code"], "{name}: {body}");
                assert_eq!(body["error"]["status"], error["status"], "{name}");
                assert!(body["error"]["description"].is_string(), "{name}");
            } else if path.starts_with("/sync/checkpoint-request") {
                assert_eq!(body, expected["json"], "{name}");
            } else if path.starts_with("/write-checkpoint2.json") {
                // Ours begin at the time of day, so that they rise even over a new store.
                let number: i64 = body["data"]["write_checkpoint"].as_str().unwrap().parse().unwrap();
                assert!(number > 1_000_000_000_000, "{name}: {body}");
            } else {
                for field in expected["json"].as_object().unwrap().keys() {
                    assert!(body.get(field).is_some(), "{name}: {body} lacks {field}");
                }
            }
        }
        compared += 1;
    }
    assert!(compared >= 40, "only {compared} cases were compared");
}

#[tokio::test]
async fn write_checkpoints_rise() {
    let bench = Bench::start().await;
    let mut last = 0;
    for _ in 0..3 {
        let authorization = format!("Bearer {}", token_of(""));
        let call =
            bench.client.get(bench.url("/write-checkpoint2.json?client_id=c")).header("authorization", authorization);
        let body: Value = call.send().await.unwrap().json().await.unwrap();
        let number: i64 = body["data"]["write_checkpoint"].as_str().unwrap().parse().unwrap();
        assert!(number > last);
        last = number;
    }
}
