//! What of the status of replication is worth a line in the log.

use std::time::{Duration, Instant};

use syncline_core::{ReplicationPhase, ReplicationStatus, SnapshotProgress};

/// Progress is told at most so often.
const PROGRESS: Duration = Duration::from_secs(5);
/// What holds back checkpoints is told when it has done so for so long: it is normal for a moment.
const BLOCKED: Duration = Duration::from_secs(2);

/// Compares each status with what was told before.
#[derive(Debug, Default)]
pub(crate) struct StatusLog {
    phase: ReplicationPhase,
    progress: Option<(SnapshotProgress, Instant)>,
    /// What blocks, since when, and whether it was told.
    blocked: Option<(&'static str, Instant, bool)>,
}

impl StatusLog {
    /// The lines that this status is worth.
    pub(crate) fn news(&mut self, status: &ReplicationStatus, now: Instant) -> Vec<String> {
        let mut news = Vec::new();
        self.phase(status.phase, &mut news);
        let reading = status.snapshot.as_ref().filter(|_| status.phase == ReplicationPhase::Snapshot);
        self.progress(reading, now, &mut news);
        self.blocked(status.blocked_by, now, &mut news);
        news
    }

    fn phase(&mut self, phase: ReplicationPhase, news: &mut Vec<String>) {
        // Between attempts it waits and connects in turn; each failure is a warning of its own already.
        let attempt = |phase| matches!(phase, ReplicationPhase::Waiting | ReplicationPhase::Connecting);
        if phase == self.phase || (attempt(phase) && attempt(self.phase)) {
            return;
        }
        self.phase = phase;
        let text = match phase {
            ReplicationPhase::Stopped => "replication is stopped",
            ReplicationPhase::Connecting => "replication connects to the source",
            ReplicationPhase::Snapshot => "replication reads a snapshot",
            ReplicationPhase::Streaming => "replication follows the stream",
            ReplicationPhase::Waiting => "replication waits before it tries again",
        };
        news.push(text.to_owned());
    }

    fn progress(&mut self, progress: Option<&SnapshotProgress>, now: Instant, news: &mut Vec<String>) {
        let Some(progress) = progress else {
            self.progress = None;
            return;
        };
        if let Some((told, at)) = &self.progress
            && (told == progress || now < *at + PROGRESS)
        {
            return;
        }
        let SnapshotProgress { table, rows, estimated, tables_done, tables } = progress;
        let of = estimated.map_or_else(String::new, |estimated| format!(" of about {estimated}"));
        news.push(format!("snapshot: table {table}, {rows} rows{of}; {tables_done} of {tables} tables are complete"));
        self.progress = Some((progress.clone(), now));
    }

    fn blocked(&mut self, blocker: Option<&'static str>, now: Instant, news: &mut Vec<String>) {
        let Some(reason) = blocker else {
            if let Some((_, _, true)) = self.blocked.take() {
                news.push("checkpoints go on".to_owned());
            }
            return;
        };
        let (known, since, told) = self.blocked.get_or_insert((reason, now, false));
        if *known != reason {
            // Whether the one before was told decides whether going on is news.
            (*known, *since) = (reason, now);
            *told = false;
        }
        if !*told && now >= *since + BLOCKED {
            *told = true;
            news.push(format!("no new checkpoint for now: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: ReplicationPhase) -> ReplicationStatus {
        ReplicationStatus { phase, ..ReplicationStatus::default() }
    }

    #[test]
    fn phases_are_told_when_they_change_and_attempts_once() {
        let (mut log, now) = (StatusLog::default(), Instant::now());
        assert!(log.news(&status(ReplicationPhase::Stopped), now).is_empty());
        assert_eq!(log.news(&status(ReplicationPhase::Connecting), now), ["replication connects to the source"]);
        for phase in [ReplicationPhase::Waiting, ReplicationPhase::Connecting, ReplicationPhase::Waiting] {
            assert!(log.news(&status(phase), now).is_empty());
        }
        assert_eq!(log.news(&status(ReplicationPhase::Streaming), now), ["replication follows the stream"]);
        assert_eq!(log.news(&status(ReplicationPhase::Waiting), now), ["replication waits before it tries again"]);
    }

    #[test]
    fn progress_is_told_now_and_then() {
        let (mut log, begun) = (StatusLog::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..12 {
            let progress = SnapshotProgress {
                table: "todos".into(),
                rows: 1_000 * second,
                estimated: Some(12_000),
                tables_done: 1,
                tables: 2,
            };
            let reading = ReplicationStatus { snapshot: Some(progress), ..status(ReplicationPhase::Snapshot) };
            told.extend(log.news(&reading, begun + Duration::from_secs(second)));
        }
        let line = |rows: u64| format!("snapshot: table todos, {rows} rows of about 12000; 1 of 2 tables are complete");
        assert_eq!(told, ["replication reads a snapshot".to_owned(), line(0), line(5_000), line(10_000)]);
    }

    #[test]
    fn what_blocks_is_told_once_it_lasts_and_when_it_ends() {
        let (mut log, begun) = (StatusLog::default(), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        let streaming = status(ReplicationPhase::Streaming);
        let blocked = ReplicationStatus { blocked_by: Some("a snapshot is not complete"), ..streaming.clone() };
        log.news(&streaming, at(0));
        assert!(log.news(&blocked, at(1)).is_empty());
        assert!(log.news(&streaming, at(2)).is_empty(), "it was over before it was told");
        assert!(log.news(&blocked, at(3)).is_empty());
        assert_eq!(log.news(&blocked, at(6)), ["no new checkpoint for now: a snapshot is not complete"]);
        assert!(log.news(&blocked, at(9)).is_empty());
        assert_eq!(log.news(&streaming, at(10)), ["checkpoints go on"]);
    }
}
