//! The database as the store of a sync client.

use std::sync::Arc;

use futures::stream::BoxStream;
use rusqlite::Connection;
use serde_json::{Map, Value as Json};
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, ClientState, ClientStore, LocalTransaction, PublishOutcome, PublishRequest, StoreLease,
    TargetCheckpoint, UploadSequence, UploadState, Uploaded, WallTime, WriteCheckpoint, async_trait,
};

use super::changes::{Listener, QUEUE};
use super::error::{Error, Result};
use super::handle::Database;
use super::publish::Publishing;
use super::row_writer::remove_obstacles;
use super::stage::{self, Staging};
use super::writer::{ask, ask_in_steps};
use super::{lease, subscriptions, upload_queue};

impl Database {
    /// A short transaction of sync, in line with the application's own.
    async fn sync_write<R: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<R> + Send + 'static,
    ) -> syncline_core::Result<R> {
        Ok(ask(self.writer(), move |writer| Ok(writer.transaction(|conn, _| write(conn)))).await?)
    }

    /// The same for the upload queue, whose watchers are told.
    async fn queue_write(
        &self,
        write: impl FnOnce(&Connection) -> Result<()> + Send + 'static,
    ) -> syncline_core::Result<()> {
        Ok(ask(self.writer(), move |writer| Ok(writer.queue_transaction(write))).await?)
    }
}

#[async_trait]
impl ClientStore for Database {
    /// The lock is a file beside the database, called like it with `-sync` at the end.
    async fn lease(&self) -> syncline_core::Result<StoreLease> {
        lease::take(self.path())
    }

    async fn resume(&self, now: WallTime) -> syncline_core::Result<ClientState> {
        self.sync_write(move |conn| {
            let mut statement = conn.prepare_cached("SELECT client_id, last_synced_at FROM syncline_state")?;
            let (client_id, last_synced_at): (String, Option<i64>) =
                statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(ClientState {
                client_id: client_id.into(),
                buckets: stage::positions(conn)?,
                subscriptions: subscriptions::resume(conn, now)?,
                last_synced_at: last_synced_at.map(WallTime),
                uploads: upload_queue::state(conn)?,
            })
        })
        .await
    }

    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> syncline_core::Result<()> {
        let (stream, parameters) = (stream.to_owned(), parameters.clone());
        self.sync_write(move |conn| subscriptions::record(conn, &stream, &parameters, priority, expires_at)).await
    }

    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> syncline_core::Result<()> {
        let target = Arc::clone(target);
        let begun = ask_in_steps(self.writer(), move |writer| {
            writer.transaction(|conn, _| stage::begin_checkpoint(conn, &target)).map(Some)
        });
        Ok(begun.await?)
    }

    async fn stage(&self, lines: &[DataLine]) -> syncline_core::Result<()> {
        let mut staging = Staging::new(lines.to_vec());
        Ok(ask_in_steps(self.writer(), move |writer| staging.step(writer)).await?)
    }

    async fn publish(&self, request: &PublishRequest) -> syncline_core::Result<PublishOutcome> {
        loop {
            let mut publishing = Publishing::new(request.clone());
            let published = ask_in_steps(self.writer(), move |writer| publishing.step(writer)).await;
            let Err(Error::Obstructed { table, cause }) = published else { return Ok(published?) };
            // C8. Each round removes something, so there are few.
            let (name, reason) = (table.clone(), cause.to_string());
            let removed = self.sync_write(move |conn| remove_obstacles(conn, &name, &reason)).await?;
            if !removed {
                return Err(Error::Obstructed { table, cause }.into());
            }
        }
    }

    async fn upload_state(&self) -> syncline_core::Result<UploadState> {
        Ok(self.read(upload_queue::state).await?)
    }

    async fn next_upload(&self) -> syncline_core::Result<Option<LocalTransaction>> {
        Ok(self.read(|conn| Ok(upload_queue::unsent(conn, 1)?.pop())).await?)
    }

    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> syncline_core::Result<()> {
        let (transaction, outcome) = (transaction.clone(), outcome.clone());
        self.queue_write(move |conn| upload_queue::finish(conn, &transaction, &outcome)).await
    }

    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> syncline_core::Result<()> {
        self.queue_write(move |conn| upload_queue::cover(conn, upto, checkpoint)).await
    }

    fn upload_changes(&self) -> BoxStream<'static, ()> {
        let listener = Listener::new(self.hub(), Some([QUEUE.to_owned()].into()));
        Box::pin(futures::stream::unfold(listener, |listener| async move {
            listener.changed().await.then_some(((), listener))
        }))
    }
}
