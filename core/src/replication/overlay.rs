//! Stored rows under the changes that are applied to them.

use crate::bucket_store::{BucketStore, CurrentRow};
use crate::error::{Error, Result};
use crate::table::RowKey;

/// Rows as they are after the changes applied so far. Each is found by its place among all keys, in their order, so that no
/// change looks for a key more than once.
#[derive(Debug)]
pub(super) struct Overlay {
    keys: Vec<RowKey>,
    rows: Vec<Option<CurrentRow>>,
    touched: Vec<bool>,
}

/// Where a row stands in an [`Overlay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Overlay {
    /// Asks the store for all of these rows at once. The place of each key comes back in the order in which they came.
    pub(super) async fn load(store: &dyn BucketStore, asked: &[&RowKey]) -> Result<(Self, Vec<Place>)> {
        let mut order: Vec<usize> = (0..asked.len()).collect();
        // Those of a snapshot come in order.
        order.sort_unstable_by_key(|at| asked[*at]);
        let mut keys: Vec<RowKey> = Vec::with_capacity(asked.len());
        let mut places = vec![Place(0); asked.len()];
        for at in order {
            if keys.last() != Some(asked[at]) {
                keys.push(asked[at].clone());
            }
            let place = u32::try_from(keys.len() - 1).map_err(|_| Error::internal("too many rows for one batch"))?;
            places[at] = Place(place);
        }
        let rows = store.current_rows(&keys).await?;
        if rows.len() != keys.len() {
            return Err(Error::internal("the bucket store must answer for every row that it was asked for"));
        }
        let touched = vec![false; keys.len()];
        Ok((Self { keys, rows, touched }, places))
    }

    pub(super) fn key(&self, place: Place) -> &RowKey {
        &self.keys[place.0 as usize]
    }

    pub(super) fn get(&self, place: Place) -> Option<&CurrentRow> {
        self.rows[place.0 as usize].as_ref()
    }

    /// The row is this from here on.
    pub(super) fn put(&mut self, place: Place, row: CurrentRow) {
        self.rows[place.0 as usize] = Some(row);
        self.touched[place.0 as usize] = true;
    }

    /// There is no such row from here on. Returns what it was.
    pub(super) fn take(&mut self, place: Place) -> Option<CurrentRow> {
        let row = self.rows[place.0 as usize].take();
        self.touched[place.0 as usize] |= row.is_some();
        row
    }

    /// What the store does not have as it is now, each row once, in order of their keys.
    pub(super) fn into_changed(self) -> Vec<(RowKey, Option<CurrentRow>)> {
        let Self { keys, rows, touched } = self;
        keys.into_iter().zip(rows).zip(touched).filter_map(|(row, touched)| touched.then_some(row)).collect()
    }
}
