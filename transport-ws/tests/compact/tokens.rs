//! Several tokens on one connection: each call is served for its own, and for no other.

use std::time::Duration;

use syncline_transport_ws::WebSocketLimits;
use syncline_transport_ws::compact::{ClientFrame, ServerFrame};

use crate::bench::{Bench, open, short_lived};

#[tokio::test]
async fn a_swapped_token_shows_nothing_of_another_user_and_fails_its_stream_alone() {
    let mut bench = Bench::start(WebSocketLimits::default()).await;
    let mut bystander = bench.streaming("anna").await;
    let mut client = bench.streaming("anna").await;
    client.say(&open(2, "good.ben", u64::MAX)).await;
    assert_eq!(client.note(2, "b1").await, ["b1"]);
    // Another stream of the same connection stays what it is.
    for token in ["good.ben", "forged"] {
        let call = if token == "forged" { 2 } else { 1 };
        client.say(&ClientFrame::Token { call, token: token.to_owned() }).await;
        client.expect_failure(call, "PSYNC_S2101").await;
        bench.streams_are(if token == "forged" { 1 } else { 2 }).await;
        if token == "good.ben" {
            let id = bench.change("ben");
            assert_eq!(client.note(2, &id).await, [id]);
        }
    }
    client.say(&open(3, "good.anna", u64::MAX)).await;
    client.note(3, "a1").await;
    bench.is_unharmed(&mut bystander).await;
}

#[tokio::test]
async fn a_stream_goes_on_under_a_new_token() {
    let mut bench = Bench::start(WebSocketLimits::default()).await;
    let mut client = bench.client().await;
    let token = short_lived("anna", Duration::from_secs(3));
    for call in [1, 2] {
        client.say(&open(call, &token, u64::MAX)).await;
        client.note(call, "a1").await;
    }
    client.say(&ClientFrame::Token { call: 1, token: short_lived("anna", Duration::from_secs(100)) }).await;
    while client.hear().await.unwrap() != (ServerFrame::Renewed { call: 1 }) {}
    assert_eq!(client.end(2).await, ServerFrame::Ended { call: 2 });
    let id = bench.change("anna");
    client.note(1, &id).await;
    bench.streams_are(1).await;
}
