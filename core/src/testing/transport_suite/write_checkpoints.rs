//! What is owed of write checkpoints.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};

use super::listener::*;
use super::stage::*;
use super::wire::Wire;
use crate::bucket_store::BucketStore;
use crate::protocol::{ClientLine, SyncRequest};
use crate::transport::Transport;
use crate::write_checkpoint::WriteCheckpoint;

/// The numbers of a client rise, and come back in its stream, and in no other, once their markers have come back.
pub async fn write_checkpoints_rise_and_come_back(wire: Arc<dyn Wire>) {
    let stage = Stage::new(&*wire).await;
    stage.note("anna", "n1", "x").await;
    // An id is any text.
    let (one, two) = ("first device", "a/b ü&?=%");
    let request = |client: &str| SyncRequest { client_id: Some(client.to_owned()), ..request() };
    let credentials = token("anna");
    let mut listeners = Vec::new();
    for client in [one, two] {
        let deadline = stage.deadline();
        let mut listener = Listener::open(&*stage.transport, &request(client), &credentials, deadline).await;
        assert_eq!(carried(&listener.checkpoint(deadline).await), None);
        listeners.push(listener);
    }
    let mut markers = stage.store.pending_markers();
    let mut last = WriteCheckpoint(0);
    for _ in 0..3 {
        let mut asked = Vec::new();
        for client in [one, two, one] {
            let ask = stage.transport.write_checkpoint(client, &credentials);
            asked.push(ok(stage.deadline().wait("a write checkpoint is answered", ask).await));
        }
        assert!(last < asked[0] && asked[0] < asked[2], "numbers rise: after {last} came {asked:?}");
        // The same client over another way.
        last = ok(stage.here.write_checkpoint(one, &credentials).await);
        assert!(asked[2] < last, "the number after {} is {last}: it was another client's", asked[2]);
        let mut tokens = Vec::new();
        while let Some(Some(token)) = markers.next().now_or_never() {
            tokens.push(ok(token));
        }
        stage.come_back(tokens).await;
        for (listener, wanted) in listeners.iter_mut().zip([last, asked[1]]) {
            let deadline = stage.deadline();
            let mut seen = None;
            while seen < Some(wanted) {
                let line = listener.line(deadline).await;
                let line = line.unwrap_or_else(|| panic!("the stream ended without write checkpoint {wanted}"));
                seen = carried(&[line]).or(seen);
            }
            assert_eq!(seen, Some(wanted), "each client gets its own number");
        }
    }
}

/// The write checkpoint that the last line carries which may carry one.
fn carried(lines: &[ClientLine]) -> Option<WriteCheckpoint> {
    let numbers = lines.iter().filter_map(|line| match line {
        ClientLine::Checkpoint(line) => Some(line.write_checkpoint),
        ClientLine::CheckpointDiff(line) => Some(line.write_checkpoint),
        _ => None,
    });
    numbers.last().flatten()
}
