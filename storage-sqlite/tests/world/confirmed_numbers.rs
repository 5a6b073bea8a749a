//! Write checkpoints that the source confirmed, through crashes amid commits: they are written to one file and then to another.

use std::collections::BTreeMap;

use futures::executor::block_on;
use syncline_core::{
    AppendBatch, BucketStore, Bytes, ClientKey, Commit, Deploy, OpId, SourcePosition, WriteCheckpoint,
    WriteCheckpointRequest,
};
use syncline_storage_sqlite::SqliteBucketStore;

use crate::disk_file::DiskFile;

/// The store's two files.
struct Files {
    file: DiskFile,
    requests: DiskFile,
}

impl Files {
    fn open(&mut self) -> SqliteBucketStore {
        let store = block_on(SqliteBucketStore::open(self.file.path())).unwrap();
        self.file.opened();
        self.requests.opened();
        store
    }
}

#[test]
fn a_confirmed_number_is_as_durable_as_the_commit_that_brought_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, requests) = (folder.path().join("store.db"), folder.path().join("store.db-write-checkpoints"));
    let mut files = Files { file: DiskFile::new(file), requests: DiskFile::new(requests) };
    let mut store = files.open();
    let deploy = Deploy { text: "config".into(), forms: vec!["form".into()] };
    block_on(store.commit(Commit { deploy: Some(deploy), publish: true, ..Commit::default() })).unwrap();
    let clients: Vec<ClientKey> = (0..6).map(|number| ClientKey(format!("1:u/{number}").into())).collect();
    let mut chance = 1_u64;
    let mut draw = |limit: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % limit
    };
    // What each commit leaves, by its position.
    let mut left = vec![BTreeMap::<ClientKey, WriteCheckpoint>::new()];
    let (mut lost, mut kept) = (0, 0);
    while lost < 40 || kept < 40 {
        let mut numbers = left[left.len() - 1].clone();
        let mut batch = AppendBatch::default();
        for client in &clients {
            if draw(3) == 0 {
                // Smaller ones come too, as when changes are sent again.
                let number = WriteCheckpoint(draw(5).cast_signed() + left.len().cast_signed() as i64);
                batch.write_checkpoints.insert(client.clone(), number);
                let largest = numbers.entry(client.clone()).or_insert(number);
                *largest = number.max(*largest);
            }
        }
        if draw(4) == 0 {
            let asked = WriteCheckpointRequest::AtLeast(WriteCheckpoint(left.len().cast_signed() as i64));
            block_on(store.request_write_checkpoint(&clients[draw(6) as usize], asked)).unwrap();
        }
        let position = SourcePosition(Bytes::copy_from_slice(&left.len().to_be_bytes()));
        let commit = Commit { position: Some(position), publish: true, ..Commit::default() };
        left.push(numbers);
        block_on(store.append(batch)).unwrap();
        if draw(3) > 0 {
            block_on(store.commit(commit)).unwrap();
        } else {
            files.file.brace();
            files.requests.brace();
            drop(block_on(store.commit(commit)));
            drop(store);
            let (loses, torn) = (draw(3), draw(1 << 30));
            files.file.crash(loses == 0, torn);
            files.requests.crash(loses <= 1, torn / 7);
            store = files.open();
        }
        let resume = block_on(store.resume()).unwrap();
        let position = usize::from_be_bytes(resume.position.map_or([0; 8], |at| at.0[..].try_into().unwrap()));
        match left.len() - 1 - position {
            0 => kept += 1,
            1 => lost += 1,
            more => panic!("{more} commits are gone"),
        }
        left.truncate(position + 1);
        let at = resume.checkpoint.map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
        let shown = block_on(store.write_checkpoints(at, &clients)).unwrap();
        let expected: Vec<_> = clients.iter().map(|client| left[position].get(client).copied()).collect();
        assert_eq!(shown, expected, "after {position} commits");
    }
}
