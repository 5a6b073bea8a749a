//! The one row that says where a store stands.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use syncline_core::{Checkpoint, DeployedConfig, Error, Generation, OpId, Result, SourcePosition};
use uuid::Uuid;

use super::sqlite_error::{failed, signed, unsigned};

/// Where the store stands as of the last commit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meta {
    pub(super) generation: Generation,
    pub(super) last_op: u64,
    pub(super) next_definition: u32,
    pub(super) position: Option<SourcePosition>,
    pub(super) deployed: Option<StoredConfig>,
    pub(super) published: Option<(OpId, StoredConfig)>,
    pub(super) floor: OpId,
    pub(super) lookup_floor: OpId,
}

/// A config and the row that holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredConfig {
    id: i64,
    pub(super) config: Arc<DeployedConfig>,
}

/// Random, so that the buckets of two stores never share a name.
pub(super) fn random_generation() -> Generation {
    let bytes = Uuid::new_v4().into_bytes();
    Generation(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Meta {
    /// That of a new store.
    pub(super) fn new() -> Self {
        Self {
            generation: random_generation(),
            last_op: 0,
            next_definition: 1,
            position: None,
            deployed: None,
            published: None,
            floor: OpId::ZERO,
            lookup_floor: OpId::ZERO,
        }
    }

    pub(super) fn published_op(&self) -> OpId {
        self.published.as_ref().map_or(OpId::ZERO, |(op_id, _)| *op_id)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let (op_id, stored) = self.published.as_ref()?;
        Some(Checkpoint { op_id: *op_id, generation: self.generation, config: Arc::clone(&stored.config) })
    }

    pub(super) fn config(&self) -> Option<&Arc<DeployedConfig>> {
        self.deployed.as_ref().map(|stored| &stored.config)
    }

    /// Definitions that are deployed or published.
    pub(super) fn is_live(&self, definition: u32) -> bool {
        let configs = self.deployed.iter().chain(self.published.as_ref().map(|(_, stored)| stored));
        configs.flat_map(|stored| &stored.config.definitions).any(|one| one.id.0 == definition)
    }

    pub(super) fn load(connection: &Connection) -> Result<Self> {
        let failed = failed("cannot read where the bucket store stands");
        let row = connection
            .prepare_cached(
                "SELECT generation, last_op, next_definition, position, deployed, published_op, published_config,
                        floor, lookup_floor
                 FROM meta",
            )
            .and_then(|mut statement| {
                statement.query_row([], |row| {
                    let published = row.get::<_, Option<i64>>(5)?.zip(row.get::<_, Option<i64>>(6)?);
                    let meta = Self {
                        generation: Generation(row.get(0)?),
                        last_op: unsigned(row.get(1)?),
                        next_definition: row.get(2)?,
                        position: row.get::<_, Option<Vec<u8>>>(3)?.map(|bytes| SourcePosition(bytes.into())),
                        deployed: None,
                        published: None,
                        floor: OpId(unsigned(row.get(7)?)),
                        lookup_floor: OpId(unsigned(row.get(8)?)),
                    };
                    Ok((meta, row.get::<_, Option<i64>>(4)?, published))
                })
            })
            .map_err(&failed)?;
        let (mut meta, deployed, published) = row;
        meta.deployed = deployed.map(|id| StoredConfig::load(connection, id)).transpose()?;
        if let Some((op_id, id)) = published {
            meta.published = Some((OpId(unsigned(op_id)), StoredConfig::load(connection, id)?));
        }
        Ok(meta)
    }

    /// The same of a store that may have been made half way.
    pub(super) fn load_if_any(connection: &Connection) -> Result<Option<Self>> {
        if Self::is_there(connection)? { Self::load(connection).map(Some) } else { Ok(None) }
    }

    /// Writes the row unless there is one.
    pub(super) fn save_first(&self, connection: &Connection) -> Result<()> {
        if Self::is_there(connection)? { Ok(()) } else { self.save(connection) }
    }

    fn is_there(connection: &Connection) -> Result<bool> {
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM meta)", [], |row| row.get(0))
            .map_err(failed("cannot read where the bucket store stands"))
    }

    pub(super) fn save(&self, connection: &Connection) -> Result<()> {
        let failed = failed("cannot write where the bucket store stands");
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO meta (id, generation, last_op, next_definition, position, deployed,
                    published_op, published_config, floor, lookup_floor)
                 VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    self.generation.0,
                    signed(self.last_op),
                    self.next_definition,
                    self.position.as_ref().map(|position| &position.0[..]),
                    self.deployed.as_ref().map(|stored| stored.id),
                    self.published.as_ref().map(|(op_id, _)| signed(op_id.0)),
                    self.published.as_ref().map(|(_, stored)| stored.id),
                    signed(self.floor.0),
                    signed(self.lookup_floor.0),
                ])
            })
            .map_err(&failed)?;
        Ok(())
    }

    /// Forgets configs that are neither deployed nor published.
    pub(super) fn forget_configs(&self, connection: &Connection) -> Result<()> {
        let deployed = self.deployed.as_ref().map_or(-1, |stored| stored.id);
        let published = self.published.as_ref().map_or(-1, |(_, stored)| stored.id);
        connection
            .execute("DELETE FROM configs WHERE id NOT IN (?, ?)", [deployed, published])
            .map_err(failed("cannot forget old sync configs"))?;
        Ok(())
    }
}

impl StoredConfig {
    pub(super) fn save(connection: &Connection, config: Arc<DeployedConfig>) -> Result<Self> {
        let content = postcard::to_stdvec(&*config)
            .map_err(|error| Error::internal("cannot encode a sync config").caused_by(error))?;
        connection
            .execute("INSERT INTO configs (content) VALUES (?)", [content])
            .map_err(failed("cannot store the sync config"))?;
        Ok(Self { id: connection.last_insert_rowid(), config })
    }

    fn load(connection: &Connection, id: i64) -> Result<Self> {
        let content: Option<Vec<u8>> = connection
            .query_row("SELECT content FROM configs WHERE id = ?", [id], |row| row.get(0))
            .optional()
            .map_err(failed("cannot read the sync config"))?;
        let content = content.ok_or_else(|| Error::data("the deployed sync config is missing"))?;
        let config = postcard::from_bytes(&content)
            .map_err(|error| Error::data("the deployed sync config is damaged").caused_by(error))?;
        Ok(Self { id, config: Arc::new(config) })
    }
}

/// The source's or the replicator's state.
pub(super) fn load_state(connection: &Connection, name: &str) -> Result<Option<Bytes>> {
    connection
        .query_row("SELECT content FROM states WHERE name = ?", [name], |row| row.get::<_, Vec<u8>>(0))
        .optional()
        .map(|content| content.map(Bytes::from))
        .map_err(failed("cannot read where replication stands"))
}

pub(super) fn save_state(connection: &Connection, name: &str, content: &[u8]) -> Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO states (name, content) VALUES (?, ?)")
        .and_then(|mut statement| statement.execute(params![name, content]))
        .map_err(failed("cannot write where replication stands"))?;
    Ok(())
}
