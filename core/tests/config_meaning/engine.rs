//! The compiled engine at work: rows go into buckets as they change, and a request opens some of them.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{
    ByteString, ConfigLookup, ConfigRequest, Evaluation, LookupChange, LookupDifference, LookupRows, RequestResolver,
    ResolveStep, ResolvedBucket, ResolvedRequest, ResolvedStream, SourceTable, SyncConfig, TableEvaluator, Value,
};

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
    /// The rows of each key of the lookup indexes, with their outputs.
    lookups: BTreeMap<ConfigLookup, BTreeMap<usize, Vec<ByteString>>>,
    out: Evaluation,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(config: &'a SyncConfig, tables: &'a [SourceTable]) -> Self {
        let tables = tables.iter().map(|table| (table, config.bind(table))).collect();
        Self { config, tables, buckets: BTreeMap::new(), lookups: BTreeMap::new(), out: Evaluation::new() }
    }

    /// Where a row stands, with its data and its entries in lookup indexes.
    fn evaluate(&mut self, table: usize, row: usize, values: Option<&[Value]>) -> Standing {
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
        let mut standing = Standing { rows: distinct, lookups: BTreeMap::new() };
        for entry in self.out.lookups.drain(..) {
            let key = ConfigLookup { index: entry.index, values: entry.values };
            let known = standing.lookups.insert(key, entry.outputs);
            assert!(known.is_none(), "a row has two entries of one key: {known:?}");
        }
        standing
    }

    /// A row becomes another, as replication does it: it is put where it stands now, and leaves where it stood only
    /// before. Returns the keys whose rows may be others.
    pub(crate) fn change(
        &mut self,
        table: usize,
        row: usize,
        before: Option<&[Value]>,
        after: Option<&[Value]>,
    ) -> BTreeSet<ConfigLookup> {
        let before = self.evaluate(table, row, before);
        let after = self.evaluate(table, row, after);
        for (bucket, key) in before.rows.keys().filter(|place| !after.rows.contains_key(place)) {
            let removed = self.buckets.get_mut(bucket).and_then(|rows| rows.remove(key));
            assert!(removed.is_some(), "{key:?} leaves the bucket {bucket:?}, in which it is not");
        }
        for ((bucket, key), data) in after.rows {
            self.buckets.entry(bucket).or_default().insert(key, data);
        }
        let mut changed = BTreeSet::new();
        for key in before.lookups.keys().filter(|key| !after.lookups.contains_key(key)) {
            let removed = self.lookups.get_mut(key).and_then(|rows| rows.remove(&row));
            assert!(removed.is_some(), "row {row} leaves the key {key:?}, which it does not have");
            changed.insert(key.clone());
        }
        for (key, outputs) in after.lookups {
            if before.lookups.get(&key) != Some(&outputs) {
                self.lookups.entry(key.clone()).or_default().insert(row, outputs);
                changed.insert(key);
            }
        }
        changed
    }

    fn answer(&self, key: &ConfigLookup) -> LookupRows {
        let rows = self.lookups.get(key).into_iter().flat_map(BTreeMap::values);
        LookupRows { rows: rows.flatten().cloned().collect() }
    }

    /// The buckets of a request, found without a memory; `None` if it fails as a whole.
    pub(crate) fn resolve(&self, request: &ConfigRequest<'_>) -> Option<ResolvedRequest> {
        let resolve = || self.config.resolve_with(request, |key| self.answer(key)).ok();
        let resolved = resolve();
        assert_eq!(resolved, resolve(), "the same request has the same answer");
        resolved.map(|mut resolved| {
            resolved
                .buckets
                .sort_by(|one, other| (one.definition, &one.parameters).cmp(&(other.definition, &other.parameters)));
            resolved
        })
    }

    /// Every row of these buckets.
    pub(crate) fn rows(&self, resolved: &ResolvedRequest) -> BTreeSet<(Key, String)> {
        let buckets = resolved.buckets.iter().map(|bucket| (bucket.definition, bucket.parameters.to_string()));
        let rows = buckets.filter_map(|bucket| self.buckets.get(&bucket)).flatten();
        rows.map(|(key, data)| (key.clone(), data.clone())).collect()
    }
}

/// Where a row stands.
#[derive(Debug)]
struct Standing {
    rows: BTreeMap<(Bucket, Key), String>,
    lookups: BTreeMap<ConfigLookup, Vec<ByteString>>,
}

/// A request that is held while rows change, as a connected client's is: it learns what differs.
#[derive(Debug)]
pub(crate) struct Connection {
    resolver: RequestResolver,
    /// What it was told so far; `None` if the request fails as a whole.
    held: Option<Held>,
    /// What it was answered last.
    answered: BTreeMap<ConfigLookup, LookupRows>,
    stale: bool,
}

#[derive(Debug, Default)]
struct Held {
    buckets: BTreeMap<(usize, ByteString), ResolvedBucket>,
    lookups: BTreeSet<ConfigLookup>,
    streams: Vec<ResolvedStream>,
}

impl Connection {
    pub(crate) fn new(engine: &Engine<'_>, request: &ConfigRequest<'_>) -> Self {
        Self {
            resolver: engine.config.resolver(request, usize::MAX),
            held: None,
            answered: BTreeMap::new(),
            stale: true,
        }
    }

    /// Rows of these keys may be others.
    pub(crate) fn note(&mut self, changed: &BTreeSet<ConfigLookup>) {
        self.stale |= self.resolver.invalidate(changed);
    }

    /// The buckets: those of before unless a key changed that it asked for. Whether they were found anew.
    pub(crate) fn resolve(&mut self, engine: &Engine<'_>) -> (Option<ResolvedRequest>, bool) {
        let again = std::mem::take(&mut self.stale);
        if again {
            self.held = self.find(engine);
        }
        let resolved = self.held.as_ref().map(|held| ResolvedRequest {
            buckets: held.buckets.values().cloned().collect(),
            streams: held.streams.clone(),
        });
        (resolved, again)
    }

    /// What differs from the answer before.
    fn difference(&mut self, key: &ConfigLookup, now: LookupRows) -> LookupChange {
        let before = self.answered.insert(key.clone(), now.clone()).expect("it was answered before");
        let mut difference = LookupDifference::default();
        difference.add(before.rows, now.rows);
        LookupChange::Difference(difference)
    }

    /// What is held now; `None` if the request fails as a whole.
    fn find(&mut self, engine: &Engine<'_>) -> Option<Held> {
        let mut held = self.held.take().unwrap_or_default();
        let changes = loop {
            match self.resolver.poll_changes().ok()? {
                ResolveStep::Lookups(wanted) => {
                    let answers: Vec<_> = wanted.iter().map(|key| engine.answer(key)).collect();
                    self.answered.extend(wanted.iter().cloned().zip(answers.iter().cloned()));
                    self.resolver.answer(wanted, answers).unwrap();
                }
                ResolveStep::Changed(wanted) => {
                    let answers: Vec<_> = wanted.iter().map(|key| self.difference(key, engine.answer(key))).collect();
                    self.resolver.answer(wanted, answers).unwrap();
                }
                ResolveStep::Done(changes) => break changes,
            }
        };
        for bucket in changes.buckets {
            held.buckets.insert((bucket.definition, bucket.parameters.clone()), bucket);
        }
        for gone in changes.gone {
            assert!(held.buckets.remove(&gone).is_some(), "{gone:?} has gone, which was not there");
        }
        for (lookup, is_used) in changes.lookups {
            let _ = if is_used { held.lookups.insert(lookup) } else { held.lookups.remove(&lookup) };
        }
        held.streams = changes.streams;
        let used: BTreeSet<_> = self.resolver.lookups().cloned().collect();
        assert_eq!(held.lookups, used, "what it depends on");
        Some(held)
    }
}
