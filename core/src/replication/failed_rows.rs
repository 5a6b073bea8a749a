//! Rows that cannot be replicated as the sync config says: each is counted, and some are told of.

use std::collections::BTreeMap;

use crate::table::{RowKey, SourceTable, TableId};

/// Failures by table and kind.
#[derive(Debug, Default)]
pub(super) struct FailedRows {
    counts: BTreeMap<(TableId, &'static str), u64>,
    untaken: u64,
}

impl FailedRows {
    /// Counts a failure. The 1st, 10th, 100th… of its kind goes to the log: a table may have millions of them.
    pub(super) fn add(&mut self, table: &SourceTable, key: &RowKey, kind: &'static str, message: &str) {
        self.untaken += 1;
        let count = self.counts.entry((table.id, kind)).or_default();
        *count += 1;
        if is_power_of_ten(*count) {
            let key = key.key.escape_ascii();
            tracing::warn!(table = &*table.name, %key, kind, message, count, "a row cannot be replicated as configured");
        }
    }

    /// How many came since this was asked last.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.untaken)
    }
}

fn is_power_of_ten(count: u64) -> bool {
    count == 10_u64.pow(count.ilog10())
}

#[cfg(test)]
mod tests {
    use super::is_power_of_ten;

    #[test]
    fn failures_are_told_of_more_and_more_rarely() {
        let told: Vec<u64> = (1..=1_000).filter(|count| is_power_of_ten(*count)).collect();
        assert_eq!(told, [1, 10, 100, 1_000]);
    }
}
