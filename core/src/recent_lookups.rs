//! Which source rows changed what lookups yield, for as long as sessions may ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::checkpoint::LookupKey;
use crate::operation::OpId;
use crate::table::RowKey;

/// The source rows that changed each lookup key.
pub(crate) type ChangedRows = BTreeMap<LookupKey, BTreeSet<RowKey>>;

/// The changes of the newest checkpoints, up to a number of rows.
#[derive(Debug, Default)]
pub(crate) struct RecentLookups {
    /// Everything that changed after this checkpoint is known.
    since: OpId,
    /// What each newer checkpoint brought; those that brought nothing are left out.
    brought: VecDeque<(OpId, ChangedRows)>,
    rows: usize,
}

impl RecentLookups {
    /// So many rows are remembered: some megabytes.
    pub(crate) const LIMIT: usize = 20_000;

    /// Nothing is known of what was before `since`.
    pub(crate) fn after(since: OpId) -> Self {
        Self { since, brought: VecDeque::new(), rows: 0 }
    }

    /// A checkpoint was published that brought this; `None` if that is not known.
    pub(crate) fn push(&mut self, at: OpId, changed: Option<ChangedRows>) {
        let Some(changed) = changed else {
            *self = Self::after(at);
            return;
        };
        if !changed.is_empty() {
            self.rows += count(&changed);
            self.brought.push_back((at, changed));
        }
        while self.rows > Self::LIMIT
            && let Some((oldest, changed)) = self.brought.pop_front()
        {
            self.rows -= count(&changed);
            self.since = oldest;
        }
    }

    /// The source rows that changed a key after the checkpoint `since`, up to `at`; `None` if that is not known any more.
    pub(crate) fn changed(&self, key: &LookupKey, since: OpId, at: OpId) -> Option<BTreeSet<RowKey>> {
        if since < self.since {
            return None;
        }
        let first = self.brought.partition_point(|(brought, _)| *brought <= since);
        let brought = self.brought.range(first..).take_while(|(brought, _)| *brought <= at);
        Some(brought.filter_map(|(_, changed)| changed.get(key)).flatten().cloned().collect())
    }
}

fn count(changed: &ChangedRows) -> usize {
    changed.values().map(BTreeSet::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::DefinitionId;
    use crate::table::TableId;

    fn key(values: &str) -> LookupKey {
        LookupKey { index: DefinitionId(1), values: values.into() }
    }

    fn row(number: usize) -> RowKey {
        RowKey { table: TableId(1), key: number.to_string().into() }
    }

    fn changed(key: &LookupKey, rows: impl Iterator<Item = usize>) -> Option<ChangedRows> {
        Some([(key.clone(), rows.map(row).collect())].into())
    }

    #[test]
    fn what_came_between_two_checkpoints_is_known() {
        let (one, other) = (key("[1]"), key("[2]"));
        let mut recent = RecentLookups::after(OpId(5));
        recent.push(OpId(8), changed(&one, 1..2));
        recent.push(OpId(9), Some(ChangedRows::new()));
        recent.push(OpId(12), changed(&one, 2..3));
        recent.push(OpId(13), changed(&other, 3..4));
        let rows =
            |since, at| recent.changed(&one, OpId(since), OpId(at)).map(|rows| rows.into_iter().collect::<Vec<_>>());
        assert_eq!(rows(5, 8), Some(vec![row(1)]));
        assert_eq!(rows(5, 13), Some(vec![row(1), row(2)]));
        assert_eq!(rows(8, 13), Some(vec![row(2)]));
        assert_eq!(rows(9, 11), Some(vec![]));
        assert_eq!(rows(4, 13), None, "from before it began");
    }

    #[test]
    fn what_is_forgotten_is_not_known() {
        let one = key("[1]");
        let mut recent = RecentLookups::after(OpId(0));
        recent.push(OpId(1), changed(&one, 0..RecentLookups::LIMIT / 2));
        recent.push(OpId(2), changed(&one, 0..RecentLookups::LIMIT / 2 + 1));
        assert_eq!(recent.changed(&one, OpId(0), OpId(2)), None);
        assert!(recent.changed(&one, OpId(1), OpId(2)).is_some());
        recent.push(OpId(3), None);
        assert_eq!(recent.changed(&one, OpId(2), OpId(3)), None);
        assert_eq!(recent.changed(&one, OpId(3), OpId(3)), Some(BTreeSet::new()));
    }
}
