//! Conversations with one server session: what it is told, and what it wants sent.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::protocol::{BucketPosition, SyncRequest};
use syncline_core::server::{
    CheckpointUpdate, ResolvedStreams, ServerCommand, ServerEvent, ServerLine, ServerSession, SessionLimits, Touched,
    WantedBucket,
};
use syncline_core::{
    BucketChecksum, BucketId, BucketPriority, Checkpoint, Checksum, Chunk, ChunkBuilder, DefinitionId, DeployedConfig,
    DeployedDefinition, Generation, Identity, OpId, OperationChunk, OperationKind, OperationRef, Time, WallTime,
    WriteCheckpoint,
};

const NOW: Time = Time(1_000);
const WALL: WallTime = WallTime(1_000_000);

fn bucket(number: u32) -> BucketId {
    BucketId { definition: DefinitionId(number), parameters: "[]".into() }
}

fn config(text: &'static str) -> Arc<DeployedConfig> {
    Arc::new(DeployedConfig { text: text.into(), definitions: Vec::new() })
}

fn checkpoint(op_id: u64) -> Checkpoint {
    Checkpoint { op_id: OpId(op_id), generation: Generation(1), config: config("a") }
}

fn resolved(priorities: &[u8]) -> Option<ResolvedStreams> {
    let wanted = |(index, priority): (usize, &u8)| {
        let id = bucket(index as u32);
        WantedBucket::new(&id, Generation(1), BucketPriority(*priority))
    };
    let buckets = priorities.iter().enumerate().map(wanted).collect();
    Some(ResolvedStreams { buckets, ..ResolvedStreams::default() })
}

fn chunk(ids: std::ops::RangeInclusive<u64>) -> Chunk {
    let mut builder = ChunkBuilder::new();
    for id in ids {
        let operation = OperationRef {
            op_id: OpId(id),
            kind: OperationKind::Put,
            checksum: Checksum(1),
            object_type: "t",
            object_id: "i",
            subkey: "",
            data: "{}",
        };
        builder.push(operation).unwrap();
    }
    builder.finish()
}

fn answer(ids: std::ops::RangeInclusive<u64>, upto: u64, has_more: bool) -> OperationChunk {
    OperationChunk { chunks: vec![chunk(ids)], next_after: OpId(upto), has_more, superseded: None }
}

struct Conversation(ServerSession);

impl Conversation {
    fn begin(priorities: &[u8]) -> Self {
        let limits = SessionLimits { line_operations: 1_000, ..SessionLimits::default() };
        let mut this = Self(ServerSession::new(&Identity::new("u"), &SyncRequest::default(), limits, NOW).unwrap());
        this.checkpoint(10, Touched::Unknown, resolved(priorities));
        this
    }

    fn tell(&mut self, event: ServerEvent) {
        self.0.handle(NOW, WALL, event).unwrap();
    }

    fn checkpoint(&mut self, op_id: u64, touched: Touched, resolved: Option<ResolvedStreams>) {
        let update = CheckpointUpdate { checkpoint: checkpoint(op_id), touched, resolved };
        self.tell(ServerEvent::Checkpoint(update));
    }

    fn describe(&mut self, counts: &[u64], write_checkpoint: Option<i64>) {
        let Some(ServerCommand::Describe { buckets, .. }) = self.0.poll() else { panic!("expected Describe") };
        assert_eq!(buckets.len(), counts.len());
        let checksums =
            counts.iter().map(|&count| BucketChecksum { count, checksum: Checksum(count as u32) }).collect();
        self.tell(ServerEvent::Described { checksums, write_checkpoint: write_checkpoint.map(WriteCheckpoint) });
    }

    fn read(&mut self, answers: Vec<OperationChunk>) {
        let Some(ServerCommand::Read(requests)) = self.0.poll() else { panic!("expected Read") };
        assert_eq!(requests.len(), answers.len());
        self.tell(ServerEvent::Read(answers));
    }

    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(command) = self.0.poll() {
            match command {
                ServerCommand::Send(line) => lines.push(match line {
                    ServerLine::Checkpoint(line) => format!("checkpoint {} of {}", line.last_op_id, line.buckets.len()),
                    ServerLine::CheckpointDiff(line) => {
                        let number = line.write_checkpoint.map(|number| number.0);
                        match (line.updated_buckets.as_slice(), line.removed_buckets.as_slice()) {
                            (_, []) => format!("diff {} wc {number:?}", line.last_op_id),
                            (new, gone) => format!("diff {} +{} -{}", line.last_op_id, new.len(), gone.join(",")),
                        }
                    }
                    ServerLine::Data { after, next_after, has_more, .. } => {
                        format!("data {after}..{next_after} more {has_more}")
                    }
                    ServerLine::Complete { last_op_id } => format!("complete {last_op_id}"),
                    ServerLine::PartialComplete { last_op_id, priority } => {
                        format!("partial {last_op_id} priority {}", priority.0)
                    }
                    ServerLine::TokenExpiresIn(seconds) => format!("token {seconds}"),
                }),
                ServerCommand::Close => lines.push("close".into()),
                command @ (ServerCommand::Describe { .. } | ServerCommand::Read(_)) => {
                    panic!("unexpected {command:?} after {lines:?}")
                }
            }
        }
        lines
    }

    /// One line, and then a request for operations.
    fn lines_until_read(&mut self) -> Vec<String> {
        let Some(ServerCommand::Send(ServerLine::CheckpointDiff(line))) = self.0.poll() else {
            panic!("expected a diff")
        };
        vec![format!("diff {} wc {:?}", line.last_op_id, line.write_checkpoint.map(|number| number.0))]
    }

    /// The lines before the next request.
    fn sent(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let Some(ServerCommand::Send(line)) = self.0.poll() else { panic!("expected a line after {lines:?}") };
            lines.push(format!("{line:?}").split(['(', ' ', '{']).next().unwrap().to_owned());
        }
        lines
    }
}

fn touched(numbers: &[u32]) -> Touched {
    Touched::These {
        buckets: numbers.iter().copied().map(bucket).collect(),
        lookups: BTreeSet::new(),
        write_checkpoint: false,
    }
}

#[test]
fn an_empty_checkpoint_is_completed() {
    let mut session = Conversation::begin(&[]);
    session.describe(&[], None);
    assert_eq!(session.lines(), ["checkpoint 10 of 0", "complete 10"]);
}

#[test]
fn priorities_go_in_order_and_the_last_is_complete() {
    let mut session = Conversation::begin(&[3, 1]);
    session.describe(&[2, 2], None);
    assert_eq!(session.sent(1), ["Checkpoint"]);
    session.read(vec![answer(1..=2, 10, false)]);
    assert_eq!(session.sent(2), ["Data", "PartialComplete"]);
    session.read(vec![answer(3..=4, 10, false)]);
    assert_eq!(session.lines(), ["data 0..4 more false", "complete 10"]);
}

#[test]
fn a_change_of_others_sends_nothing_and_a_write_checkpoint_alone_sends_a_diff() {
    let mut session = Conversation::begin(&[3]);
    session.describe(&[0], None);
    session.lines();
    session.checkpoint(11, touched(&[]), None);
    assert!(session.lines().is_empty());
    session.checkpoint(
        12,
        Touched::These { buckets: BTreeSet::new(), lookups: BTreeSet::new(), write_checkpoint: true },
        None,
    );
    session.describe(&[], Some(7));
    assert_eq!(session.lines(), ["diff 12 wc Some(7)", "complete 12"]);
    session.checkpoint(13, touched(&[0]), None);
    session.describe(&[1], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"]);
    session.read(vec![answer(13..=13, 13, false)]);
    assert_eq!(session.lines(), ["data 0..13 more false", "complete 13"]);
}

#[test]
fn a_long_download_is_interrupted_by_a_newer_checkpoint_and_nothing_is_sent_twice() {
    let mut session = Conversation::begin(&[3]);
    session.describe(&[5_000], None);
    session.sent(1);
    session.read(vec![answer(1..=1_000, 1_000, true)]);
    assert!(session.0.wants_checkpoint());
    session.checkpoint(6_000, touched(&[0]), None);
    assert_eq!(session.sent(1), ["Data"]);
    session.read(vec![answer(1_001..=2_000, 2_000, true)]);
    assert_eq!(session.sent(1), ["Data"]);
    session.describe(&[6_000], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"], "no completion of the old checkpoint");
    session.read(vec![answer(2_001..=3_000, 6_000, false)]);
    assert_eq!(session.lines(), ["data 2000..3000 more false", "complete 6000"]);
}

/// The buckets with these numbers, and no others.
fn these(numbers: &[u32], priority: u8) -> Option<ResolvedStreams> {
    let wanted = |number: &u32| WantedBucket::new(&bucket(*number), Generation(1), BucketPriority(priority));
    let gone = (0..8).filter(|number| !numbers.contains(number)).map(bucket).collect();
    Some(ResolvedStreams { buckets: numbers.iter().map(wanted).collect(), gone, streams: Vec::new() })
}

/// A conversation in which the client has the buckets 0 and 1 with two operations each.
fn caught_up() -> Conversation {
    let mut session = Conversation::begin(&[3, 3]);
    session.describe(&[2, 2], None);
    session.sent(1);
    session.read(vec![answer(1..=2, 10, false), answer(3..=4, 10, false)]);
    session.lines();
    session
}

#[test]
fn buckets_come_and_go_with_the_checkpoint_that_changes_the_request() {
    let mut session = caught_up();
    session.checkpoint(20, touched(&[]), these(&[1, 2], 3));
    // Only the new one is looked at: nothing has happened to the other.
    session.describe(&[1], None);
    let gone = bucket(0).wire_name(Generation(1));
    let Some(ServerCommand::Send(ServerLine::CheckpointDiff(line))) = session.0.poll() else {
        panic!("expected a diff")
    };
    assert_eq!(line.removed_buckets, [gone]);
    assert_eq!(line.updated_buckets.iter().map(|bucket| bucket.count).collect::<Vec<_>>(), [Some(1)]);
    session.read(vec![answer(15..=15, 20, false)]);
    assert_eq!(session.lines(), ["data 0..15 more false", "complete 20"]);
    // It is gone: when it comes back the client has nothing of it.
    session.checkpoint(30, touched(&[]), these(&[0, 1, 2], 3));
    session.describe(&[2], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"]);
    session.read(vec![answer(1..=2, 30, false)]);
    assert_eq!(session.lines(), ["data 0..2 more false", "complete 30"]);
}

#[test]
fn a_request_that_loses_a_bucket_and_gains_none_is_told_so() {
    let mut session = caught_up();
    session.checkpoint(20, touched(&[]), these(&[0], 3));
    session.describe(&[], None);
    assert_eq!(session.lines(), [&format!("diff 20 +0 -{}", bucket(1).wire_name(Generation(1))), "complete 20"]);
}

#[test]
fn a_bucket_that_comes_back_before_the_client_was_told_is_looked_at_and_sent_from_where_it_stood() {
    let mut session = caught_up();
    // Gone at 20, which nobody is told of, because something else is being sent.
    session.checkpoint(15, touched(&[0]), None);
    session.describe(&[3], None);
    session.sent(1);
    session.checkpoint(20, touched(&[]), these(&[0], 3));
    session.checkpoint(30, touched(&[]), these(&[0, 1], 3));
    session.read(vec![answer(12..=12, 15, false)]);
    // Changed meanwhile, when it concerned nobody.
    session.sent(1);
    session.describe(&[3], None);
    assert_eq!(session.lines_until_read(), ["diff 30 wc None"]);
    session.read(vec![answer(25..=25, 30, false)]);
    assert_eq!(session.lines(), ["data 10..25 more false", "complete 30"]);
}

#[test]
fn another_priority_is_told_without_sending_anything_again() {
    let mut session = caught_up();
    session.checkpoint(20, touched(&[]), these(&[0, 1], 1));
    session.describe(&[2, 2], None);
    let Some(ServerCommand::Send(ServerLine::CheckpointDiff(line))) = session.0.poll() else {
        panic!("expected a diff")
    };
    assert!(line.updated_buckets.iter().all(|bucket| bucket.priority == BucketPriority(1)), "{line:?}");
    assert_eq!(line.updated_buckets.len(), 2);
}

#[test]
fn a_superseded_checkpoint_is_not_completed_but_the_next_one_is() {
    let mut session = Conversation::begin(&[3]);
    session.describe(&[2], None);
    session.sent(1);
    session.read(vec![OperationChunk { superseded: Some(OpId(12)), ..answer(1..=2, 10, false) }]);
    assert_eq!(session.lines(), ["data 0..2 more false"]);
    session.checkpoint(12, touched(&[]), None);
    session.describe(&[], None);
    assert_eq!(session.lines(), ["diff 12 wc None", "complete 12"]);
}

#[test]
fn a_checkpoint_that_waits_is_not_completed_if_what_superseded_the_last_one_came_after_it() {
    let mut session = Conversation::begin(&[3]);
    session.describe(&[5_000], None);
    session.sent(1);
    session.read(vec![answer(1..=1_000, 1_000, true)]);
    session.checkpoint(6_000, touched(&[0]), None);
    session.sent(1);
    // A row that was read as a MOVE here is in the operation 7000, so it would be missing at 6000.
    session.read(vec![OperationChunk { superseded: Some(OpId(7_000)), ..answer(1_001..=2_000, 2_000, true) }]);
    assert_eq!(session.lines(), ["data 1000..2000 more true"]);
    assert!(session.0.wants_checkpoint());
    session.checkpoint(7_000, touched(&[]), None);
    session.describe(&[7_000], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"]);
    session.read(vec![answer(2_001..=3_000, 7_000, false)]);
    assert_eq!(session.lines(), ["data 2000..3000 more false", "complete 7000"]);
}

#[test]
fn what_is_still_to_be_sent_of_a_bucket_is_not_forgotten_when_another_one_goes() {
    let mut session = Conversation::begin(&[3, 3, 3]);
    session.describe(&[0, 0, 5_000], None);
    session.sent(1);
    session.read(vec![answer(1..=1_000, 1_000, true)]);
    let gone = ResolvedStreams { gone: [bucket(0)].into(), ..ResolvedStreams::default() };
    session.checkpoint(6_000, touched(&[]), Some(gone));
    session.sent(1);
    session.read(vec![answer(1_001..=2_000, 2_000, true)]);
    session.sent(1);
    session.describe(&[], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"]);
    session.read(vec![answer(2_001..=3_000, 6_000, false)]);
    assert_eq!(session.lines(), ["data 2000..3000 more false", "complete 6000"]);
}

/// The checkpoint is passed over; what it says of rights is not.
#[test]
fn rights_that_change_at_a_checkpoint_that_cannot_be_completed_hold_at_the_next_one() {
    let mut session = caught_up();
    session.checkpoint(15, touched(&[0]), None);
    session.describe(&[3], None);
    session.sent(1);
    session.read(vec![OperationChunk { superseded: Some(OpId(30)), ..answer(11..=11, 15, false) }]);
    session.lines();
    session.checkpoint(20, touched(&[]), these(&[0, 2], 3));
    assert!(session.0.poll().is_none(), "what is at 20 must not be completed");
    session.checkpoint(30, touched(&[]), None);
    session.describe(&[3, 1], None);
    assert_eq!(session.sent(1), ["CheckpointDiff"]);
    let Some(ServerCommand::Read(reads)) = session.0.poll() else { panic!("expected Read") };
    assert_eq!(reads.iter().map(|read| read.bucket.clone()).collect::<Vec<_>>(), [bucket(0), bucket(2)]);
}

#[test]
fn what_a_clear_above_the_checkpoint_replaced_counts_as_not_sent() {
    let mut session = Conversation::begin(&[3]);
    session.describe(&[9], None);
    session.sent(1);
    session.read(vec![answer(1..=2, 2, true)]);
    session.sent(1);
    let nothing =
        OperationChunk { chunks: Vec::new(), next_after: OpId(10), has_more: false, superseded: Some(OpId(12)) };
    session.read(vec![nothing]);
    session.checkpoint(12, touched(&[0]), None);
    session.describe(&[3], None);
    session.sent(1);
    // An answer that is shared with others may be older than the CLEAR: after 10 it would go on where this client never was.
    let Some(ServerCommand::Read(requests)) = session.0.poll() else { panic!("expected Read") };
    assert_eq!((requests[0].after, requests[0].upto), (OpId(2), OpId(12)));
}

#[test]
fn a_changed_config_or_store_ends_the_stream() {
    for changed in [
        Checkpoint { config: config("b"), ..checkpoint(11) },
        Checkpoint { generation: Generation(2), ..checkpoint(11) },
    ] {
        let mut session = Conversation::begin(&[]);
        session.describe(&[], None);
        session.lines();
        let update = CheckpointUpdate { checkpoint: changed, touched: Touched::Unknown, resolved: resolved(&[]) };
        session.tell(ServerEvent::Checkpoint(update));
        assert_eq!(session.lines(), ["close"]);
    }
}

#[test]
fn after_its_end_a_session_says_nothing_although_a_sign_of_life_is_due() {
    let mut session = Conversation::begin(&[]);
    session.describe(&[], None);
    session.lines();
    session.0.handle(NOW + Duration::from_secs(20), WALL, ServerEvent::Closing).unwrap();
    assert_eq!(session.lines(), ["close"]);
}

#[test]
fn the_token_is_warned_of_and_ends_the_stream() {
    let identity = Identity::new("u").expires_at(WallTime(WALL.0 + 60_000));
    let mut session =
        Conversation(ServerSession::new(&identity, &SyncRequest::default(), SessionLimits::default(), NOW).unwrap());
    assert_eq!(session.0.poll_timeout(NOW, WALL), NOW + Duration::from_secs(20), "a sign of life");
    session.0.handle(NOW + Duration::from_secs(20), WallTime(WALL.0 + 20_000), ServerEvent::Tick).unwrap();
    assert_eq!(session.lines(), ["token 40"]);
    session.0.handle(NOW + Duration::from_secs(40), WallTime(WALL.0 + 40_000), ServerEvent::Tick).unwrap();
    assert_eq!(session.lines(), ["token 20"]);
    let late = NOW + Duration::from_secs(45);
    assert_eq!(session.0.poll_timeout(late, WallTime(WALL.0 + 45_000)), NOW + Duration::from_secs(60));
    session.0.handle(NOW + Duration::from_secs(60), WallTime(WALL.0 + 60_000), ServerEvent::Tick).unwrap();
    assert_eq!(session.lines(), ["token 0", "close"]);
}

#[test]
fn a_client_with_buckets_of_another_config_or_store_sees_the_first_checkpoint_as_a_whole() {
    let of = |definition: u32, generation: u32| bucket(definition).wire_name(Generation(generation)).to_string();
    for (name, partial) in [(of(1, 1), true), (of(2, 1), false), (of(1, 2), false), ("lists[]".into(), false)] {
        let request =
            SyncRequest { buckets: vec![BucketPosition { name, after: "4".into() }], ..SyncRequest::default() };
        let mut session =
            Conversation(ServerSession::new(&Identity::new("u"), &request, SessionLimits::default(), NOW).unwrap());
        let definition = |id: u32| DeployedDefinition { form: "".into(), id: DefinitionId(id) };
        let config = Arc::new(DeployedConfig { text: "a".into(), definitions: vec![definition(0), definition(1)] });
        let tell = |session: &mut Conversation, op_id: u64, resolved| {
            let checkpoint = Checkpoint { op_id: OpId(op_id), generation: Generation(1), config: Arc::clone(&config) };
            let touched = Touched::Unknown;
            session.tell(ServerEvent::Checkpoint(CheckpointUpdate { checkpoint, touched, resolved }));
        };
        tell(&mut session, 10, resolved(&[1, 3]));
        session.describe(&[2, 8], None);
        session.sent(1);
        session.read(vec![answer(1..=2, 10, false)]);
        let first = if partial { vec!["Data", "PartialComplete"] } else { vec!["Data"] };
        assert_eq!(session.sent(first.len()), first);
        session.read(vec![answer(3..=10, 10, false)]);
        assert_eq!(session.sent(2), ["Data", "Complete"]);
        // From then on all its rows are of this config.
        tell(&mut session, 20, None);
        session.describe(&[3, 9], None);
        session.sent(1);
        session.read(vec![answer(11..=11, 20, false)]);
        assert_eq!(session.sent(2), ["Data", "PartialComplete"]);
    }
}

#[test]
fn what_is_noted_for_a_session_that_takes_nothing_stays_small() {
    let mut noted = touched(&[]);
    for first in (0..1_000).step_by(100) {
        noted.merge(touched(&(first..first + 100).collect::<Vec<_>>()));
        noted.merge(touched(&[first]));
    }
    assert!(matches!(&noted, Touched::These { buckets, .. } if buckets.len() == 1_000));
    noted.merge(touched(&[1_000]));
    assert_eq!(noted, Touched::Unknown);
}

#[test]
fn a_client_resumes_where_it_stood() {
    let name = bucket(0).wire_name(Generation(1)).to_string();
    let request = SyncRequest { buckets: vec![BucketPosition { name, after: "4".into() }], ..SyncRequest::default() };
    let mut session =
        Conversation(ServerSession::new(&Identity::new("u"), &request, SessionLimits::default(), NOW).unwrap());
    session.checkpoint(10, Touched::Unknown, resolved(&[3]));
    session.describe(&[6], None);
    session.sent(1);
    let Some(ServerCommand::Read(requests)) = session.0.poll() else { panic!("expected Read") };
    assert_eq!((requests[0].after, requests[0].upto), (OpId(4), OpId(10)));
}

#[test]
fn a_client_resumes_where_it_stood_with_a_bucket_that_comes_before_the_first_line() {
    let names = [0, 1].map(|number| bucket(number).wire_name(Generation(1)).to_string());
    let position = |name| BucketPosition { name, after: "4".into() };
    let request = SyncRequest { buckets: names.map(position).into(), ..SyncRequest::default() };
    let mut session =
        Conversation(ServerSession::new(&Identity::new("u"), &request, SessionLimits::default(), NOW).unwrap());
    session.checkpoint(10, Touched::Unknown, these(&[0], 3));
    // Compaction went past the checkpoint before its sums were read, and by the next one the user has the other as well.
    let Some(ServerCommand::Describe { .. }) = session.0.poll() else { panic!("expected Describe") };
    session.tell(ServerEvent::Gone);
    session.checkpoint(12, touched(&[]), these(&[0, 1], 3));
    session.describe(&[6, 6], None);
    session.sent(1);
    let Some(ServerCommand::Read(requests)) = session.0.poll() else { panic!("expected Read") };
    assert_eq!(requests.iter().map(|read| read.after).collect::<Vec<_>>(), [OpId(4), OpId(4)]);
}

#[test]
fn a_position_that_is_no_number_is_refused() {
    let request =
        SyncRequest { buckets: vec![BucketPosition { name: "b".into(), after: "x".into() }], ..SyncRequest::default() };
    assert!(ServerSession::new(&Identity::new("u"), &request, SessionLimits::default(), NOW).is_err());
}
