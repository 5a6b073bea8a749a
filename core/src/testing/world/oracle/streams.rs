//! S6, S7 and S8: what a stream may say, to whom, and for how long.

use std::collections::BTreeSet;

use bytestring::ByteString;

use super::failure::{Failure, Verdict, holds};
use super::{Oracle, StreamModel};
use crate::bucket::BucketId;
use crate::checkpoint::DeployedConfig;
use crate::operation::OpId;
use crate::protocol::ClientLine;
use crate::write_checkpoint::WriteCheckpoint;

/// A stream may go on for so long after its token's end, in milliseconds.
const GRACE: u64 = 60_000;

impl Oracle {
    /// S6: a checkpoint that shows a client's write checkpoint lies at or behind every commit that there was when that
    /// number was given, and no stream's number falls.
    pub(super) fn s6_write_checkpoints_tell_the_truth(
        &mut self,
        stream: u64,
        at: OpId,
        number: Option<WriteCheckpoint>,
    ) -> Verdict {
        let Some(model) = self.streams.get_mut(&stream) else { return Ok(()) };
        let before = std::mem::replace(&mut model.write_checkpoint, number);
        holds("S6", number >= before, || {
            format!("stream {stream} went from write checkpoint {before:?} to {number:?}")
        })?;
        let (Some(number), Some(shown)) = (number, self.shown.get(&at)) else { return Ok(()) };
        let key = &self.clients[model.client].key;
        let given = self.given.get(key).into_iter().flatten().filter(|(one, _)| **one <= number.0);
        let needed = given.map(|(_, commits)| *commits).max().unwrap_or(0);
        holds("S6", needed <= shown.commits, || {
            format!(
                "checkpoint {at} shows write checkpoint {number} at commit {}, asked for at {needed}",
                shown.commits
            )
        })
    }

    /// S7: each checkpoint line leaves a stream with exactly the buckets that its verified identity and parameters yield from
    /// the lookups at that checkpoint, and data comes of those alone.
    ///
    /// That their rows are those that a client may see shows in S4 and C1.
    pub(super) fn s7_streams_have_their_own_buckets(&mut self, stream: u64, line: &ClientLine) -> Verdict {
        match line {
            ClientLine::Checkpoint(line) => {
                let are = line.buckets.iter().map(|bucket| bucket.bucket.clone()).collect();
                self.has_its_own(stream, line.last_op_id, are)
            }
            ClientLine::CheckpointDiff(line) => {
                let Some(model) = self.streams.get(&stream) else { return Ok(()) };
                let mut are = model.buckets.clone();
                let gone = line.removed_buckets.iter().find(|name| !are.remove(*name));
                holds("S7", gone.is_none(), || format!("stream {stream} loses {gone:?}, which it never had"))?;
                are.extend(line.updated_buckets.iter().map(|bucket| bucket.bucket.clone()));
                self.has_its_own(stream, line.last_op_id, are)
            }
            ClientLine::Data(line) => {
                let own = self.streams.get(&stream).is_none_or(|model| model.buckets.contains(&line.bucket));
                holds("S7", own, || format!("stream {stream} brings data of {}", line.bucket))
            }
            _ => Ok(()),
        }
    }

    /// S7 as well: no stream is open any more when its token has been over for 60 s, by the server's time of day, whether it
    /// says anything or not.
    pub(super) fn s7_streams_end_with_their_token(&self, now: u64) -> Verdict {
        let late = |model: &StreamModel| model.expired_at.is_some_and(|over| now > over + GRACE);
        let open = self.streams.iter().find(|(_, model)| late(model));
        holds("S7", open.is_none(), || {
            let (stream, over) = open.map_or((0, 0), |(stream, model)| (*stream, model.expired_at.unwrap_or(now)));
            format!("stream {stream} is still open {} ms after the end of its token", now.saturating_sub(over))
        })
    }

    /// S8: all lines of a stream are of one config and one store.
    ///
    /// That a switch shows no partial publish is looked at where a client publishes.
    pub(super) fn s8_a_stream_has_one_config(&mut self, stream: u64, at: OpId) -> Verdict {
        let Some(model) = self.streams.get_mut(&stream) else { return Ok(()) };
        let Some(shown) = self.shown.get(&at) else {
            let what = format!("stream {stream} names checkpoint {at}, which was never published");
            return Err(Failure { invariant: "S8", what });
        };
        let origin = model.origin.get_or_insert_with(|| shown.checkpoint.clone());
        let same = origin.generation == shown.checkpoint.generation && *origin.config == *shown.checkpoint.config;
        holds("S8", same, || format!("stream {stream} began with another config than that of checkpoint {at}"))
    }

    /// S8 as well: see [above](Self::s8_a_stream_has_one_config).
    pub(super) fn s8_a_switch_is_never_shown_in_parts(&self, client: usize, at: OpId) -> Verdict {
        let (Some(before), Some(now)) = (self.shown.get(&self.clients[client].based_on), self.shown.get(&at)) else {
            return Ok(());
        };
        // The same config in another store is no switch: what is shown are rows of the same tables and streams. Nor is one
        // that means the same and has another text; and beside nothing there is nothing to be mixed with.
        let (before, now) = (&before.checkpoint.config, &now.checkpoint.config);
        let forms = |config: &DeployedConfig| config.definitions.iter().map(|one| one.form.clone()).collect::<Vec<_>>();
        let same = before.text == now.text || forms(before) == forms(now);
        let alone = self.clients[client].base.is_empty();
        holds("S8", same || alone, || {
            format!("client {client} shows a part of checkpoint {at}, which is of another config")
        })
    }

    fn has_its_own(&mut self, stream: u64, at: OpId, are: BTreeSet<ByteString>) -> Verdict {
        let (Some(StreamModel { client, identity, subscriptions, .. }), Some(shown)) =
            (self.streams.get(&stream), self.shown.get(&at))
        else {
            return Ok(());
        };
        let config = self.expected.number(&shown.checkpoint.config.text);
        let resolved = self.expected.resolved(config, shown.commits, identity, subscriptions).into_iter();
        let should_be: BTreeSet<ByteString> = resolved
            .filter_map(|((index, parameters), _)| {
                let definition = shown.checkpoint.config.definitions.get(index)?;
                Some(BucketId { definition: definition.id, parameters }.wire_name(shown.checkpoint.generation))
            })
            .collect();
        holds("S7", are == should_be, || {
            format!("stream {stream} of client {client} has {are:?}, not {should_be:?}, at checkpoint {at}")
        })?;
        if let Some(model) = self.streams.get_mut(&stream) {
            model.buckets = are;
        }
        Ok(())
    }
}
