//! Recorded conversations of the official client core: the same lines, the same rows.

use std::sync::Arc;

use futures::executor::block_on;
use serde_json::Value as Json;
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, Checksum, ClientStore, OpId, Operation, OperationKind, PublishRequest, TargetBucket,
    TargetCheckpoint, UploadSequence, Uploaded, WallTime, WriteCheckpoint,
};
use syncline_storage_sqlite::{Database, Schema, Table};

use crate::feed::rows;

fn text<'j>(json: &'j Json, key: &str) -> Option<&'j str> {
    json.get(key).and_then(Json::as_str)
}

fn op(json: &Json, key: &str) -> OpId {
    OpId::parse(text(json, key).unwrap()).unwrap()
}

fn checksum(json: &Json) -> Checksum {
    let number = &json["checksum"];
    Checksum::from_wire(number.as_i64().unwrap_or_else(|| number.as_f64().unwrap() as i64))
}

/// A client that follows the lines as a driver does, without a network.
struct Client {
    db: Database,
    target: TargetCheckpoint,
    held: bool,
}

impl Client {
    fn open() -> Self {
        let schema = Schema::new().table(Table::new("lists").text("title")).table(Table::new("notes").text("body"));
        let db = block_on(Database::open_in_memory(schema).into_future()).unwrap();
        Self { db, target: TargetCheckpoint::default(), held: false }
    }

    fn add_buckets(&mut self, buckets: &Json) {
        for bucket in buckets.as_array().unwrap() {
            let target = TargetBucket {
                checksum: checksum(bucket),
                priority: BucketPriority(bucket["priority"].as_u64().unwrap_or(3) as u8),
                count: bucket["count"].as_u64(),
                subscriptions: Vec::new(),
            };
            self.target.buckets.insert(text(bucket, "bucket").unwrap().into(), target);
        }
    }

    fn publish(&mut self, partial: Option<u8>) {
        let request = PublishRequest {
            target: Arc::new(self.target.clone()),
            partial: partial.map(BucketPriority),
            requested: Arc::from([]),
            now: WallTime(1),
        };
        let outcome = block_on(self.db.publish(&request)).unwrap();
        self.held = outcome == syncline_core::PublishOutcome::Held;
    }

    fn line(&mut self, line: &Json) {
        let (kind, body) = line.as_object().unwrap().iter().next().unwrap();
        let number = |json: &Json| text(json, "write_checkpoint").map(|n| WriteCheckpoint(n.parse().unwrap()));
        match kind.as_str() {
            "checkpoint" => {
                self.target = TargetCheckpoint { last_op_id: op(body, "last_op_id"), ..Default::default() };
                self.target.write_checkpoint = number(body);
                self.add_buckets(&body["buckets"]);
                block_on(self.db.begin_checkpoint(&Arc::new(self.target.clone()))).unwrap();
            }
            "checkpoint_diff" => {
                self.target.last_op_id = op(body, "last_op_id");
                self.target.write_checkpoint = number(body);
                for removed in body["removed_buckets"].as_array().unwrap() {
                    self.target.buckets.remove(removed.as_str().unwrap());
                }
                self.add_buckets(&body["updated_buckets"]);
                block_on(self.db.begin_checkpoint(&Arc::new(self.target.clone()))).unwrap();
            }
            "data" => {
                let operations = body["data"].as_array().unwrap().iter().map(|json| Operation {
                    op_id: op(json, "op_id"),
                    kind: OperationKind::from_name(text(json, "op").unwrap()).unwrap(),
                    object_type: text(json, "object_type").unwrap_or_default().into(),
                    object_id: text(json, "object_id").unwrap_or_default().into(),
                    subkey: text(json, "subkey").map(Into::into),
                    data: text(json, "data").map(Into::into),
                    checksum: checksum(json),
                });
                let bucket = text(body, "bucket").unwrap().into();
                let line = DataLine { bucket, operations: operations.collect(), size: 0 };
                block_on(self.db.stage(&[line])).unwrap();
            }
            "checkpoint_complete" => self.publish(None),
            "partial_checkpoint_complete" => self.publish(Some(body["priority"].as_u64().unwrap() as u8)),
            _ => {}
        }
    }

    /// What the application's side did. The recorded client deletes the queue by hand; ours uploads it.
    fn app(&mut self, step: &Json) {
        if text(step, "sql") == Some("delete from ps_crud") {
            while let Some(transaction) = block_on(self.db.next_upload()).unwrap() {
                block_on(self.db.finish_upload(&transaction, &Uploaded::Applied)).unwrap();
            }
        } else if let Some(sql) = text(step, "sql") {
            let sql = sql.to_owned();
            block_on(self.db.write(move |tx| Ok(tx.execute(&sql, [])?))).unwrap();
        } else if let (Some("target_checkpoint_request_id"), Some(number)) =
            (text(step, "control"), text(step, "payload"))
        {
            let UploadSequence(upto) = block_on(self.db.upload_state()).unwrap().uncovered.unwrap();
            block_on(self.db.cover(UploadSequence(upto), WriteCheckpoint(number.parse().unwrap()))).unwrap();
        } else if text(step, "control") == Some("completed_upload") && self.held {
            self.publish(None);
        }
    }

    fn compare(&self, expected: &Json, scenario: &str, step: &str) {
        for table in ["lists", "notes"] {
            let seen = Json::Array(rows(&self.db, table));
            assert_eq!(seen, expected[table], "{scenario}, {step}: {table}");
        }
        let positions: Vec<(String, u64)> = block_on(self.db.resume(WallTime(0)))
            .unwrap()
            .buckets
            .into_iter()
            .map(|(name, OpId(op))| (name.to_string(), op))
            // A bucket that left and is still shown, which the recorded client does not name; at zero, as for it.
            .filter(|(_, op)| *op > 0)
            .collect();
        let mut recorded: Vec<(String, u64)> = expected["ps_buckets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bucket| (text(bucket, "name").unwrap().to_owned(), bucket["last_op"].as_u64().unwrap()))
            .filter(|(name, op)| *op > 0 && name != "$local")
            .collect();
        recorded.sort();
        // The recorded client keeps no position of a bucket that never held anything.
        let is_empty = |name: &str| self.target.buckets.get(name).is_some_and(|bucket| bucket.count == Some(0));
        let positions: Vec<_> = positions.into_iter().filter(|(name, _)| !is_empty(name)).collect();
        assert_eq!(positions, recorded, "{scenario}, {step}: positions");
    }
}

#[test]
fn the_same_lines_show_the_same_rows() {
    let recorded: Json = serde_json::from_str(include_str!("../data/client_core.json")).unwrap();
    let mut compared = 0;
    for scenario in recorded["scenarios"].as_array().unwrap() {
        let name = text(scenario, "name").unwrap();
        let steps = scenario["steps"].as_array().unwrap();
        // Lines that the official client refuses are a matter of decoding.
        if steps.iter().any(|step| step.get("error").is_some()) {
            continue;
        }
        let mut client = Client::open();
        for (number, step) in steps.iter().enumerate() {
            if let Some(line) = step.get("line") {
                client.line(line);
            } else if text(step, "control") == Some("line_text") {
                client.line(&serde_json::from_str(text(step, "payload").unwrap()).unwrap());
            } else {
                client.app(step);
            }
            if let Some(state) = step.get("state") {
                client.compare(state, name, &format!("step {number}"));
                compared += 1;
            }
        }
        if let Some(state) = scenario.get("final_state").filter(|state| state.get("lists").is_some()) {
            client.compare(state, name, "end");
            compared += 1;
        }
    }
    assert!(compared > 30, "only {compared} states were compared");
}
