//! What may come between the lines of a download.

use std::time::Duration;

use syncline_core::protocol::SyncRequest;
use syncline_core::{Clock, Identity, WallTime};

use crate::bench::{Bench, kind};

#[test]
fn an_urgent_row_does_not_wait_for_the_end_of_a_long_download() {
    let mut bench = Bench::new();
    bench.put("bulk", 20_000, 200);
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    let mut lines = Vec::new();
    while lines.len() < 4 {
        lines.extend(client.piece().unwrap().unwrap());
    }
    let newest = bench.put("urgent", 1, 10);
    let before = lines.len();
    lines.extend(client.lines());
    let kinds: Vec<_> = lines.iter().map(kind).collect();
    let urgent = kinds.iter().position(|kind| kind == "urgent 1").unwrap();
    assert!(urgent < before + 5, "{kinds:?}");
    assert_eq!(kinds[urgent + 1], "partial_checkpoint_complete");
    let completes: Vec<_> = lines.iter().filter_map(|line| line.get("checkpoint_complete")).collect();
    assert_eq!(completes.len(), 1);
    assert_eq!(completes[0]["last_op_id"], newest.0.to_string());
    let bulk: u64 = kinds.iter().filter_map(|kind| kind.strip_prefix("bulk ")?.parse::<u64>().ok()).sum();
    assert_eq!(bulk, 20_000, "nothing is sent twice");
}

#[test]
fn closing_ends_a_stream_in_the_middle_of_a_download() {
    let mut bench = Bench::new();
    bench.put("bulk", 20_000, 200);
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    client.piece().unwrap().unwrap();
    futures::executor::block_on(bench.service.close());
    assert!(client.lines().is_empty());
}

#[test]
fn another_config_ends_a_stream_in_the_middle_of_a_download() {
    let mut bench = Bench::new();
    bench.put("bulk", 20_000, 200);
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    while !client.piece().unwrap().unwrap().iter().any(|line| kind(line) == "bulk 1000") {}
    bench.deploy(&crate::bench::CONFIG.replace("bulk: {", "much: {"));
    let after: Vec<_> = client.lines().iter().map(kind).collect();
    assert!(after.len() <= 1, "{after:?}");
}

#[test]
fn a_token_that_expires_during_a_download_ends_it() {
    let mut bench = Bench::new();
    bench.put("bulk", 20_000, 200);
    let expiry = WallTime(bench.clock.wall().0 + 60_000);
    let mut client = bench.open(Identity::new("anna").expires_at(expiry), SyncRequest::default());
    client.piece().unwrap().unwrap();
    // The client takes its time.
    bench.clock.advance(Duration::from_secs(45));
    while !client.piece().unwrap().unwrap().iter().any(|line| kind(line) == "token 15") {}
    bench.clock.advance(Duration::from_secs(15));
    let rest: Vec<_> = client.lines().iter().map(kind).collect();
    assert_eq!(rest, ["token 0"]);
}
