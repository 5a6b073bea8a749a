//! A client's store on a device: every call takes a while before and after its effect, and may be dropped there by a crash
//! of the application.
//!
//! As with the bucket store, what returned was synced, and what is left of an effect in the middle of which the device lost
//! its power, its own disk decides. Of `stage`, which may take several transactions, a crash may leave a beginning.

use async_trait::async_trait;
use bytestring::ByteString;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Map, Value as Json};
use std::sync::Arc;

use super::faults::Faults;
use super::ledger::{Fact, Ledger};
use super::process::Process;
use super::random::Random;
use super::stores::WorldClientStore;
use super::virtual_time::VirtualTime;
use crate::bucket::BucketPriority;
use crate::client_store::{
    ClientState, ClientStore, PublishOutcome, PublishRequest, StoreLease, TargetCheckpoint, UploadSequence, UploadState,
};
use crate::error::{Error, Result};
use crate::local_transaction::{LocalTransaction, Uploaded};
use crate::operation::OpId;
use crate::protocol::DataLine;
use crate::time::WallTime;
use crate::write_checkpoint::WriteCheckpoint;

/// The store of one client. A handle.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) client: usize,
    pub(super) store: Arc<dyn WorldClientStore>,
    pub(super) time: VirtualTime,
    pub(super) random: Random,
    pub(super) ledger: Ledger,
    pub(super) faults: Faults,
}

impl Device {
    /// Half of a call: what lies before its effect, or after it.
    async fn half(&self) -> Result<()> {
        let (delay, fails) = {
            let faults = self.faults.lock();
            (faults.device_delay, faults.device_fails)
        };
        self.time.delay(self.random.between(0, delay)).await;
        if self.random.permille(fails) {
            return Err(Error::unavailable("the disk of the device is full"));
        }
        Ok(())
    }

    /// The effect of a call, in the middle of which the device may lose its power: then nobody hears of it.
    async fn effect<T>(
        &self,
        publish: Option<&PublishRequest>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let process = Process::Client(self.client);
        if !self.faults.dies_now(process) {
            return call.await;
        }
        let made = self.store.brace(self.random.next());
        if made {
            drop(call.await);
        }
        self.faults.lock().died.push((process, publish.filter(|_| made).cloned()));
        futures::future::pending().await
    }

    fn touched(&self) {
        self.ledger.record(Fact::Touched { client: self.client });
    }

    /// The buckets that the store has, with their positions; looks without changing anything.
    pub(super) async fn kept(&self) -> Result<Vec<(ByteString, OpId)>> {
        // Long before any subscription ends.
        let mut buckets = self.store.resume(WallTime(i64::MIN)).await?.buckets;
        buckets.retain(|(_, after)| *after > OpId::ZERO);
        Ok(buckets)
    }
}

#[async_trait]
impl ClientStore for Device {
    async fn lease(&self) -> Result<StoreLease> {
        self.store.lease().await
    }

    async fn resume(&self, now: WallTime) -> Result<ClientState> {
        self.half().await?;
        let state = self.store.resume(now).await?;
        self.ledger.record(Fact::Resumed { client: self.client, state: Box::new(state.clone()) });
        self.half().await?;
        Ok(state)
    }

    async fn subscribe(
        &self,
        stream: &str,
        parameters: &Map<String, Json>,
        priority: Option<BucketPriority>,
        expires_at: Option<WallTime>,
    ) -> Result<()> {
        self.half().await?;
        self.effect(None, self.store.subscribe(stream, parameters, priority, expires_at)).await?;
        self.half().await
    }

    async fn begin_checkpoint(&self, target: &Arc<TargetCheckpoint>) -> Result<()> {
        self.half().await?;
        self.effect(None, self.store.begin_checkpoint(target)).await?;
        self.touched();
        self.half().await
    }

    async fn stage(&self, lines: &[DataLine]) -> Result<()> {
        for line in lines {
            self.half().await?;
            self.effect(None, self.store.stage(std::slice::from_ref(line))).await?;
            self.touched();
        }
        self.half().await
    }

    async fn publish(&self, request: &PublishRequest) -> Result<PublishOutcome> {
        self.half().await?;
        let outcome = self.effect(Some(request), self.store.publish(request)).await?;
        let last_synced_at = self.store.resume(WallTime(i64::MIN)).await?.last_synced_at;
        self.ledger.record(Fact::Published {
            client: self.client,
            request: Box::new(request.clone()),
            outcome: outcome.clone(),
            kept: self.kept().await?,
            last_synced_at,
        });
        self.half().await?;
        Ok(outcome)
    }

    async fn upload_state(&self) -> Result<UploadState> {
        self.half().await?;
        self.store.upload_state().await
    }

    async fn next_upload(&self) -> Result<Option<LocalTransaction>> {
        self.half().await?;
        self.store.next_upload().await
    }

    async fn finish_upload(&self, transaction: &LocalTransaction, outcome: &Uploaded) -> Result<()> {
        self.half().await?;
        self.effect(None, self.store.finish_upload(transaction, outcome)).await?;
        self.touched();
        self.half().await
    }

    async fn cover(&self, upto: UploadSequence, checkpoint: WriteCheckpoint) -> Result<()> {
        self.half().await?;
        self.effect(None, self.store.cover(upto, checkpoint)).await?;
        self.touched();
        self.half().await
    }

    fn upload_changes(&self) -> BoxStream<'static, ()> {
        let (faults, random) = (self.faults.clone(), self.random.clone());
        let changes = self.store.upload_changes().filter(move |()| {
            let lost = random.permille(faults.lock().signals_lost);
            futures::future::ready(!lost)
        });
        changes.boxed()
    }
}
