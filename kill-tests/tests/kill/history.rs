//! The operations that a user was ever shown: what was published once stays as it is, whoever is killed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::StreamExt;
use kill_tests::token;
use syncline_core::protocol::{BucketDescription, ClientLine, DataLine, LineDecoder, RequestedStreams, SyncRequest};
use syncline_core::{ByteString, Checksum, Credentials, OpId, Operation, Transport};
use syncline_transport_http::HttpTransport;

use crate::patience::DEADLINE;

/// One download from scratch, by bucket: the checkpoint and all operations up to it.
#[derive(Debug, Default)]
struct Download {
    last_op_id: OpId,
    described: HashMap<ByteString, BucketDescription>,
    operations: BTreeMap<OpId, (ByteString, Operation)>,
}

/// What a user was shown last.
#[derive(Debug)]
pub(crate) struct History {
    user: &'static str,
    last: Option<Download>,
}

impl History {
    pub(crate) fn new(user: &'static str) -> Self {
        Self { user, last: None }
    }

    /// Downloads everything, verifies it, and compares it with what was shown before: the store is the same one, and no
    /// operation at or below the checkpoint of then was added, changed or taken away (S1).
    pub(crate) async fn check(&mut self, endpoint: &str) {
        let download = tokio::time::timeout(DEADLINE, Download::make(endpoint, self.user)).await;
        let now = download.unwrap_or_else(|_| panic!("a download by {} does not end", self.user));
        now.verify();
        if let Some(then) = &self.last {
            assert!(now.last_op_id >= then.last_op_id, "checkpoints fell: {} {}", then.last_op_id, now.last_op_id);
            let shared: BTreeSet<&ByteString> =
                then.described.keys().filter(|bucket| now.described.contains_key(*bucket)).collect();
            assert!(!shared.is_empty(), "another store: {:?}, then {:?}", then.described, now.described);
            let operations = |download: &Download| -> Vec<(ByteString, Operation)> {
                let upto = download.operations.range(..=then.last_op_id);
                upto.map(|(_, one)| one.clone()).filter(|(bucket, _)| shared.contains(bucket)).collect()
            };
            let (before, after) = (operations(then), operations(&now));
            let differs = before.iter().zip(&after).find(|(before, after)| before != after);
            assert!(differs.is_none(), "an operation changed: {differs:?}");
            assert_eq!(before.len(), after.len(), "operations came or went below {}", then.last_op_id);
        }
        self.last = Some(now);
    }
}

impl Download {
    async fn make(endpoint: &str, user: &str) -> Self {
        let request = SyncRequest {
            include_checksum: true,
            raw_data: true,
            streams: Some(RequestedStreams { include_defaults: true, subscriptions: Vec::new() }),
            ..SyncRequest::default()
        };
        let transport = HttpTransport::new(endpoint).unwrap();
        let mut stream = transport.open(&request, &Credentials::new(token(user).unwrap())).await.unwrap();
        let mut decoder = LineDecoder::new(stream.framing, 64 << 20);
        let mut download = Self::default();
        loop {
            let bytes = stream.bytes.next().await.expect("the stream ended before a checkpoint").unwrap();
            decoder.push(bytes);
            while let Some(line) = decoder.next().unwrap() {
                if let ClientLine::CheckpointComplete { last_op_id } = line {
                    assert_eq!(last_op_id, download.last_op_id);
                    return download;
                }
                download.take(line);
            }
        }
    }

    fn take(&mut self, line: ClientLine) {
        match line {
            ClientLine::Checkpoint(line) => {
                self.last_op_id = line.last_op_id;
                self.described = line.buckets.into_iter().map(|bucket| (bucket.bucket.clone(), bucket)).collect();
            }
            ClientLine::CheckpointDiff(line) => {
                self.last_op_id = line.last_op_id;
                line.removed_buckets.iter().for_each(|bucket| drop(self.described.remove(bucket)));
                self.described.extend(line.updated_buckets.into_iter().map(|bucket| (bucket.bucket.clone(), bucket)));
            }
            ClientLine::Data(DataLine { bucket, operations, .. }) => {
                for operation in operations {
                    let before = self.operations.insert(operation.op_id, (bucket.clone(), operation));
                    assert!(before.is_none(), "an id was given to two operations, one of them {before:?}");
                }
            }
            _ => {}
        }
    }

    fn verify(&self) {
        let mut sums: HashMap<&ByteString, Checksum> = HashMap::new();
        for (bucket, operation) in self.operations.values() {
            assert!(operation.op_id <= self.last_op_id, "above the checkpoint: {operation:?}");
            *sums.entry(bucket).or_default() += operation.checksum;
        }
        for (name, bucket) in &self.described {
            assert_eq!(sums.get(name).copied().unwrap_or_default(), bucket.checksum, "the checksum of {name}");
        }
    }
}
