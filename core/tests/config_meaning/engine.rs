//! The compiled engine at work: rows go into buckets as they change, and a request opens some of them.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{ConfigRequest, Evaluation, SourceTable, SyncConfig, TableEvaluator, Value};

/// A bucket: index of its definition, and its parameters.
type Bucket = (usize, String);
/// A row in a bucket: its number, the client's table and the client's id.
pub(crate) type Key = (usize, String, String);

/// All buckets of a config, kept up to date.
#[derive(Debug)]
pub(crate) struct Engine<'a> {
    config: &'a SyncConfig,
    tables: Vec<(&'a SourceTable, TableEvaluator)>,
    buckets: BTreeMap<Bucket, BTreeMap<Key, String>>,
    out: Evaluation,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(config: &'a SyncConfig, tables: &'a [SourceTable]) -> Self {
        let tables = tables.iter().map(|table| (table, config.bind(table))).collect();
        Self { config, tables, buckets: BTreeMap::new(), out: Evaluation::new() }
    }

    /// Where a row stands, with its data.
    fn evaluate(&mut self, table: usize, row: usize, values: Option<&[Value]>) -> BTreeMap<(Bucket, Key), String> {
        let (description, evaluator) = &self.tables[table];
        self.out.clear();
        if let Some(values) = values {
            // What the config says that it does not read is not there.
            let selection = self.config.selection();
            let read = |name: &str| selection.reads("public", &description.schema, &description.name, name);
            let values: Vec<_> = (description.columns.iter().zip(values))
                .map(|(column, value)| if read(&column.name) { value.clone() } else { Value::Null })
                .collect();
            evaluator.evaluate(&values, &mut self.out);
        }
        let rows = self.out.rows.drain(..).map(|found| {
            let bucket = (found.definition, found.parameters.to_string());
            let key = (row, found.object_type.to_string(), found.object_id.to_string());
            ((bucket, key), String::from_utf8(found.data.to_vec()).unwrap())
        });
        let all: Vec<_> = rows.collect();
        let distinct: BTreeMap<_, _> = all.iter().cloned().collect();
        assert_eq!(distinct.len(), all.len(), "a row is in a bucket twice: {all:?}");
        distinct
    }

    /// A row becomes another, as replication does it: it is put where it stands now, and leaves where it stood only
    /// before.
    pub(crate) fn change(&mut self, table: usize, row: usize, before: Option<&[Value]>, after: Option<&[Value]>) {
        let before = self.evaluate(table, row, before);
        let after = self.evaluate(table, row, after);
        for (bucket, key) in before.keys().filter(|place| !after.contains_key(place)) {
            let removed = self.buckets.get_mut(bucket).and_then(|rows| rows.remove(key));
            assert!(removed.is_some(), "{key:?} leaves the bucket {bucket:?}, in which it is not");
        }
        for ((bucket, key), data) in after {
            self.buckets.entry(bucket).or_default().insert(key, data);
        }
    }

    /// Every row of the buckets that a request has.
    pub(crate) fn rows(&self, request: &ConfigRequest<'_>) -> BTreeSet<(Key, String)> {
        let resolved = self.config.resolve(request);
        assert_eq!(resolved, self.config.resolve(request), "the same request has the same answer");
        let buckets = resolved.buckets.iter().map(|bucket| (bucket.definition, bucket.parameters.to_string()));
        let rows = buckets.filter_map(|bucket| self.buckets.get(&bucket)).flatten();
        rows.map(|(key, data)| (key.clone(), data.clone())).collect()
    }
}
