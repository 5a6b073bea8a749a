//! What is owed to lookups.

use std::sync::Arc;

use super::support::*;
use crate::bucket_store::{AppendBatch, BucketStore, Commit, CompactLimits, LookupEntry};
use crate::checkpoint::LookupKey;
use crate::lookup_change::LookupChange;
use crate::operation::OpId;
use crate::table::TableId;

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

/// What a key yields at `at`, by what it yielded at `since` and what the store says has changed.
async fn followed(store: &dyn BucketStore, since: OpId, before: &[String], at: OpId, key: &LookupKey) -> Vec<String> {
    let mut answers = ok(within(store.lookup_changes(since, at, std::slice::from_ref(key))).await);
    assert_eq!(answers.len(), 1, "one answer per key");
    let mut rows = before.to_vec();
    match answers.remove(0) {
        LookupChange::Whole(all) => rows = all.rows.iter().map(ToString::to_string).collect(),
        LookupChange::Difference(difference) => {
            for gone in &difference.gone {
                let place = rows.iter().position(|row| row.as_str() == &**gone);
                rows.swap_remove(place.unwrap_or_else(|| panic!("{gone} has gone, which was not there")));
            }
            rows.extend(difference.come.iter().map(ToString::to_string));
        }
    }
    rows.sort();
    rows
}

/// What changed of a key between any two checkpoints leads from what it yielded to what it yields: through rows that change
/// back, share an output or are truncated, and commits that were not published.
pub async fn changes_of_a_lookup_lead_from_checkpoint_to_checkpoint(store: Arc<dyn BucketStore>) {
    let (index, _) = deployed(&store).await;
    let (key, other) = (lookup_key(index, "[1]"), lookup_key(index, "[2]"));
    let [one, two, three] = [row_key(1, "a"), row_key(1, "b"), row_key(2, "a")];
    let with_rows = |entries: Vec<LookupEntry>| {
        let rows =
            entries.iter().map(|entry| (entry.row.clone(), Some(row("", &[], std::slice::from_ref(&entry.key)))));
        AppendBatch { rows: rows.collect(), ..lookups(entries) }
    };
    let mut known = Vec::new();
    let steps = [
        with_rows(vec![lookup_entry(&one, &key, &["[1]", "[1]"]), lookup_entry(&two, &key, &["[1]"])]),
        with_rows(vec![lookup_entry(&three, &key, &["[2]"]), lookup_entry(&one, &key, &["[1]", "[3]"])]),
        with_rows(vec![lookup_entry(&two, &other, &["[1]"])]),
        with_rows(vec![lookup_entry(&one, &key, &["[1]", "[1]"]), lookup_entry(&two, &key, &[])]),
        AppendBatch { truncate: vec![TableId(2)], ..AppendBatch::default() },
        with_rows(vec![lookup_entry(&three, &key, &["[2]"]), lookup_entry(&two, &key, &["[4]"])]),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        ok(store.append(step).await);
        if number == 3 {
            assert_eq!(ok(store.commit(Commit::default()).await), None);
            continue;
        }
        let at = checkpoint(&store, publishing()).await.op_id;
        known.push((at, found(&store, at, &key).await));
    }
    assert_eq!(known.last().map(|(_, rows)| rows.join(" ")).as_deref(), Some("[1] [1] [2] [4]"));
    for (number, (since, before)) in known.iter().enumerate() {
        for (at, rows) in &known[number..] {
            assert_eq!(followed(&store, *since, before, *at, &key).await, *rows, "from {since} to {at}");
        }
    }
}

/// The same across a compaction that has dropped what the key yielded before.
pub async fn changes_of_a_lookup_are_right_or_whole_after_compaction(store: Arc<dyn BucketStore>) {
    let (index, _) = deployed(&store).await;
    let key = lookup_key(index, "[1]");
    let (changing, lasting) = (row_key(1, "a"), row_key(1, "b"));
    let entries = vec![lookup_entry(&changing, &key, &["[1]"]), lookup_entry(&lasting, &key, &["[0]"])];
    let first = published(&store, lookups(entries)).await.op_id;
    let before = found(&store, first, &key).await;
    let second = published(&store, lookups(vec![lookup_entry(&changing, &key, &["[2]"])])).await.op_id;
    let third = published(&store, lookups(vec![lookup_entry(&changing, &key, &[])])).await.op_id;
    let between = found(&store, second, &key).await;
    ok(store.compact(CompactLimits { max_operations: u64::MAX }).await);
    assert_eq!(followed(&store, first, &before, third, &key).await, ["[0]"]);
    assert_eq!(followed(&store, second, &between, third, &key).await, ["[0]"]);
    let last = published(&store, lookups(vec![lookup_entry(&changing, &key, &["[5]"])])).await.op_id;
    assert_eq!(followed(&store, second, &between, last, &key).await, ["[0]", "[5]"]);
    assert_eq!(followed(&store, third, &["[0]".to_owned()], last, &key).await, ["[0]", "[5]"]);
}
