//! The one that writes: its transaction, and what it knows of the committed state.

use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::Connection;
use syncline_core::{
    ChangeCollector, Checkpoint, CheckpointFeed, Commit, DeployedConfig, Error, MarkerFeed, OpId, Result, Resume,
    SourceState, assign_definitions,
};

use super::appending::Staged;
use super::bucket_cache::BucketCache;
use super::compacting::Sweeper;
use super::meta::{Meta, StoredConfig, load_state, random_generation, save_state};
use super::sqlite_error::failed;
use super::wal::Wal;
use super::write_requests::WriteRequests;
use crate::failpoint;

/// Names of rows in `states`.
const SOURCE: &str = "source";
const REPLICATOR: &str = "replicator";

/// The writing connection, on its thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// As of the last commit.
    pub(super) meta: Meta,
    pub(super) cache: BucketCache,
    /// What the open transaction appended.
    pub(super) staged: Option<Staged>,
    /// Whether something failed half-way: only `resume` and `reset` are possible.
    pub(super) failed: bool,
    pub(super) sweeper: Sweeper,
    checkpoints: CheckpointFeed,
    markers: MarkerFeed,
    requests: Arc<Mutex<WriteRequests>>,
    /// None in memory.
    pub(super) wal: Option<Wal>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        meta: Meta,
        checkpoints: CheckpointFeed,
        markers: MarkerFeed,
        requests: Arc<Mutex<WriteRequests>>,
    ) -> Self {
        if meta.last_op > meta.published_op().0 {
            // Committed before this process and not published: nobody knows any more what it was.
            checkpoints.record(ChangeCollector::unknown());
        }
        Self {
            connection,
            meta,
            cache: BucketCache::default(),
            staged: None,
            failed: false,
            sweeper: Sweeper::default(),
            checkpoints,
            markers,
            requests,
            wal: None,
        }
    }

    /// Fails if an earlier call failed half-way.
    pub(super) fn check(&self) -> Result<()> {
        if self.failed {
            return Err(Error::unavailable("an earlier append or commit failed; start again from resume"));
        }
        Ok(())
    }

    /// Opens the transaction unless it is open.
    pub(super) fn begin(&self) -> Result<()> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(failed("cannot begin a transaction"))?;
        }
        Ok(())
    }

    /// Forgets what is not committed, and reads again where the store stands.
    pub(super) fn roll_back(&mut self) -> Result<()> {
        if !self.failed && self.staged.is_none() && self.connection.is_autocommit() {
            return Ok(());
        }
        self.staged = None;
        self.cache.clear();
        // What an unfinished sweep saw may just have become undone.
        self.sweeper = Sweeper::default();
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").map_err(failed("cannot roll back"))?;
        }
        self.meta = Meta::load(&self.connection)?;
        if self.failed {
            self.deliver_confirmed(self.meta.published_op())?;
            // A commit whose outcome was unknown may have succeeded.
            self.checkpoints.record(ChangeCollector::unknown());
            if let Some(checkpoint) = self.meta.checkpoint() {
                self.checkpoints.publish(checkpoint);
            }
            self.failed = false;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<Resume> {
        self.roll_back()?;
        Ok(Resume {
            generation: self.meta.generation,
            position: self.meta.position.clone(),
            source_state: load_state(&self.connection, SOURCE)?.map(SourceState),
            replicator_state: load_state(&self.connection, REPLICATOR)?,
            config: self.meta.config().cloned(),
            checkpoint: self.meta.checkpoint(),
        })
    }

    pub(super) fn commit(&mut self, commit: Commit) -> Result<Option<Checkpoint>> {
        self.check()?;
        if commit.publish && commit.deploy.is_none() && self.meta.deployed.is_none() {
            return Err(Error::invalid("a checkpoint cannot be published before a config was deployed"));
        }
        // Set back at the very end: whatever returns early leaves a half-written transaction.
        self.failed = true;
        let published = self.meta.published_op();
        let clients = self.requests()?.waiting_for(&commit.markers)?;
        let confirms = self.staged.as_ref().is_some_and(|staged| staged.confirms);
        let mut rising = ChangeCollector::new();
        clients.iter().for_each(|client| rising.client(client));
        if confirms {
            self.requests()?.note_rising(&self.connection, &mut rising)?;
        }
        let mut meta = self.meta.clone();
        if let Some(staged) = &self.staged {
            meta.last_op = staged.last_op;
        }
        let mut config_changed = false;
        if let Some(deploy) = &commit.deploy {
            let deployed = self.meta.config().map(|config| &**config);
            let definitions = assign_definitions(deploy, deployed, &mut meta.next_definition);
            let config = DeployedConfig { text: deploy.text.clone(), definitions };
            config_changed = deployed != Some(&config);
            if config_changed {
                self.begin()?;
                meta.deployed = Some(StoredConfig::save(&self.connection, Arc::new(config))?);
            }
        }
        let taken = published.0.max(meta.floor.0.saturating_sub(1));
        if (config_changed || !rising.is_empty()) && meta.last_op == taken {
            // So that every checkpoint has its own id, which none of before a reset had.
            meta.last_op += 1;
        }
        meta.position = commit.position.or(meta.position);
        if commit.publish
            && meta.last_op > published.0
            && let Some(deployed) = &meta.deployed
        {
            meta.published = Some((OpId(meta.last_op), deployed.clone()));
        }
        let mut changes = self.write(&commit.source_state, &commit.replicator_state, meta, config_changed)?;
        // From here on the commit is durable.
        changes.merge(rising);
        if confirms {
            // If it fails, nobody is told of the checkpoint: `resume` does it again, and tells then.
            self.deliver_confirmed(published)?;
        }
        let resolved = match clients.is_empty() {
            true => Ok(()),
            false => self.requests()?.resolve(&commit.markers, self.meta.last_op, published),
        };
        // Markers stay pending if they could not be confirmed: they are sent again, and confirmed later.
        if resolved.is_ok() {
            self.markers.resolve(&commit.markers);
        }
        self.checkpoints.record(changes);
        let checkpoint = self.meta.checkpoint().filter(|checkpoint| checkpoint.op_id > published);
        if let Some(checkpoint) = &checkpoint {
            self.checkpoints.publish(checkpoint.clone());
        }
        resolved?;
        self.failed = false;
        if let Some(wal) = &mut self.wal {
            wal.trim(&self.connection);
        }
        Ok(checkpoint)
    }

    /// Writes what is staged and where the store stands, and commits.
    fn write(
        &mut self,
        source_state: &Option<SourceState>,
        replicator_state: &Option<bytes::Bytes>,
        meta: Meta,
        config_changed: bool,
    ) -> Result<ChangeCollector> {
        let mut changes = ChangeCollector::new();
        if self.staged.is_none() && meta == self.meta && source_state.is_none() && replicator_state.is_none() {
            return Ok(changes);
        }
        self.begin()?;
        self.flush_all()?;
        if let Some(state) = source_state {
            save_state(&self.connection, SOURCE, &state.0)?;
        }
        if let Some(state) = replicator_state {
            save_state(&self.connection, REPLICATOR, state)?;
        }
        // Compaction within the open transaction may have raised it.
        let meta = Meta { lookup_floor: self.meta.lookup_floor, ..meta };
        meta.save(&self.connection)?;
        if config_changed || meta.published.as_ref().map(|(_, config)| config) != self.published_config() {
            meta.forget_configs(&self.connection)?;
        }
        failpoint::reach("commit.before");
        self.connection.execute_batch("COMMIT").map_err(failed("cannot commit"))?;
        failpoint::reach("commit.after");
        self.meta = meta;
        if let Some(staged) = self.staged.take() {
            changes = staged.into_changes();
        }
        Ok(changes)
    }

    /// Brings what the source confirmed, and the last commit with any made durable, into the record of requests.
    fn deliver_confirmed(&self, published: OpId) -> Result<()> {
        self.requests()?.confirm(&self.connection, self.meta.last_op, published)
    }

    fn published_config(&self) -> Option<&StoredConfig> {
        self.meta.published.as_ref().map(|(_, config)| config)
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        self.failed = true;
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").map_err(failed("cannot roll back"))?;
        }
        self.staged = None;
        self.cache.clear();
        self.sweeper = Sweeper::default();
        let old = Meta::load(&self.connection)?;
        // Ids go on rising, so that nothing of before can be taken for something of after.
        let meta = Meta {
            generation: random_generation(),
            last_op: old.last_op,
            next_definition: old.next_definition,
            floor: OpId(old.last_op + 1),
            lookup_floor: OpId(old.last_op + 1),
            ..Meta::new()
        };
        self.begin()?;
        self.connection
            .execute_batch(
                "DELETE FROM contents; DELETE FROM chunks; DELETE FROM source_rows; DELETE FROM lookups;
                 DELETE FROM buckets; DELETE FROM configs; DELETE FROM states;
                 DELETE FROM confirmed;",
            )
            .map_err(failed("cannot reset the bucket store"))?;
        meta.save(&self.connection)?;
        self.connection.execute_batch("COMMIT").map_err(failed("cannot reset the bucket store"))?;
        self.meta = meta;
        self.checkpoints.reset();
        let generation = self.meta.generation;
        self.requests()?.reset(generation, &self.markers)?;
        self.failed = false;
        Ok(())
    }

    fn requests(&self) -> Result<MutexGuard<'_, WriteRequests>> {
        self.requests.lock().map_err(|_| Error::internal("the thread of write checkpoints panicked"))
    }
}
