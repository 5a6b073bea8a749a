//! Relations: values that were found for a request, in rows whose values belong together.

use std::collections::BTreeMap;

use bytestring::ByteString;

/// An output of a stage: its number, and that of the output.
pub(super) type Column = (usize, usize);

/// Rows of values that belong together, each value as JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Relation {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<ByteString>>,
}

impl Relation {
    /// One row without values: what is true of nothing in particular.
    pub(super) fn unit() -> Self {
        Self { columns: Vec::new(), rows: vec![Vec::new()] }
    }

    pub(super) fn position(&self, column: Column) -> Option<usize> {
        self.columns.iter().position(|known| *known == column)
    }

    /// All combinations of rows of both in which these pairs of columns (of this, of the other) are equal.
    pub(super) fn join(&self, other: &Self, equal: &[(usize, usize)]) -> Self {
        let columns = self.columns.iter().chain(&other.columns).copied().collect();
        let mut by_key: BTreeMap<Vec<&ByteString>, Vec<&Vec<ByteString>>> = BTreeMap::new();
        for row in &other.rows {
            by_key.entry(equal.iter().map(|(_, right)| &row[*right]).collect()).or_default().push(row);
        }
        let mut rows = Vec::new();
        for row in &self.rows {
            let key: Vec<_> = equal.iter().map(|(left, _)| &row[*left]).collect();
            for partner in by_key.get(&key).into_iter().flatten() {
                rows.push(row.iter().chain(partner.iter()).cloned().collect());
            }
        }
        Self { columns, rows }
    }

    /// How many rows a join without a condition has.
    pub(super) fn product(&self, other: &Self) -> usize {
        self.rows.len().saturating_mul(other.rows.len())
    }

    /// Only these columns, each row once.
    pub(super) fn keep(self, wanted: impl Fn(Column) -> bool) -> Self {
        if self.columns.iter().all(|column| wanted(*column)) {
            return Self { rows: distinct(self.rows), ..self };
        }
        let places: Vec<usize> = (0..self.columns.len()).filter(|place| wanted(self.columns[*place])).collect();
        let columns = places.iter().map(|place| self.columns[*place]).collect();
        let rows = self.rows.iter().map(|row| places.iter().map(|place| row[*place].clone()).collect()).collect();
        Self { columns, rows: distinct(rows) }
    }

    /// The bytes that it takes, about.
    pub(super) fn size(&self) -> usize {
        let text = |text: &ByteString| text.len() + size_of::<ByteString>();
        self.rows.iter().map(|row| size_of::<Vec<ByteString>>() + row.iter().map(text).sum::<usize>()).sum()
    }
}

/// Each row once, in the order of their first places.
fn distinct(rows: Vec<Vec<ByteString>>) -> Vec<Vec<ByteString>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|one, other| rows[*one].cmp(&rows[*other]));
    let mut is_first = vec![true; rows.len()];
    for pair in order.windows(2) {
        is_first[pair[1]] = rows[pair[0]] != rows[pair[1]];
    }
    rows.into_iter().zip(is_first).filter(|(_, is_first)| *is_first).map(|(row, _)| row).collect()
}

/// The elements of a compact JSON array, as they are written.
pub(super) fn elements(array: &ByteString) -> Option<Vec<ByteString>> {
    let inner = array.strip_prefix('[')?.strip_suffix(']')?;
    let mut found = Vec::new();
    if inner.is_empty() {
        return Some(found);
    }
    let (mut start, mut depth, mut in_text, mut escaped) = (0, 0usize, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                found.push(array.slice_ref(&inner[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(array.slice_ref(&inner[start..]));
    (!in_text && depth == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_an_array_are_as_written() {
        let split = |text: &'static str| {
            elements(&ByteString::from_static(text)).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(split("[]"), Some(vec![]));
        assert_eq!(split(r#"[1,"a,]\"b",2.5]"#), Some(vec!["1".into(), r#""a,]\"b""#.into(), "2.5".into()]));
        assert_eq!(split(r#"["[1,2]"]"#), Some(vec![r#""[1,2]""#.into()]));
        assert_eq!(split("1,2"), None);
        assert_eq!(split("[\"]"), None);
    }

    #[test]
    fn a_join_keeps_what_is_equal() {
        let text = |text: &str| ByteString::from(text);
        let left = Relation {
            columns: vec![(0, 0), (0, 1)],
            rows: vec![vec![text("1"), text("a")], vec![text("2"), text("b")]],
        };
        let right = Relation { columns: vec![(1, 0)], rows: vec![vec![text("2")], vec![text("3")]] };
        let joined = left.join(&right, &[(0, 0)]);
        assert_eq!(joined.rows, [vec![text("2"), text("b"), text("2")]]);
        assert_eq!(left.join(&right, &[]).rows.len(), left.product(&right));
        assert_eq!(joined.keep(|column| column == (0, 1)).rows, [vec![text("b")]]);
    }
}
