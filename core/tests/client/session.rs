//! Conversations with a session.

use std::time::Duration;

use serde_json::json;
use syncline_core::client::{
    Call, ClientCommand, ClientEvent, ClientLimits, ClientOptions, HeldSubscription, StoreCommand, StoreReply,
};
use syncline_core::protocol::{
    BucketPosition, CheckpointLine, ClientLine, RequestedSubscription, StreamDescription, StreamError,
    SubscriptionReason,
};
use syncline_core::{
    BucketPriority, ClientState, Credentials, Error, ErrorKind, LocalTransaction, LocalWrite, OpId, PublishOutcome,
    StoredSubscription, UploadSequence, UploadState, Uploaded, WallTime, WriteCheckpoint, WriteKind,
};

use crate::talk::{Talk, WALL, bucket, checkpoint, complete, data, diff, partial, sized_data, state};

const SECOND: Duration = Duration::from_secs(1);

fn transaction(op_id: i64) -> LocalTransaction {
    let write = LocalWrite {
        op_id,
        op: WriteKind::Delete,
        table: "t".into(),
        id: "x".into(),
        tx_id: Some(op_id),
        data: None,
        old: None,
        metadata: None,
    };
    LocalTransaction { transaction_id: Some(op_id), client_id: None, crud: vec![write] }
}

fn subscription(stream: &str, expires_in: i64) -> StoredSubscription {
    StoredSubscription {
        stream: stream.into(),
        parameters: json!({"b": 1, "a": 2}).as_object().unwrap().clone(),
        priority: Some(BucketPriority(1)),
        expires_at: WallTime(WALL + 1000 + expires_in),
        last_synced_at: None,
    }
}

fn held(one: &StoredSubscription, ttl: Duration) -> HeldSubscription {
    let StoredSubscription { stream, parameters, priority, .. } = one.clone();
    HeldSubscription { stream, parameters, priority, ttl }
}

#[test]
fn the_request_says_where_the_client_stands() {
    let parameters = json!({"project": 7}).as_object().unwrap().clone();
    let mut talk = Talk::with(ClientOptions { parameters: parameters.clone(), ..ClientOptions::default() });
    let known = ClientState {
        buckets: vec![("a[]".into(), OpId(12)), ("b[1]".into(), OpId(3))],
        subscriptions: vec![subscription("notes", 90_000)],
        last_synced_at: Some(WallTime(5)),
        ..state()
    };
    let request = talk.connect(known);
    let position = |name: &str, after: &str| BucketPosition { name: name.into(), after: after.into() };
    assert_eq!(request.buckets, [position("a[]", "12"), position("b[1]", "3")]);
    assert_eq!(request.client_id.as_deref(), Some("device"));
    assert_eq!(request.parameters, parameters);
    assert!(request.raw_data && request.include_checksum && request.binary_data);
    let streams = request.streams.as_ref().unwrap();
    assert!(streams.include_defaults);
    let parameters = Some(subscription("notes", 0).parameters);
    let asked = RequestedSubscription { stream: "notes".into(), parameters, override_priority: Some(1) };
    assert_eq!(streams.subscriptions, [asked]);
    assert_eq!(talk.status().last_synced_at, Some(WallTime(5)), "known before anything was received");
}

#[test]
fn a_checkpoint_is_staged_then_shown() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.lines([checkpoint(9, &["a", "b"]), data("a", 1)]);
    talk.begins(9);
    assert_eq!(talk.status().downloading.unwrap().received, 1);
    // The rest arrives while the store is busy: it is staged together.
    talk.lines([data("a", 2)]);
    talk.lines([data("b", 9), complete(9)]);
    assert_eq!(talk.stages(), [1]);
    assert_eq!(talk.stages(), [2, 9]);
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!((shown.target.last_op_id, shown.partial), (OpId(9), None));
    assert_eq!(talk.status().last_synced_at, Some(talk.wall()));
    assert_eq!(talk.status().downloading, None);
}

#[test]
fn batches_are_bounded_and_the_stream_is_not_read_ahead_for_ever() {
    let limits = ClientLimits { stage_bytes: 1000, buffered_bytes: 3000, ..ClientLimits::default() };
    let mut talk = Talk::with(ClientOptions { limits, ..ClientOptions::default() });
    talk.connect(state());
    talk.lines((1..=5).map(|op_id| sized_data("a", op_id, 600)));
    assert!(talk.session.wants_lines(), "one line is with the store, four wait");
    talk.lines([sized_data("a", 6, 600), sized_data("a", 7, 10)]);
    assert!(!talk.session.wants_lines());
    // Silence means nothing while nobody listens.
    talk.pass(Duration::from_secs(600));
    assert!(talk.status().connected);
    assert_eq!(talk.status().store_stalled_since, Some(WallTime(WALL + 1000)), "but the store's silence is told");
    let mut staged = Vec::new();
    while !talk.commands.is_empty() {
        staged.push(talk.stages());
    }
    assert_eq!(staged, [vec![1], vec![2], vec![3], vec![4], vec![5], vec![6, 7]]);
    assert!(talk.session.wants_lines());
    assert_eq!(talk.status().store_stalled_since, None);
}

#[test]
fn a_client_that_lags_behind_takes_larger_steps() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.lines([checkpoint(1, &["a"]), data("a", 1), complete(1)]);
    // The store works on the first while three more arrive.
    talk.lines([diff(2, None, &["a"], &[]), data("a", 2), partial(2, 1), complete(2)]);
    talk.lines([diff(3, None, &["b"], &[]), data("b", 3), complete(3)]);
    talk.lines([diff(4, None, &[], &["b"]), data("a", 4), complete(4)]);
    talk.begins(1);
    talk.stages();
    talk.publishes(PublishOutcome::Published);
    // The second and the third are shown as one; the fourth removes a bucket and stands alone.
    talk.nothing_to_upload();
    talk.begins(3);
    assert_eq!(talk.stages(), [2, 3]);
    assert_eq!(talk.publishes(PublishOutcome::Published).target.last_op_id, OpId(3));
    talk.begins(4);
    assert_eq!(talk.stages(), [4]);
    assert_eq!(talk.publishes(PublishOutcome::Published).target.last_op_id, OpId(4));
}

#[test]
fn a_diff_replaces_the_write_checkpoint_and_merges_buckets() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.sync(1);
    talk.lines([diff(2, Some(8), &["b"], &[]), complete(2)]);
    talk.begins(2);
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!(shown.target.write_checkpoint, Some(WriteCheckpoint(8)));
    assert_eq!(shown.target.buckets.keys().map(|name| name.to_string()).collect::<Vec<_>>(), ["a", "b"]);
    talk.nothing_to_upload();
    talk.lines([diff(3, None, &[], &["a"]), complete(3)]);
    talk.begins(3);
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!(shown.target.write_checkpoint, None, "absent means that there is none");
    assert_eq!(shown.target.buckets.keys().map(|name| name.to_string()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_breaks_the_protocol_ends_the_stream() {
    let wrong: [&[ClientLine]; 4] = [
        &[diff(1, None, &[], &[])],
        &[complete(1)],
        &[checkpoint(2, &[]), complete(3)],
        &[checkpoint(2, &[]), diff(1, None, &[], &[])],
    ];
    for lines in wrong {
        let mut talk = Talk::new();
        talk.connect(state());
        talk.lines(lines.iter().cloned());
        let closed = talk.commands.iter().any(|command| matches!(command, ClientCommand::CloseStream));
        assert!(closed, "{lines:?}");
        assert_eq!(talk.status().download_error.as_ref().unwrap().kind, ErrorKind::Protocol);
        assert!(!talk.status().connected);
    }
}

#[test]
fn a_stream_that_ends_is_opened_again_and_what_it_brought_is_kept() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.lines([checkpoint(1, &["a"]), data("a", 1), complete(1)]);
    talk.tell(ClientEvent::StreamEnded(Ok(())));
    talk.begins(1);
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
}

#[test]
fn ended_streams_are_retried_with_delays_that_grow_to_a_cap() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::StreamEnded(Ok(())));
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert!(matches!(talk.next(), ClientCommand::CloseStream));
        talk.nothing_to_upload();
        assert!(!talk.status().connected);
        let start = talk.now;
        while talk.commands.is_empty() {
            talk.pass_until_asked(30 * SECOND);
            // The upload side looks after its queue meanwhile.
            talk.nothing_to_upload();
        }
        waits.push(talk.now.since(start));
        assert!(matches!(talk.store(), StoreCommand::Resume { .. }));
        talk.reply(StoreReply::Resumed(Ok(state())));
        assert!(matches!(talk.next(), ClientCommand::Open { .. }));
        talk.nothing_to_upload();
        talk.tell(ClientEvent::StreamEnded(Err(Error::unavailable("no route"))));
    }
    assert!(waits[0] <= SECOND / 4, "{waits:?}");
    assert!(waits[11] >= 10 * SECOND && waits[11] <= 20 * SECOND, "{waits:?}");
    let problem = talk.status().download_error.clone().unwrap();
    assert_eq!((problem.kind, problem.message.as_str()), (ErrorKind::Unavailable, "no route"));
    // Back online, somebody says so: at once.
    talk.commands.clear();
    talk.tell(ClientEvent::RetryNow);
    talk.reply(StoreReply::UploadLoaded(Ok(None)));
    assert!(talk.commands.iter().any(|one| matches!(one, ClientCommand::Store(StoreCommand::Resume { .. }))));
}

#[test]
fn a_request_that_the_server_calls_invalid_is_made_again_later() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::StreamEnded(Err(Error::invalid("more than 1000 buckets"))));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    assert_eq!(talk.status().download_error.as_ref().unwrap().kind, ErrorKind::Invalid);
    talk.pass_until_asked(SECOND);
    talk.connect(state());
    talk.sync(1);
    assert_eq!(talk.status().download_error, None);
    talk.tell(ClientEvent::StreamEnded(Err(Error::internal("a bug of the transport"))));
    let ClientCommand::Stop(Err(error)) = talk.next() else { panic!("expected the end") };
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_mismatch_downloads_again_and_three_in_a_row_are_an_error() {
    let mut talk = Talk::new();
    talk.connect(state());
    for round in 1..=3 {
        talk.lines([checkpoint(1, &["a", "b"]), data("a", 1), complete(1)]);
        talk.begins(1);
        talk.stages();
        talk.publishes(PublishOutcome::Mismatch(vec!["a".into()]));
        assert!(talk.commands.iter().any(|command| matches!(command, ClientCommand::CloseStream)), "round {round}");
        talk.commands.clear();
        assert_eq!(talk.status().download_error.is_some(), round == 3);
        talk.pass_until_asked(2 * SECOND);
        talk.connect(state());
    }
    let problem = talk.status().download_error.clone().unwrap();
    assert_eq!(problem.kind, ErrorKind::Data);
    assert!(problem.message.ends_with(": a"), "{problem:?}");
    talk.sync(1);
    assert_eq!(talk.status().download_error, None);
}

#[test]
fn a_silent_stream_is_given_up() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.pass(59 * SECOND);
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Heard);
    talk.pass(59 * SECOND);
    assert!(talk.status().connected);
    talk.nothing_to_upload();
    talk.pass(SECOND);
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    assert_eq!(talk.status().download_error.as_ref().unwrap().kind, ErrorKind::Unavailable);
}

#[test]
fn no_answer_at_all_is_waited_for_without_a_limit() {
    // The store alone may take its time; but it is told, and everything else goes on.
    let mut talk = Talk::new();
    talk.tell(ClientEvent::Tick);
    talk.pass(61 * SECOND);
    assert_eq!(talk.status().store_stalled_since, Some(WallTime(WALL + 1000)));

    let mut talk = Talk::new();
    talk.tell(ClientEvent::Tick);
    talk.store();
    talk.reply(StoreReply::Resumed(Ok(state())));
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
    talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(1)))));
    talk.commands.clear();
    talk.pass(30 * SECOND);
    assert!(matches!(talk.next(), ClientCommand::Abandon(Call::Credentials)));
    assert!(talk.status().download_error.is_some() && talk.status().upload_error.is_some());
    talk.pass(SECOND);
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t1"))));
    assert!(matches!(talk.next(), ClientCommand::Open { .. }));
    assert!(matches!(talk.next(), ClientCommand::Upload { .. }));
    talk.quiet();
    talk.pass(30 * SECOND);
    assert!(matches!(talk.next(), ClientCommand::CloseStream), "it did not open");
    talk.commands.clear();
    talk.pass(30 * SECOND);
    assert!(talk.commands.iter().any(|command| matches!(command, ClientCommand::Abandon(Call::Upload))));
}

#[test]
fn uploads_go_out_in_order_and_are_covered() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.sync(1);
    talk.tell(ClientEvent::UploadQueueChanged);
    for op_id in [4, 5] {
        assert!(matches!(talk.store(), StoreCommand::LoadUpload));
        talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(op_id)))));
        assert!(talk.status().uploading);
        let ClientCommand::Upload { transaction, .. } = talk.next() else { panic!("expected an upload") };
        assert_eq!(transaction.transaction_id, Some(op_id));
        talk.quiet();
        let outcome = if op_id == 4 { Uploaded::Applied } else { Uploaded::Rejected { reason: "no".into() } };
        talk.tell(ClientEvent::Uploaded(Ok(outcome.clone())));
        let StoreCommand::FinishUpload { transaction, outcome: told } = talk.store() else { panic!("expected an end") };
        assert_eq!((transaction.transaction_id, told), (Some(op_id), outcome));
        talk.reply(StoreReply::UploadFinished(Ok(())));
    }
    assert!(matches!(talk.store(), StoreCommand::LoadUpload));
    talk.reply(StoreReply::UploadLoaded(Ok(None)));
    assert!(matches!(talk.store(), StoreCommand::LoadUploadState));
    let uploads = UploadState { uncovered: Some(UploadSequence(5)), ..UploadState::default() };
    talk.reply(StoreReply::UploadStateLoaded(Ok(uploads)));
    let ClientCommand::RequestWriteCheckpoint { client_id, .. } = talk.next() else { panic!("expected a request") };
    assert_eq!(&*client_id, "device");
    talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(70))));
    let StoreCommand::Cover { upto, checkpoint } = talk.store() else { panic!("expected a cover") };
    assert_eq!((upto, checkpoint), (UploadSequence(5), WriteCheckpoint(70)));
    talk.reply(StoreReply::Covered(Ok(())));
    assert!(matches!(talk.store(), StoreCommand::LoadUploadState));
    talk.reply(StoreReply::UploadStateLoaded(Ok(awaiting(70))));
    assert!(!talk.status().uploading);
    talk.quiet();
}

fn awaiting(number: i64) -> UploadState {
    let covered = Some(UploadSequence(5));
    UploadState { queued: 0, uncovered: None, covered, awaited: Some(WriteCheckpoint(number)) }
}

#[test]
fn a_failed_upload_is_tried_again_with_delays_and_keeps_its_place() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::UploadQueueChanged);
    for round in 0..9 {
        assert!(matches!(talk.store(), StoreCommand::LoadUpload));
        talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(4)))));
        assert!(matches!(talk.next(), ClientCommand::Upload { .. }));
        talk.tell(ClientEvent::Uploaded(Err(Error::unavailable("503"))));
        assert_eq!(talk.status().upload_error.as_ref().unwrap().message, "503");
        // More local writes do not hurry it.
        talk.tell(ClientEvent::UploadQueueChanged);
        talk.quiet();
        talk.tell(ClientEvent::Heard);
        let waited = talk.pass_until_asked(30 * SECOND);
        assert!(waited >= SECOND / 2, "round {round}: {waited:?}");
    }
    // Credentials older than a minute are not trusted after a failure.
    talk.store();
    talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(4)))));
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
}

#[test]
fn a_large_upload_gets_the_time_that_a_bad_line_needs() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::StreamEnded(Err(Error::unavailable("down"))));
    talk.tell(ClientEvent::UploadQueueChanged);
    let mut large = transaction(1);
    large.crud[0].data = json!({ "body": "x".repeat(10 << 20) }).as_object().cloned();
    talk.commands.retain(|command| matches!(command, ClientCommand::Store(_)));
    assert!(matches!(talk.store(), StoreCommand::LoadUpload));
    talk.reply(StoreReply::UploadLoaded(Ok(Some(large))));
    let abandoned =
        |talk: &Talk| talk.commands.iter().any(|command| matches!(command, ClientCommand::Abandon(Call::Upload)));
    talk.pass(600 * SECOND);
    assert!(!abandoned(&talk), "ten minutes are not too long for ten megabytes");
    talk.pass(120 * SECOND);
    assert!(abandoned(&talk), "but there is a limit");
}

#[test]
fn a_backend_that_is_away_costs_few_tokens_and_no_stream() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::UploadQueueChanged);
    let (end, mut fetched) = (talk.now + 600 * SECOND, 0);
    while talk.now < end {
        match talk.commands.pop_front() {
            Some(ClientCommand::Store(StoreCommand::LoadUpload)) => {
                talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(4)))));
            }
            Some(ClientCommand::Upload { .. }) => talk.tell(ClientEvent::Uploaded(Err(Error::unavailable("503")))),
            Some(ClientCommand::FetchCredentials) => {
                fetched += 1;
                talk.tell(ClientEvent::Credentials(Ok(Credentials::new(format!("fresh {fetched}")))));
            }
            Some(other) => panic!("the healthy stream stays: {other:?}"),
            None => {
                talk.tell(ClientEvent::Heard);
                talk.pass_until_asked(30 * SECOND);
            }
        }
    }
    assert!((1..=3).contains(&fetched), "{fetched} tokens in ten minutes");
}

#[test]
fn an_upload_that_hangs_is_given_up_when_the_network_is_back() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::UploadQueueChanged);
    talk.store();
    talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(4)))));
    assert!(matches!(talk.next(), ClientCommand::Upload { .. }));
    for (away, given_up) in [(5 * SECOND, false), (15 * SECOND, true)] {
        talk.tell(ClientEvent::StreamEnded(Err(Error::unavailable("down"))));
        assert!(matches!(talk.next(), ClientCommand::CloseStream));
        talk.pass(away);
        talk.store();
        talk.reply(StoreReply::Resumed(Ok(state())));
        assert!(matches!(talk.next(), ClientCommand::Open { .. }));
        talk.tell(ClientEvent::Opened);
        if given_up {
            assert!(matches!(talk.next(), ClientCommand::Abandon(Call::Upload)));
            assert!(matches!(talk.store(), StoreCommand::LoadUpload), "at once");
        }
        talk.quiet();
    }
}

#[test]
fn uploads_run_while_no_stream_is_open() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::StreamEnded(Err(Error::unavailable("down"))));
    talk.commands.clear();
    talk.tell(ClientEvent::UploadQueueChanged);
    assert!(matches!(talk.store(), StoreCommand::LoadUpload));
    talk.reply(StoreReply::UploadLoaded(Ok(Some(transaction(1)))));
    assert!(matches!(talk.next(), ClientCommand::Upload { .. }));
}

#[test]
fn a_held_checkpoint_is_shown_when_the_uploads_are_covered() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.lines([checkpoint(1, &["a"]), complete(1)]);
    talk.begins(1);
    talk.publishes(PublishOutcome::Published);
    talk.nothing_to_upload();
    talk.lines([diff(2, Some(70), &["a"], &[]), complete(2)]);
    talk.begins(2);
    talk.publishes(PublishOutcome::Held);
    assert_eq!(talk.status().held_by_uploads_since, Some(talk.wall()));
    // The write checkpoint came back before the client knew its number.
    assert!(matches!(talk.store(), StoreCommand::LoadUpload));
    talk.reply(StoreReply::UploadLoaded(Ok(None)));
    talk.store();
    let uploads = UploadState { uncovered: Some(UploadSequence(5)), ..UploadState::default() };
    talk.reply(StoreReply::UploadStateLoaded(Ok(uploads)));
    assert!(matches!(talk.next(), ClientCommand::RequestWriteCheckpoint { .. }));
    talk.quiet();
    talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(70))));
    talk.store();
    talk.reply(StoreReply::Covered(Ok(())));
    talk.store();
    talk.reply(StoreReply::UploadStateLoaded(Ok(awaiting(70))));
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!(shown.target.last_op_id, OpId(2));
    assert_eq!(talk.status().held_by_uploads_since, None);
    assert!(matches!(talk.store(), StoreCommand::LoadUpload), "what was awaited may have come");
}

#[test]
fn a_held_checkpoint_is_tried_again_by_time_and_forgotten_for_a_newer_one() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.lines([checkpoint(1, &["a"]), complete(1)]);
    talk.begins(1);
    talk.publishes(PublishOutcome::Held);
    talk.nothing_to_upload();
    // The queue is empty by now, so that it is tried again at once; then by time.
    talk.publishes(PublishOutcome::Held);
    talk.nothing_to_upload();
    talk.quiet();
    assert_eq!(talk.pass_until_asked(11 * SECOND), 10 * SECOND);
    talk.publishes(PublishOutcome::Held);
    talk.quiet();
    // A newer checkpoint takes its place.
    talk.lines([diff(2, None, &["a"], &[])]);
    talk.begins(2);
    talk.tell(ClientEvent::UploadQueueChanged);
    talk.nothing_to_upload();
    talk.quiet();
    talk.lines([complete(2)]);
    assert_eq!(talk.publishes(PublishOutcome::Published).target.last_op_id, OpId(2));
}

#[test]
fn the_highest_priority_is_shown_past_local_writes() {
    let mut talk = Talk::new();
    talk.connect(state());
    let line = CheckpointLine {
        last_op_id: OpId(3),
        buckets: vec![bucket("p0", 0), bucket("p3", 3)],
        ..CheckpointLine::default()
    };
    talk.lines([ClientLine::Checkpoint(line), data("p0", 1), data("p3", 3), complete(3)]);
    talk.begins(3);
    talk.stages();
    talk.publishes(PublishOutcome::Held);
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!(shown.partial, Some(BucketPriority::HIGHEST));
    assert!(talk.status().held_by_uploads_since.is_some(), "the rest waits");
    assert_eq!(talk.status().last_synced_at, None);
}

#[test]
fn an_awaited_write_checkpoint_is_asked_for_again_by_time() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::UploadQueueChanged);
    talk.store();
    talk.reply(StoreReply::UploadLoaded(Ok(None)));
    talk.store();
    let uploads = UploadState { uncovered: Some(UploadSequence(5)), ..UploadState::default() };
    talk.reply(StoreReply::UploadStateLoaded(Ok(uploads)));
    talk.next();
    talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(70))));
    talk.store();
    talk.reply(StoreReply::Covered(Ok(())));
    talk.store();
    talk.reply(StoreReply::UploadStateLoaded(Ok(awaiting(70))));
    for _ in 0..3 {
        talk.tell(ClientEvent::Heard);
        assert_eq!(talk.pass_until_asked(11 * SECOND), 10 * SECOND);
        assert!(matches!(talk.next(), ClientCommand::RequestWriteCheckpoint { .. }));
        talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(71))));
        talk.quiet();
    }
    // A server that forgot everything gives smaller numbers: the new one is what is awaited.
    talk.tell(ClientEvent::Heard);
    talk.pass_until_asked(11 * SECOND);
    talk.next();
    talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(2))));
    let StoreCommand::Cover { upto, checkpoint } = talk.store() else { panic!("expected a cover") };
    assert_eq!((upto, checkpoint), (UploadSequence(5), WriteCheckpoint(2)));
    talk.reply(StoreReply::Covered(Ok(())));
}

#[test]
fn what_waited_before_a_restart_is_covered_anew_when_numbers_have_fallen() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.tell(ClientEvent::UploadQueueChanged);
    talk.store();
    talk.reply(StoreReply::UploadLoaded(Ok(None)));
    talk.store();
    // It was sent and covered by a run of the program before this one.
    talk.reply(StoreReply::UploadStateLoaded(Ok(awaiting(70))));
    talk.tell(ClientEvent::Heard);
    talk.pass_until_asked(11 * SECOND);
    talk.next();
    talk.tell(ClientEvent::WriteCheckpoint(Ok(WriteCheckpoint(2))));
    let StoreCommand::Cover { upto, checkpoint } = talk.store() else { panic!("expected a cover") };
    assert_eq!((upto, checkpoint), (UploadSequence(5), WriteCheckpoint(2)));
}

#[test]
fn credentials_are_renewed_before_they_expire() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.sync(1);
    talk.pass(20 * SECOND);
    talk.lines([ClientLine::TokenExpiresIn(31)]);
    talk.nothing_to_upload();
    talk.quiet();
    talk.lines([ClientLine::TokenExpiresIn(30)]);
    let fetches =
        |talk: &Talk| talk.commands.iter().filter(|one| matches!(one, ClientCommand::FetchCredentials)).count();
    assert_eq!(fetches(&talk), 1);
    talk.commands.retain(|one| !matches!(one, ClientCommand::FetchCredentials));
    talk.nothing_to_upload();
    // The same again is of no use, another one opens the stream again without a visible interruption.
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t1"))));
    talk.quiet();
    talk.lines([ClientLine::TokenExpiresIn(10)]);
    assert_eq!(fetches(&talk), 1);
    talk.commands.retain(|one| !matches!(one, ClientCommand::FetchCredentials));
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t2"))));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    assert!(talk.status().connected);
    talk.store();
    talk.reply(StoreReply::Resumed(Ok(state())));
    let ClientCommand::Open { credentials, .. } = talk.next() else { panic!("expected a stream") };
    assert_eq!(credentials.token, "t2");
    assert!(talk.status().connected);
    talk.tell(ClientEvent::StreamEnded(Err(Error::unavailable("down"))));
    assert!(!talk.status().connected);
}

#[test]
fn expired_credentials_are_dropped() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.sync(1);
    talk.lines([ClientLine::TokenExpiresIn(0), complete(1)]);
    talk.nothing_to_upload();
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    talk.nothing_to_upload();
    talk.pass_until_asked(SECOND);
    talk.store();
    talk.reply(StoreReply::Resumed(Ok(state())));
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
}

#[test]
fn refused_credentials_are_replaced_at_once_and_then_with_delays() {
    let mut talk = Talk::new();
    talk.tell(ClientEvent::Tick);
    talk.store();
    talk.reply(StoreReply::Resumed(Ok(state())));
    talk.next();
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t1"))));
    assert!(matches!(talk.next(), ClientCommand::Open { .. }));
    talk.tell(ClientEvent::StreamEnded(Err(Error::unauthorized("expired"))));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    talk.store();
    talk.reply(StoreReply::Resumed(Ok(state())));
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t2"))));
    assert!(matches!(talk.next(), ClientCommand::Open { .. }));
    talk.tell(ClientEvent::StreamEnded(Err(Error::unauthorized("unknown user"))));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    talk.quiet();
    assert!(talk.pass_until_asked(SECOND) >= Duration::from_millis(100));
    assert_eq!(talk.status().download_error.as_ref().unwrap().kind, ErrorKind::Unauthorized);
}

#[test]
fn a_changed_set_of_subscriptions_opens_the_stream_again() {
    let mut talk = Talk::new();
    talk.connect(state());
    talk.sync(1);
    talk.pass(SECOND);
    let one = subscription("notes", 200_000);
    talk.tell(ClientEvent::Subscriptions(vec![held(&one, 60 * SECOND)]));
    assert!(matches!(talk.store(), StoreCommand::Resume { .. }));
    let known = ClientState { subscriptions: vec![one.clone()], ..state() };
    talk.reply(StoreReply::Resumed(Ok(known.clone())));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
    assert!(talk.status().connected, "no interruption is shown");
    let request = talk.connect(known.clone());
    assert_eq!(request.streams.as_ref().unwrap().subscriptions.len(), 1);
    let stream = &talk.status().streams[0];
    assert!(stream.held && !stream.active && stream.error.is_none() && stream.last_synced_at.is_none());

    let stream =
        |name: &str, errors: Vec<StreamError>| StreamDescription { name: name.into(), is_default: false, errors };
    let mut reasoned = bucket("n", 3);
    reasoned.subscriptions = vec![SubscriptionReason::Subscription(0)];
    let line = CheckpointLine {
        last_op_id: OpId(2),
        buckets: vec![reasoned],
        streams: vec![stream("notes", Vec::new())],
        write_checkpoint: None,
    };
    talk.lines([ClientLine::Checkpoint(line), complete(2)]);
    assert!(talk.status().streams[0].active);
    talk.begins(2);
    let shown = talk.publishes(PublishOutcome::Published);
    assert_eq!(*shown.requested, *std::slice::from_ref(&one));
    assert_eq!(talk.status().streams[0].last_synced_at, Some(talk.wall()));

    // The last handle goes: it lasts for its time to live from now.
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Subscriptions(Vec::new()));
    let StoreCommand::SaveSubscription { expires_at, .. } = talk.store() else { panic!("expected a renewal") };
    assert_eq!(expires_at, Some(WallTime(talk.wall().0 + 60_000)));
    talk.reply(StoreReply::SubscriptionSaved(Ok(())));
    assert!(matches!(talk.store(), StoreCommand::Resume { .. }));
    let ending = StoredSubscription { expires_at: WallTime(talk.wall().0 + 60_000), ..one };
    talk.reply(StoreReply::Resumed(Ok(ClientState { subscriptions: vec![ending], ..state() })));
    talk.quiet();
    // Nobody says a word, yet it ends.
    talk.pass(59 * SECOND);
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Heard);
    talk.pass(SECOND);
    talk.nothing_to_upload();
    assert!(matches!(talk.store(), StoreCommand::Resume { .. }));
    talk.reply(StoreReply::Resumed(Ok(state())));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
}

#[test]
fn held_subscriptions_are_renewed_and_wrong_ones_are_told() {
    let mut talk = Talk::new();
    let one = subscription("nots", 30_000);
    let known = ClientState { subscriptions: vec![one.clone()], ..state() };
    talk.tell(ClientEvent::Subscriptions(vec![held(&one, 100 * SECOND)]));
    assert!(matches!(talk.store(), StoreCommand::Resume { .. }));
    talk.reply(StoreReply::Resumed(Ok(known)));
    assert!(matches!(talk.next(), ClientCommand::FetchCredentials));
    talk.nothing_to_upload();
    let StoreCommand::SaveSubscription { expires_at, .. } = talk.store() else { panic!("expected a renewal") };
    assert_eq!(expires_at, Some(WallTime(talk.wall().0 + 120_000)), "while it is held, for two minutes at least");
    talk.reply(StoreReply::SubscriptionSaved(Ok(())));
    talk.nothing_to_upload();
    talk.tell(ClientEvent::Credentials(Ok(Credentials::new("t1"))));
    talk.next();
    talk.tell(ClientEvent::Opened);
    talk.nothing_to_upload();
    talk.lines([checkpoint(1, &[]), complete(1)]);
    let stream = &talk.status().streams[0];
    assert_eq!(stream.error.as_deref(), Some("the server's sync config has no stream `nots`"));
    talk.begins(1);
    talk.publishes(PublishOutcome::Published);
    assert_eq!(talk.status().streams[0].last_synced_at, None);
}

#[test]
fn a_store_that_is_away_is_tried_again() {
    let mut talk = Talk::new();
    talk.tell(ClientEvent::Tick);
    talk.store();
    talk.reply(StoreReply::Resumed(Err(Error::unavailable("disk full"))));
    assert_eq!(talk.status().download_error.as_ref().unwrap().message, "disk full");
    talk.pass_until_asked(SECOND);
    talk.connect(state());
    talk.lines([checkpoint(1, &["a"]), complete(1)]);
    talk.begins(1);
    assert!(matches!(talk.store(), StoreCommand::Publish(_)));
    talk.reply(StoreReply::Published(Err(Error::unavailable("disk full"))));
    talk.quiet();
    talk.pass_until_asked(SECOND);
    talk.publishes(PublishOutcome::Published);
    talk.nothing_to_upload();
    // Staged lines may be lost then, so everything is asked for again.
    talk.lines([data("a", 2)]);
    assert!(matches!(talk.store(), StoreCommand::Stage(_)));
    talk.reply(StoreReply::Staged(Err(Error::unavailable("disk full"))));
    assert!(matches!(talk.next(), ClientCommand::CloseStream));
}

#[test]
fn a_damaged_store_ends_the_session_and_a_closed_one_ends_it_quietly() {
    for (error, stops) in [(Error::data("malformed page"), Some(ErrorKind::Data)), (Error::closed("closed"), None)] {
        let mut talk = Talk::new();
        talk.connect(state());
        talk.tell(ClientEvent::UploadQueueChanged);
        talk.store();
        talk.reply(StoreReply::UploadLoaded(Err(error)));
        let ClientCommand::Stop(result) = talk.next() else { panic!("expected the end") };
        assert_eq!(result.err().map(|error| error.kind()), stops);
        assert!(!talk.status().connected);
        assert_eq!(talk.session.poll_timeout(), None);
    }
}
