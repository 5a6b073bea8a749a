//! What the source keeps in the store: which slot it owns, what it knows of each table, how far snapshots are.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use syncline_core::{Error, Result, SnapshotProgress, SourceEvent, SourceState, TableSelection};

use crate::lsn::Lsn;

/// Raised when the encoding changes; another version means starting over.
const VERSION: u8 = 4;

/// Everything that must survive a restart. Every version begins with the same four fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The cluster's identifier, which a copy made by dump and restore does not share.
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) slot: String,
    /// Random, made with the slot; our connections carry it, so that we recognise a process of our own.
    pub(crate) incarnation: u64,
    /// The oid of the publication: another one of the same name has a gap.
    pub(crate) publication: u32,
    /// Where the slot began: everything that committed later is in the stream. 0 while the slot is only about to be made.
    pub(crate) consistent_point: Lsn,
    /// A hash of what was selected when the tables were last checked in full.
    pub(crate) selection: u64,
    /// A reading of tables was begun, and its end not told: nothing is published before it is, even if no table is left to
    /// be read.
    pub(crate) reading: bool,
    pub(crate) tables: Vec<TableRecord>,
}

/// A slot that a store has made or is about to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotOwner {
    /// The cluster that it is on.
    pub(crate) system: u64,
    pub(crate) slot: String,
    /// What our connections call themselves by.
    pub(crate) incarnation: u64,
}

/// A table that is replicated, as it was when it was last read in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableRecord {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `d`, `i`, `f` or `n`.
    pub(crate) identity: u8,
    /// The oid of its entry in the publication: another one means that it was out of it for a while.
    pub(crate) membership: u32,
    /// How many columns it had, dropped ones included: later ones have higher numbers.
    pub(crate) width: i16,
    /// The columns of its key, in the order of their index.
    pub(crate) key: Vec<String>,
    /// The columns that are read, and those of the key.
    pub(crate) columns: Vec<ColumnRecord>,
    /// The tables that hold the rows: its leaves if it is partitioned, else itself.
    pub(crate) parts: Vec<PartRecord>,
    /// Rows of it may be stale: it must be read again when the stream has passed this position.
    pub(crate) stale: Option<Lsn>,
}

/// A column of a [`TableRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ColumnRecord {
    pub(crate) name: String,
    pub(crate) number: i16,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
    /// The version of its catalog row, which changes with its definition.
    pub(crate) version: u32,
}

/// A table that holds rows of a [`TableRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The number of the file with its rows, which changes when all of them are written anew; 0 after a TRUNCATE, which
    /// explains any other number.
    pub(crate) file: u32,
    /// The table of its values out of line, which a VACUUM FULL keeps and ALTER TABLE makes anew; 0 for none.
    pub(crate) toast: u32,
    /// A digest of how it comes to be in the publication and in its table, which is another after it was out of either.
    pub(crate) link: u64,
    /// The condition of the publication.
    pub(crate) filter: Option<String>,
    pub(crate) progress: Progress,
}

/// How far the reading of a [`PartRecord`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// Not begun.
    Pending,
    /// In order of its key, up to and with these values.
    After { key: Vec<String>, rows: u64 },
    /// In one go, which cannot be resumed.
    Unordered { rows: u64 },
    /// All of it has been read.
    Done,
}

/// A hash of a selection, to notice another one.
pub(crate) fn selection_hash(selection: &TableSelection) -> Result<u64> {
    let bytes = postcard::to_stdvec(selection)
        .map_err(|error| Error::internal("a selection of tables cannot be encoded").caused_by(error))?;
    let digest = Sha256::digest(bytes);
    Ok(digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
}

impl State {
    /// # Errors
    /// `Internal` if it cannot be encoded.
    pub(crate) fn encode(&self) -> Result<SourceState> {
        let bytes = postcard::to_extend(self, vec![VERSION])
            .map_err(|error| Error::internal("the state of a source cannot be encoded").caused_by(error))?;
        Ok(SourceState(bytes.into()))
    }

    /// `None` if another version wrote it.
    ///
    /// # Errors
    /// `Data` if it is damaged.
    pub(crate) fn decode(state: &SourceState) -> Result<Option<Self>> {
        match state.0.split_first() {
            Some((&VERSION, bytes)) => postcard::from_bytes(bytes)
                .map(Some)
                .map_err(|error| Error::data("the stored state of a source cannot be read").caused_by(error)),
            Some(_) => Ok(None),
            None => Err(Error::data("the stored state of a source is empty")),
        }
    }

    /// The slot that a state names, of whatever version.
    pub(crate) fn owner(state: &SourceState) -> Option<SlotOwner> {
        let (_, bytes) = state.0.split_first()?;
        let (system, _, slot, incarnation): (u64, u32, String, u64) = postcard::from_bytes(bytes).ok()?;
        Some(SlotOwner { system, slot, incarnation })
    }

    /// Whether the slot has been made, as far as the store knows.
    pub(crate) fn has_slot(&self) -> bool {
        self.consistent_point > Lsn(0)
    }

    /// As whose the slot is known.
    pub(crate) fn slot_owner(&self) -> SlotOwner {
        SlotOwner { system: self.system, slot: self.slot.clone(), incarnation: self.incarnation }
    }

    /// The event that has this state stored, with how far the reading is.
    pub(crate) fn progress(&self, table: String, rows: u64, estimated: Option<u64>) -> Result<SourceEvent> {
        let done = |table: &&TableRecord| table.parts.iter().all(|part| part.progress == Progress::Done);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let progress = SnapshotProgress {
            table,
            rows,
            estimated,
            tables_done: count(self.tables.iter().filter(done).count()),
            tables: count(self.tables.len()),
        };
        Ok(SourceEvent::SnapshotProgress { state: self.encode()?, progress })
    }

    /// The table that a relation belongs to.
    pub(crate) fn table_of(&self, relation: u32) -> Option<&TableRecord> {
        self.tables.iter().find(|table| table.oid == relation || table.parts.iter().any(|part| part.oid == relation))
    }

    /// Whether everything has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.tables.iter().flat_map(|table| &table.parts).all(|part| part.progress == Progress::Done)
    }
}

impl TableRecord {
    /// Its name for people.
    pub(crate) fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_state_reads_back_and_another_version_is_recognised() {
        let state = State {
            system: u64::MAX,
            timeline: 3,
            slot: "syncline_0".into(),
            incarnation: 7,
            publication: 9,
            consistent_point: Lsn(11),
            selection: 12,
            reading: true,
            tables: vec![TableRecord {
                oid: 1,
                schema: "public".into(),
                name: "t".into(),
                identity: b'd',
                membership: 2,
                width: 1,
                key: vec!["id".into()],
                columns: vec![ColumnRecord {
                    name: "id".into(),
                    number: 1,
                    type_oid: 25,
                    type_modifier: -1,
                    version: 5,
                }],
                parts: vec![PartRecord {
                    oid: 1,
                    schema: "public".into(),
                    name: "t".into(),
                    file: 4,
                    toast: 5,
                    link: 6,
                    filter: None,
                    progress: Progress::After { key: vec!["ü'".into()], rows: 9 },
                }],
                stale: Some(Lsn(1)),
            }],
        };
        let encoded = state.encode().unwrap();
        assert_eq!(State::decode(&encoded).unwrap().as_ref(), Some(&state));
        let mut other = encoded.0.to_vec();
        other[0] = 0;
        let other = SourceState(other.into());
        assert_eq!(State::decode(&other).unwrap(), None);
        assert_eq!(State::owner(&other), Some(state.slot_owner()));
        assert!(State::decode(&SourceState(encoded.0.slice(..5))).is_err());
        assert!(!state.is_complete());
    }
}
