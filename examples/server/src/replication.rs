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
        let stored = store.resume().await.context("the bucket store cannot be read")?.checkpoint;
        if stored.is_none() {
            return Err(error.into());
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
