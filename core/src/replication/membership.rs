//! Where a row stands: the buckets and lookup entries that it enters, and those that it leaves.

use bytestring::ByteString;

use super::overlay::{Overlay, Place};
use crate::bucket::{BucketId, DefinitionId};
use crate::bucket_store::{AppendBatch, LookupEntry, Membership};
use crate::checkpoint::{DeployedConfig, LookupKey};
use crate::config::{EvaluatedLookup, EvaluatedRow};
use crate::error::{Error, Result};
use crate::operation::NewOperation;
use crate::table::RowKey;

/// The number of the definition or lookup index whose form stands at this place.
fn deployed_id(deployed: &DeployedConfig, place: usize) -> Result<DefinitionId> {
    let definition = deployed.definitions.get(place).map(|definition| definition.id);
    definition.ok_or_else(|| Error::internal("the deployed config has fewer definitions than the config in use"))
}

/// Puts the output rows into their buckets; of several with one bucket, table and id the last counts. `table` is the subkey
/// of rows whose id is their key.
pub(super) fn enter(
    deployed: &DeployedConfig,
    key: &RowKey,
    table: &ByteString,
    evaluated: impl ExactSizeIterator<Item = EvaluatedRow>,
    operations: &mut Vec<NewOperation>,
) -> Result<Vec<Membership>> {
    let mut memberships: Vec<Membership> = Vec::with_capacity(evaluated.len());
    let first = operations.len();
    for output in evaluated {
        let definition = deployed_id(deployed, output.definition)?;
        let membership = Membership {
            bucket: BucketId { definition, parameters: output.parameters },
            object_type: output.object_type,
            object_id: output.object_id,
        };
        let operation = NewOperation::put(
            membership.bucket.clone(),
            membership.object_type.clone(),
            membership.object_id.clone(),
            key.subkey_or(&membership.object_id, || table.clone()),
            output.data,
        );
        match memberships.iter().position(|known| *known == membership) {
            Some(at) => operations[first + at] = operation,
            None => {
                memberships.push(membership);
                operations.push(operation);
            }
        }
    }
    Ok(memberships)
}

/// The lookup entries of a row: `evaluated` now, those in `before` until now, of which `same` are known to be as they were.
/// Writes what differs, and returns the keys that the row has now.
pub(super) fn enter_lookups(
    deployed: &DeployedConfig,
    indexes: usize,
    key: &RowKey,
    evaluated: Vec<EvaluatedLookup>,
    before: &[LookupKey],
    same: &[EvaluatedLookup],
    batch: &mut AppendBatch,
) -> Result<Vec<LookupKey>> {
    let mut keys: Vec<LookupKey> = Vec::with_capacity(evaluated.len());
    for entry in evaluated {
        let index = deployed_id(deployed, indexes + entry.index)?;
        let lookup = LookupKey { index, values: entry.values.clone() };
        if !(before.contains(&lookup) && same.contains(&entry)) {
            batch.lookups.push(LookupEntry { row: key.clone(), key: lookup.clone(), outputs: entry.outputs });
        }
        keys.push(lookup);
    }
    leave_lookups(key, before.iter().filter(|left| !keys.contains(left)), batch);
    Ok(keys)
}

fn leave_lookups<'a>(key: &RowKey, left: impl Iterator<Item = &'a LookupKey>, batch: &mut AppendBatch) {
    batch.lookups.extend(left.map(|left| LookupEntry { row: key.clone(), key: left.clone(), outputs: Vec::new() }));
}

/// The row leaves every bucket and every lookup index.
pub(super) fn leave(place: Place, rows: &mut Overlay, batch: &mut AppendBatch) {
    if let Some(before) = rows.take(place) {
        let key = rows.key(place);
        batch.operations.extend(before.memberships.iter().map(|left| remove_operation(key, left)));
        leave_lookups(key, before.lookups.iter(), batch);
    }
}

pub(super) fn remove_operation(key: &RowKey, left: &Membership) -> NewOperation {
    let subkey = key.subkey(&left.object_id);
    NewOperation::remove(left.bucket.clone(), left.object_type.clone(), left.object_id.clone(), subkey)
}
