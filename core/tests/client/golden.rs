//! Golden vectors: what the official client does with lines, done by a session over the store in memory.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use serde_json::{Map, Value as Json, json};
use syncline_core::client::{ClientCommand, ClientEvent, ClientOptions, StoreCommand, StoreReply};
use syncline_core::memory::MemoryClientStore;
use syncline_core::protocol::{ClientLine, Framing, LineDecoder, SyncRequest};
use syncline_core::{
    BucketPriority, ClientStore, Credentials, PublishOutcome, UploadState, Uploaded, WallTime, WriteCheckpoint,
};

use crate::talk::{Talk, data, state};

const CLIENT_ID: &str = "11111111-2222-4333-8444-555555555555";

/// What is not ours: the official client's way to number write checkpoints itself, and its refusal of data outside a string
/// and of escaped keys, both of which our decoder reads.
const OTHER: &[&str] = &["checkpoint_requests_mode", "error_object_data", "error_escaped_top_level_key"];

/// A session over a store in memory; calls of the network wait for the script.
struct Client {
    talk: Talk,
    store: MemoryClientStore,
    decoder: LineDecoder,
    request: Option<SyncRequest>,
    closed: bool,
    fetching: bool,
}

impl Client {
    fn start(store: MemoryClientStore, options: ClientOptions) -> Self {
        let decoder = LineDecoder::new(Framing::Ndjson, 1 << 20);
        let mut client =
            Self { talk: Talk::with(options), store, decoder, request: None, closed: false, fetching: false };
        client.tell(ClientEvent::Tick);
        client.tell(ClientEvent::Credentials(Ok(Credentials::new("t"))));
        client.fetching = false;
        client.tell(ClientEvent::Opened);
        client
    }

    fn tell(&mut self, event: ClientEvent) {
        self.talk.tell(event);
        // What waits for the script stays in the queue.
        let mut waiting = Vec::new();
        while let Some(command) = self.talk.commands.pop_front() {
            match command {
                ClientCommand::Store(command) => {
                    let reply = call(&self.store, command);
                    self.talk.reply(reply);
                }
                ClientCommand::FetchCredentials => self.fetching = true,
                ClientCommand::Open { request, .. } => self.request = Some(SyncRequest::clone(&request)),
                ClientCommand::CloseStream => self.closed = true,
                other => waiting.push(other),
            }
        }
        self.talk.commands.extend(waiting);
    }

    fn line(&mut self, text: String) {
        self.decoder.push(Bytes::from(text + "\n"));
        let event = match self.decoder.next() {
            Ok(line) => ClientEvent::Lines(vec![line.unwrap()]),
            Err(error) => ClientEvent::StreamEnded(Err(error)),
        };
        self.tell(event);
    }

    /// Answers the uploads that wait, until none does.
    fn upload_all(&mut self) {
        while let Some(at) = self.talk.commands.iter().position(|one| matches!(one, ClientCommand::Upload { .. })) {
            self.talk.commands.remove(at);
            self.tell(ClientEvent::Uploaded(Ok(Uploaded::Applied)));
        }
    }

    fn give_write_checkpoint(&mut self, number: i64) {
        let asked = |one: &ClientCommand| matches!(one, ClientCommand::RequestWriteCheckpoint { .. });
        let at = self.talk.commands.iter().position(asked).expect("a request for a write checkpoint");
        self.talk.commands.remove(at);
        self.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(number))));
    }
}

fn call(store: &MemoryClientStore, command: StoreCommand) -> StoreReply {
    let call = async {
        match command {
            StoreCommand::Resume { now } => StoreReply::Resumed(store.resume(now).await),
            StoreCommand::BeginCheckpoint(target) => StoreReply::Begun(store.begin_checkpoint(&target).await),
            StoreCommand::Stage(lines) => StoreReply::Staged(store.stage(&lines).await),
            StoreCommand::Publish(request) => StoreReply::Published(store.publish(&request).await),
            StoreCommand::LoadUpload => StoreReply::UploadLoaded(store.next_upload().await),
            StoreCommand::FinishUpload { transaction, outcome } => {
                StoreReply::UploadFinished(store.finish_upload(&transaction, &outcome).await)
            }
            StoreCommand::LoadUploadState => StoreReply::UploadStateLoaded(store.upload_state().await),
            StoreCommand::Cover { upto, checkpoint } => StoreReply::Covered(store.cover(upto, checkpoint).await),
            StoreCommand::SaveSubscription { stream, parameters, priority, expires_at } => {
                StoreReply::SubscriptionSaved(store.subscribe(&stream, &parameters, priority, expires_at).await)
            }
        }
    };
    call.now_or_never().expect("the store in memory never waits")
}

fn options(start: &Json) -> ClientOptions {
    let object = |name: &str| start.get(name).and_then(Json::as_object).cloned().unwrap_or_default();
    ClientOptions {
        parameters: object("parameters"),
        include_defaults: start.get("include_defaults").and_then(Json::as_bool).unwrap_or(true),
        app_metadata: object("app_metadata").into_iter().map(|(k, v)| (k, v.as_str().unwrap().to_owned())).collect(),
        ..ClientOptions::default()
    }
}

fn subscribe(store: &MemoryClientStore, payload: &str) {
    let payload: Json = serde_json::from_str(payload).unwrap();
    let wanted = &payload["subscribe"];
    let parameters = wanted["stream"]["params"].as_object().cloned().unwrap_or_default();
    let priority = wanted["priority"].as_u64().map(|priority| BucketPriority(u8::try_from(priority).unwrap()));
    let stream = wanted["stream"]["name"].as_str().unwrap();
    let stored = store.subscribe(stream, &parameters, priority, Some(WallTime(i64::MAX)));
    stored.now_or_never().unwrap().unwrap();
}

#[track_caller]
fn same_rows(store: &MemoryClientStore, state: &Json, place: &str) {
    for table in ["lists", "notes"] {
        let mut wanted: Vec<Map<String, Json>> = serde_json::from_value(state[table].clone()).unwrap();
        // The official client's tables show a column that was never written as null.
        wanted.iter_mut().for_each(|row| row.retain(|_, value| !value.is_null()));
        assert_eq!(store.rows(table), wanted, "{table} {place}");
    }
}

/// Requests name streams and buckets in an order of their own, and ours always has an object for parameters.
fn comparable(request: &Json) -> Json {
    let mut request = request.clone();
    if request["parameters"].is_null() {
        request["parameters"] = json!({});
    }
    for list in ["/buckets", "/streams/subscriptions"] {
        if let Some(list) = request.pointer_mut(list).and_then(Json::as_array_mut) {
            list.sort_by_key(Json::to_string);
        }
    }
    let members = request.as_object_mut().unwrap();
    members.entry("app_metadata").or_insert(json!({}));
    request
}

#[test]
fn a_session_does_what_the_official_client_does() {
    let text = include_str!("../data/vectors/client_core.json");
    let vectors: Json = serde_json::from_str(text).unwrap();
    let mut played = 0;
    for scenario in vectors["scenarios"].as_array().unwrap() {
        let name = scenario["name"].as_str().unwrap();
        if OTHER.contains(&name) {
            continue;
        }
        play(name, scenario);
        played += 1;
    }
    assert!(played >= 30, "{played} scenarios");
}

fn play(name: &str, scenario: &Json) {
    let store = MemoryClientStore::new(CLIENT_ID);
    let mut client: Option<Client> = None;
    for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let place = format!("in step {index} of {name}");
        let payload = step.get("payload").unwrap_or(&Json::Null);
        if let Some(client) = &mut client {
            client.closed = false;
        }
        match (step.get("control").and_then(Json::as_str), &mut client) {
            (Some("start"), _) => client = Some(Client::start(store.clone(), options(payload))),
            (Some("connection"), Some(_)) => {}
            (Some("stop"), _) => client = None,
            (Some("line_text"), Some(client)) => client.line(payload.as_str().unwrap().to_owned()),
            (Some("subscriptions"), _) => subscribe(&store, payload.as_str().unwrap()),
            (Some("target_checkpoint_request_id"), Some(client)) => {
                if let Some(number) = payload.as_str() {
                    client.give_write_checkpoint(number.parse().unwrap());
                }
            }
            // Ours notices by itself.
            (Some("completed_upload"), Some(_)) => {}
            (None, Some(client)) if step.get("sql").is_some() => match step["sql"].as_str().unwrap() {
                "insert into notes(id,body) values('n1','mine')" => {
                    store.put("notes", "n1", json!({"body": "mine"}).as_object().unwrap().clone());
                    client.tell(ClientEvent::UploadQueueChanged);
                }
                "delete from ps_crud" => client.upload_all(),
                other => panic!("{other} {place}"),
            },
            // Ours insists on the id, which every server sends.
            (None, Some(client)) => {
                let line = step["line"].to_string();
                client.line(line.replace(r#""checkpoint_complete":{}"#, r#""checkpoint_complete":{"last_op_id":"1"}"#));
            }
            (other, _) => panic!("{other:?} {place}"),
        }
        let instructions = step.get("instructions").and_then(Json::as_array).cloned().unwrap_or_default();
        let named = |name: &str| instructions.iter().find_map(|one| one.get(name)).cloned();
        if let Some(wanted) = named("EstablishSyncStream") {
            let asked = client.as_ref().and_then(|client| client.request.as_ref()).expect("a request");
            let asked = serde_json::to_value(asked).unwrap();
            assert_eq!(comparable(&asked), comparable(&wanted["request"]), "{place}");
        }
        if let Some(client) = &mut client {
            let closes = named("CloseSyncStream").is_some() || step.get("error").is_some();
            assert_eq!(client.closed, closes, "closing {place}");
            if named("FetchCredentials").is_some_and(|fetch| fetch["did_expire"] == json!(false)) {
                assert!(client.fetching, "fetching {place}");
            }
        }
        if let Some(state) = step.get("state") {
            same_rows(&store, state, &place);
        }
    }
    if let Some(state) = scenario.get("final_state") {
        same_rows(&store, state, &format!("in the end of {name}"));
    }
}

#[test]
fn a_stream_that_is_interrupted_by_a_newer_checkpoint_shows_what_is_whole() {
    // The old checkpoint is never completed.
    let mut client = Client::start(MemoryClientStore::new(CLIENT_ID), ClientOptions::default());
    client.line(json!({"checkpoint": {"last_op_id": "2", "buckets": [
        {"bucket": "a", "checksum": 1, "count": 1, "priority": 1}, {"bucket": "b", "checksum": 2, "count": 1, "priority": 3},
    ]}}).to_string());
    let put = |bucket: &str, id: u64| {
        json!({"data": {"bucket": bucket, "data": [
            {"op_id": id.to_string(), "op": "PUT", "object_type": "lists", "object_id": format!("l{id}"), "checksum": id,
             "data": "{\"title\":\"x\"}"},
        ]}})
        .to_string()
    };
    client.line(put("a", 1));
    client.line(json!({"partial_checkpoint_complete": {"last_op_id": "2", "priority": 1}}).to_string());
    assert_eq!(client.store.rows("lists").len(), 1, "the urgent bucket is shown before the rest");
    client.line(put("b", 2));
    client.line(
        json!({"checkpoint_diff": {"last_op_id": "3", "removed_buckets": [], "updated_buckets": [
        {"bucket": "a", "checksum": 4, "count": 2, "priority": 1}]}})
        .to_string(),
    );
    client.line(put("a", 3));
    client.line(json!({"partial_checkpoint_complete": {"last_op_id": "3", "priority": 1}}).to_string());
    assert_eq!(client.store.rows("lists").len(), 2);
    client.line(json!({"checkpoint_complete": {"last_op_id": "3"}}).to_string());
    assert_eq!(client.store.rows("lists").len(), 3);
    assert!(client.talk.status().last_synced_at.is_some());
}

/// The lines of a recorded run, with the seconds at which they came. Data lines were recorded as counts.
fn recorded(run: &str) -> Vec<(u64, ClientLine)> {
    let vectors: Json = serde_json::from_str(include_str!("../data/vectors/stream_timing.json")).unwrap();
    let lines = vectors["runs"][run]["lines"].as_array().unwrap();
    let lines = lines.iter().filter(|entry| entry.get("end").is_none());
    let decoded = lines.map(|entry| {
        let line = entry.get("line").unwrap_or(entry);
        let at = entry.get("at_s").and_then(Json::as_u64).unwrap_or(0);
        if let Some(recorded) = line.get("data") {
            let last: u64 = recorded["next_after"].as_str().unwrap().parse().unwrap();
            return (at, data(recorded["bucket"].as_str().unwrap(), last));
        }
        let mut decoder = LineDecoder::new(Framing::Ndjson, 1 << 20);
        decoder.push(Bytes::from(format!("{line}\n")));
        (at, decoder.next().unwrap().unwrap())
    });
    decoded.collect()
}

/// Tells a session the lines one by one; what it shows, by checkpoint and priority, and when it closed the stream.
fn follow(lines: Vec<(u64, ClientLine)>) -> (Vec<(u64, Option<u8>)>, Option<u64>) {
    let mut talk = Talk::new();
    talk.connect(state());
    let start = talk.now;
    let (mut shown, mut closed) = (Vec::new(), None);
    for (at, line) in lines {
        talk.pass((start + Duration::from_secs(at)).since(talk.now));
        talk.lines([line]);
        while let Some(command) = talk.commands.pop_front() {
            match command {
                ClientCommand::Store(StoreCommand::BeginCheckpoint(_)) => talk.reply(StoreReply::Begun(Ok(()))),
                ClientCommand::Store(StoreCommand::Stage(_)) => talk.reply(StoreReply::Staged(Ok(()))),
                ClientCommand::Store(StoreCommand::Publish(request)) => {
                    shown.push((request.target.last_op_id.0, request.partial.map(|priority| priority.0)));
                    talk.reply(StoreReply::Published(Ok(PublishOutcome::Published)));
                }
                ClientCommand::Store(StoreCommand::LoadUpload) => talk.reply(StoreReply::UploadLoaded(Ok(None))),
                ClientCommand::Store(StoreCommand::LoadUploadState) => {
                    talk.reply(StoreReply::UploadStateLoaded(Ok(UploadState::default())));
                }
                ClientCommand::FetchCredentials => {}
                ClientCommand::CloseStream => closed = Some(at),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    (shown, closed)
}

#[test]
fn recorded_streams_show_only_what_was_completed() {
    let (shown, closed) = follow(recorded("interruption"));
    assert_eq!(shown, [(1020, Some(1)), (1021, Some(1)), (1021, None)]);
    assert_eq!(closed, None);
    let (shown, _) = follow(recorded("compacted"));
    assert_eq!(shown, [(3, Some(1)), (3, None)]);
}

#[test]
fn a_recorded_stream_is_followed_until_its_token_expires() {
    let (shown, closed) = follow(recorded("token_expiry_http"));
    assert_eq!(shown, [(0, Some(1)), (0, None)]);
    assert_eq!(closed, Some(45));
}
