//! What is owed to lookups.

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, LookupEntry};
use crate::checkpoint::LookupKey;
use crate::operation::OpId;

fn lookups(entries: Vec<LookupEntry>) -> AppendBatch {
    AppendBatch { lookups: entries, ..AppendBatch::default() }
}

async fn found(store: &dyn BucketStore, at: OpId, key: &LookupKey) -> Vec<String> {
    let mut answers = ok(within(store.lookup(at, std::slice::from_ref(key))).await);
    assert_eq!(answers.len(), 1, "one answer per key");
    let mut rows: Vec<String> = answers.remove(0).rows.iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

/// An entry is replaced or removed from a commit on; older checkpoints still see what they saw.
pub async fn lookups_are_known_at_older_checkpoints(store: Arc<dyn BucketStore>) {
    let (index, other) = deployed(&store).await;
    let key = lookup_key(index, "[\"u1\"]");
    let row = row_key(1, "m1");
    let states: [&[&str]; 5] = [&["[1]"], &["[2]", "[3]"], &[], &["[4]"], &["[\"ü\"]"]];
    let mut wanted = Vec::new();
    for outputs in states {
        let at = published(&store, lookups(vec![lookup_entry(&row, &key, outputs)])).await;
        wanted.push((at.op_id, outputs));
    }
    for (at, outputs) in wanted {
        assert_eq!(found(&store, at, &key).await, outputs, "at {at}");
        assert!(found(&store, at, &lookup_key(other, "[\"u1\"]")).await.is_empty(), "another index");
        assert!(found(&store, at, &lookup_key(index, "[\"U1\"]")).await.is_empty(), "other values");
    }
}

/// Several rows may yield the same key; each has its own entry. Of several changes in one commit the last counts.
pub async fn a_lookup_entry_belongs_to_its_row(store: Arc<dyn BucketStore>) {
    let (index, _) = deployed(&store).await;
    let (key, second) = (lookup_key(index, "[1]"), lookup_key(index, "[2]"));
    let rows = [row_key(1, "a"), row_key(1, "b"), row_key(2, "a")];
    let batch = rows.iter().zip(["[1]", "[2]", "[2]"]).map(|(row, output)| lookup_entry(row, &key, &[output]));
    let first = published(&store, lookups(batch.collect())).await;
    assert_eq!(found(&store, first.op_id, &key).await, ["[1]", "[2]", "[2]"]);
    ok(store.append(lookups(vec![lookup_entry(&rows[1], &key, &["[9]"])])).await);
    let batch = vec![
        lookup_entry(&rows[1], &key, &[]),
        lookup_entry(&rows[0], &key, &["[5]"]),
        lookup_entry(&rows[0], &second, &["[6]"]),
    ];
    let last = published(&store, lookups(batch)).await;
    assert_eq!(found(&store, last.op_id, &key).await, ["[2]", "[5]"]);
    assert_eq!(found(&store, first.op_id, &key).await, ["[1]", "[2]", "[2]"]);
    let both = ok(store.lookup(last.op_id, &[second, lookup_key(index, "[3]"), key]).await);
    assert_eq!(both.iter().map(|answer| answer.rows.len()).collect::<Vec<_>>(), [1, 0, 2]);
}
