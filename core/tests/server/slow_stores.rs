//! Streams over a store that takes its time.

use std::time::Duration;

use syncline_core::protocol::SyncRequest;
use syncline_core::{Clock, Identity, WallTime};

use crate::bench::{Bench, kind};
use crate::slow_store::{SlowStore, Troubles};

fn bench() -> (Bench, Troubles) {
    let troubles = Troubles::default();
    let bench = Bench::with(|inner| SlowStore { inner, troubles: troubles.clone() });
    (bench, troubles)
}

#[test]
fn a_slow_read_holds_up_neither_signs_of_life_nor_the_end_of_the_token() {
    let (mut bench, troubles) = bench();
    bench.put("bulk", 10, 10);
    let expiry = WallTime(bench.clock.wall().0 + 90_000);
    let mut client = bench.open(Identity::new("anna").expires_at(expiry), SyncRequest::default());
    let held = troubles.hold_reads();
    assert!(client.piece().is_none(), "the first line goes with what is read soon");
    let mut lines = Vec::new();
    for _ in 0..9 {
        bench.clock.advance(Duration::from_secs(10));
        lines.extend(client.lines());
    }
    let kinds: Vec<_> = lines.iter().map(kind).collect();
    assert_eq!(kinds, ["checkpoint", "token 70", "token 50", "token 30", "token 10", "token 0"]);
    drop(held);
}

#[test]
fn a_slow_read_goes_on_where_it_was() {
    let (mut bench, troubles) = bench();
    bench.put("bulk", 10, 10);
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    let held = troubles.hold_reads();
    assert!(client.piece().is_none());
    bench.clock.advance(Duration::from_secs(20));
    assert_eq!(client.lines().iter().map(kind).collect::<Vec<_>>(), ["checkpoint", "token 3600"]);
    drop(held);
    assert_eq!(client.lines().iter().map(kind).collect::<Vec<_>>(), ["bulk 10", "checkpoint_complete"]);
}
