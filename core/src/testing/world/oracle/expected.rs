//! What should be where, worked out from the whole content of the source at one commit: no stored row, no operation and no
//! order of events plays a part.
//!
//! The sync config's own evaluator is asked, row by row, since it is tested elsewhere against recorded cases. A scenario,
//! which knows its config, brings a [`Rule`] written by hand on top, and the two must agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::Value as Json;

use super::super::content::{Content, Row, values};
use super::super::database::Database;
use crate::bucket::BucketPriority;
use crate::checkpoint::LookupRows;
use crate::config::{ConfigRequest, Evaluation, StreamSubscription, SyncConfig};
use crate::identity::Identity;

/// A table and an id, as clients see them.
pub(in super::super) type Name = (String, String);
/// Rows by name. Several source rows may yield one output row: then any of them may be shown.
pub(in super::super) type Rows = BTreeMap<Name, Vec<Row>>;
/// The number of a definition in the config, and the parameters.
pub(super) type BucketKey = (usize, ByteString);
/// Everything that is in any bucket.
pub(super) type Buckets = BTreeMap<BucketKey, Rows>;
/// The rows of lookup indexes, by index and key.
type Lookups = BTreeMap<(usize, ByteString), Vec<ByteString>>;

/// The rows of one client, by the content of the source and who it is, with the priority of each: written by hand.
pub(in super::super) type Rule =
    fn(&Content, &Identity, &[StreamSubscription]) -> BTreeMap<Name, (Row, BucketPriority)>;

/// Expectations of one world.
#[derive(Debug)]
pub(super) struct Expected {
    configs: Vec<(SyncConfig, Option<Rule>)>,
    /// The one that is to be deployed now.
    newest: usize,
    database: Database,
    known: BTreeMap<(u64, usize), (Arc<Buckets>, Arc<Lookups>)>,
}

impl Expected {
    pub(super) fn new(config: SyncConfig, rule: Option<Rule>, database: Database) -> Self {
        Self { configs: vec![(config, rule)], newest: 0, database, known: BTreeMap::new() }
    }

    /// Another config takes the place of the one before.
    pub(super) fn switch(&mut self, config: SyncConfig, rule: Option<Rule>) {
        let known = self.configs.iter().position(|(known, _)| known.text() == config.text());
        self.newest = known.unwrap_or(self.configs.len());
        if known.is_none() {
            self.configs.push((config, rule));
        }
    }

    /// The number of the config that is to be deployed now.
    pub(super) fn newest(&self) -> usize {
        self.newest
    }

    /// The number of a config by its text; the newest one if there is none.
    pub(super) fn number(&self, text: &str) -> usize {
        self.configs.iter().position(|(config, _)| **config.text() == *text).unwrap_or(self.newest())
    }

    /// The content of all buckets of a config after so many commits.
    pub(super) fn buckets(&mut self, config: usize, commits: u64) -> Arc<Buckets> {
        self.evaluated(config, commits).0
    }

    fn evaluated(&mut self, config: usize, commits: u64) -> (Arc<Buckets>, Arc<Lookups>) {
        if let Some(known) = self.known.get(&(commits, config)) {
            return known.clone();
        }
        let (mut buckets, mut lookups) = (Buckets::new(), Lookups::new());
        let mut evaluation = Evaluation::new();
        for table in self.database.content_at(commits).tables.values() {
            let evaluator = self.configs[config].0.bind(&table.description);
            for row in table.rows.values() {
                evaluation.clear();
                evaluator.evaluate(&values(&table.description, row), &mut evaluation);
                for output in evaluation.rows.drain(..) {
                    let bucket = buckets.entry((output.definition, output.parameters)).or_default();
                    let name = (output.object_type.to_string(), output.object_id.to_string());
                    bucket.entry(name).or_default().push(parsed(&output.data));
                }
                for entry in evaluation.lookups.drain(..) {
                    lookups.entry((entry.index, entry.values)).or_default().extend(entry.outputs);
                }
            }
        }
        let evaluated = (Arc::new(buckets), Arc::new(lookups));
        // Whatever is asked for again is mostly recent.
        if self.known.len() > 64 {
            self.known.pop_first();
        }
        self.known.insert((commits, config), evaluated.clone());
        evaluated
    }

    /// The buckets of a client after so many commits, each with its priority.
    pub(super) fn resolved(
        &mut self,
        config: usize,
        commits: u64,
        identity: &Identity,
        subscriptions: &[StreamSubscription],
    ) -> Vec<(BucketKey, BucketPriority)> {
        let parameters = serde_json::Map::new();
        let request = ConfigRequest { identity, parameters: &parameters, include_defaults: true, subscriptions };
        let (_, lookups) = self.evaluated(config, commits);
        let resolved = self.configs[config].0.resolve_with(&request, |wanted| {
            let rows = lookups.get(&(wanted.index, wanted.values.clone())).cloned().unwrap_or_default();
            LookupRows { rows }
        });
        // Streams alone cannot fail a request.
        let resolved = resolved.unwrap_or_else(|error| panic!("the request of {identity:?}: {error}"));
        resolved.buckets.into_iter().map(|bucket| ((bucket.definition, bucket.parameters), bucket.priority)).collect()
    }

    /// The rows of a client after so many commits, of buckets up to a priority.
    ///
    /// # Errors
    /// How the config and the rule written by hand differ.
    pub(super) fn rows(
        &mut self,
        config: usize,
        commits: u64,
        identity: &Identity,
        subscriptions: &[StreamSubscription],
        upto: Option<BucketPriority>,
    ) -> Result<Rows, String> {
        let buckets = self.buckets(config, commits);
        let mut rows = Rows::new();
        for (key, priority) in self.resolved(config, commits, identity, subscriptions) {
            if upto.is_some_and(|upto| priority > upto) {
                continue;
            }
            for (name, of) in buckets.get(&key).into_iter().flatten() {
                rows.entry(name.clone()).or_default().extend(of.iter().cloned());
            }
        }
        if let Some(rule) = self.configs[config].1 {
            let mut by_rule = rule(&self.database.content_at(commits), identity, subscriptions);
            by_rule.retain(|_, (_, priority)| upto.is_none_or(|upto| *priority <= upto));
            let same = by_rule.len() == rows.len()
                && by_rule
                    .iter()
                    .all(|(name, (row, _))| rows.get(name).is_some_and(|of| of.iter().all(|one| is_same(one, row))));
            if !same {
                return Err(format!("by the rule {by_rule:?}, by the config {rows:?}"));
            }
        }
        Ok(rows)
    }
}

/// The columns of a row's JSON text, without the id.
pub(super) fn parsed(data: &[u8]) -> Row {
    let mut row = match serde_json::from_slice(data) {
        Ok(Json::Object(row)) => row,
        _ => Row::new(),
    };
    row.remove("id");
    row
}

/// Whether two rows are the same. A table of typed columns cannot tell a column that a row lacks from one that is NULL.
pub(super) fn is_same(one: &Row, other: &Row) -> bool {
    let contains = |row: &Row, of: &Row| of.iter().all(|(name, value)| row.get(name).unwrap_or(&Json::Null) == value);
    contains(one, other) && contains(other, one)
}
