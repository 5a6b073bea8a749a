//! What changed of the rows of a lookup key.

use std::collections::BTreeMap;

use bytestring::ByteString;

use crate::checkpoint::LookupRows;

/// What changed of the rows of a [`LookupKey`](crate::LookupKey) between two checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupChange {
    /// Not known: these are all rows that it has now.
    Whole(LookupRows),
    /// Exactly this.
    Difference(LookupDifference),
}

impl From<LookupRows> for LookupChange {
    fn from(rows: LookupRows) -> Self {
        Self::Whole(rows)
    }
}

/// Rows that a key had and has not now, and the reverse. A row that it has several times comes, or goes, as often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupDifference {
    /// Each a compact JSON array, in no particular order.
    pub gone: Vec<ByteString>,
    /// The same.
    pub come: Vec<ByteString>,
}

impl LookupDifference {
    /// Adds what one source row yielded before and what it yields now. What it yields still is no change.
    ///
    /// ```
    /// # use syncline_core::LookupDifference;
    /// let mut difference = LookupDifference::default();
    /// difference.add(vec!["[1]".into(), "[2]".into()], vec!["[2]".into(), "[3]".into()]);
    /// assert_eq!((difference.gone, difference.come), (vec!["[1]".into()], vec!["[3]".into()]));
    /// ```
    pub fn add(&mut self, before: Vec<ByteString>, now: Vec<ByteString>) {
        let mut rest: BTreeMap<ByteString, usize> = BTreeMap::new();
        before.into_iter().for_each(|row| *rest.entry(row).or_default() += 1);
        for row in now {
            match rest.get_mut(&row) {
                Some(count) if *count > 0 => *count -= 1,
                _ => self.come.push(row),
            }
        }
        self.gone.extend(rest.into_iter().flat_map(|(row, count)| std::iter::repeat_n(row, count)));
    }
}
