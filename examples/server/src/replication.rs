//! Replication as the program runs it: what is stored is served on when a person is needed, and the log says how it goes.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use syncline_core::{BucketStore, Replicator};
use tokio::time::{Instant, interval, sleep};

use crate::status_log::StatusLog;

/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Replicates, and tries again every `retry` after it has stopped for a person: rows that grow old are of more use than
/// none, and what is mended is noticed.
///
/// # Errors
/// What replication stopped with, if the store has nothing to serve.
pub(crate) async fn run(replicator: &Replicator, store: &dyn BucketStore, retry: Duration) -> Result<()> {
    loop {
        let Err(error) = replicator.run().await else { return Ok(()) };
        match store.resume().await {
            Ok(stored) if stored.checkpoint.is_none() => return Err(error.into()),
            Ok(_) => {}
            // It may come back, with what it had.
            Err(away) if away.is_transient() => tracing::error!(error = %away, "the bucket store cannot be read now"),
            Err(broken) => return Err(broken).context("the bucket store cannot be read"),
        }
        tracing::error!(
            %error,
            retry_in_s = retry.as_secs(),
            "REPLICATION HAS STOPPED and needs a person; what is stored is served, and grows old"
        );
        sleep(retry).await;
    }
}

/// Writes to the log what changes in the status of replication, for ever.
pub(crate) async fn log_status(replicator: &Replicator) -> Infallible {
    let mut log = StatusLog::default();
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        for news in log.news(&replicator.status(), Instant::now().into_std()) {
            tracing::info!("{news}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use syncline_core::memory::{MemoryBucketStore, MemorySource};
    use syncline_core::{
        Error, MarkerToken, Reread, RowKey, Source, SourcePosition, SourceStart, SourceTable, SyncConfig, async_trait,
    };

    use super::*;

    const SYNC: &str =
        "{ config: { edition: 3 }, streams: { all: { auto_subscribe: true, query: SELECT * FROM lists } } }";
    const LIMIT: Duration = Duration::from_secs(20);

    /// Needs a person whenever it is opened.
    #[derive(Debug, Clone, Default)]
    struct Broken(Arc<AtomicUsize>);

    type Events = syncline_core::Result<Vec<syncline_core::SourceEvent>>;

    #[async_trait]
    impl Source for Broken {
        async fn events(
            &self,
            _: SourceStart,
        ) -> syncline_core::Result<std::pin::Pin<Box<dyn futures::Stream<Item = Events> + Send>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(Error::invalid("a person is needed"))
        }

        fn acknowledge(&self, _: &SourcePosition) {}

        async fn emit_marker(&self, _: &MarkerToken) -> syncline_core::Result<()> {
            Ok(())
        }

        async fn reread(&self, _: &SourceTable, _: &[RowKey]) -> syncline_core::Result<Reread> {
            Err(Error::invalid("a person is needed"))
        }
    }

    #[tokio::test]
    async fn replication_is_tried_again_while_something_can_be_served_and_ends_if_nothing_can() {
        let (store, source, config) = (MemoryBucketStore::new(), Broken::default(), SyncConfig::parse(SYNC).unwrap());
        let broken = Replicator::new(source.clone(), config.clone(), store.clone());
        let ended = tokio::time::timeout(LIMIT, run(&broken, &store, Duration::from_millis(1))).await.unwrap();
        assert!(ended.unwrap_err().to_string().contains("a person is needed"));
        assert_eq!(source.0.load(Ordering::Relaxed), 1);

        let filled = Replicator::new(MemorySource::new().table("lists", ["id"]), config, store.clone());
        let checkpoint = async {
            while store.resume().await.unwrap().checkpoint.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            outcome = filled.run() => panic!("{outcome:?}"),
            outcome = tokio::time::timeout(LIMIT, checkpoint) => outcome.unwrap(),
        }
        let tried = async {
            while source.0.load(Ordering::Relaxed) < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            outcome = run(&broken, &store, Duration::from_millis(1)) => panic!("it ended: {outcome:?}"),
            outcome = tokio::time::timeout(LIMIT, tried) => outcome.unwrap(),
        }
    }
}
