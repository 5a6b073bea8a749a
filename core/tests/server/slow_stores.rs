//! Streams over a store that takes its time.

use std::time::Duration;

use syncline_core::protocol::SyncRequest;
use syncline_core::{
    AppendBatch, BucketId, Clock, ErrorKind, Identity, LookupEntry, LookupKey, NewOperation, OpId, RowKey, TableId,
    WallTime,
};

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

#[test]
fn a_checkpoint_that_was_compacted_away_gives_way_to_the_next() {
    let (mut bench, troubles) = bench();
    bench.put("bulk", 10, 10);
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    client.lines();
    let held = troubles.hold_sums();
    bench.put("bulk", 10, 10);
    assert!(client.piece().is_none());
    let newest = bench.put("urgent", 1, 10);
    troubles.forget_below(newest);
    drop(held);
    let lines = client.lines();
    let kinds: Vec<_> = lines.iter().map(kind).collect();
    assert_eq!(kinds, ["checkpoint_diff", "urgent 1", "partial_checkpoint_complete", "bulk 10", "checkpoint_complete"]);
    assert_eq!(lines[0]["checkpoint_diff"]["last_op_id"], newest.0.to_string());
}

#[test]
fn sums_that_cannot_be_had_at_all_end_the_stream() {
    let (mut bench, troubles) = bench();
    let newest = bench.put("bulk", 10, 10);
    troubles.forget_below(OpId(newest.0 + 1));
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    assert_eq!(client.piece().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn the_write_checkpoint_is_looked_up_only_when_it_may_have_risen() {
    let (mut bench, troubles) = bench();
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    client.lines();
    assert_eq!(troubles.write_checkpoints(), 1);
    bench.put("bulk", 1, 10);
    assert_eq!(
        client.lines().iter().map(kind).collect::<Vec<_>>(),
        ["checkpoint_diff", "bulk 1", "checkpoint_complete"]
    );
    assert_eq!(troubles.write_checkpoints(), 1);
}

#[test]
fn a_bucket_that_changes_while_it_is_being_found_is_sent_whole() {
    let (mut bench, troubles) = bench();
    bench.deploy(
        "
config: { edition: 3 }
streams:
  notes:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE list IN (SELECT list FROM members WHERE user_id = auth.user_id())
",
    );
    let definitions = bench.config().definitions;
    let (notes, members) = (definitions[0].id, definitions[1].id);
    let note = |id: &'static str| {
        let bucket = BucketId { definition: notes, parameters: r#"["shared"]"#.into() };
        let operations = vec![NewOperation::put(bucket, "notes".into(), id.into(), "".into(), "{}".into())];
        AppendBatch { operations, ..AppendBatch::default() }
    };
    let mut client = bench.open(Identity::new("anna"), SyncRequest::default());
    let mut other = bench.open(Identity::new("ben"), SyncRequest::default());
    client.lines();
    other.lines();
    let held = troubles.hold_lookups();
    let joined = LookupEntry {
        row: RowKey { table: TableId(1), key: "m1".into() },
        key: LookupKey { index: members, values: r#"["anna"]"#.into() },
        outputs: vec![r#"["shared"]"#.into()],
    };
    bench.commit(AppendBatch { lookups: vec![joined], ..note("n1") }, None);
    assert!(client.piece().is_none(), "the list is not known yet");
    // It concerns nobody by what was known of anyone so far; the other one takes it from the store for both.
    bench.commit(note("n2"), None);
    assert!(other.lines().is_empty());
    drop(held);
    let lines = client.lines();
    let data = lines.iter().map(kind).filter(|kind| kind.starts_with("notes"));
    assert_eq!(data.collect::<Vec<_>>(), ["notes 1", "notes 1"], "{lines:?}");
}
