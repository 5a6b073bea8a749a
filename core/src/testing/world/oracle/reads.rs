//! C1 and C3: what an application sees, and when that may change.

use std::collections::BTreeMap;

use super::super::content::Row;
use super::expected::{Name, is_same};
use super::failure::{Failure, Verdict, holds};
use super::{ClientModel, Oracle, View, Write};
use crate::bucket::BucketPriority;
use crate::client_store::PublishRequest;
use crate::config::StreamSubscription;
use crate::local_transaction::WriteKind;

impl Oracle {
    /// C1: an application sees exactly the rows of one commit of the source that its buckets have, the one that the last
    /// published checkpoint lies at, with every own write on top that the checkpoint does not carry.
    ///
    /// A partial publish replaces and adds rows of its priorities and never takes any away. A row of it may be seen without
    /// an own write that its checkpoint carries, although the write goes on waiting for the whole checkpoint.
    pub(super) fn c1_a_read_sees_one_checkpoint(&self, view: &View<'_>, client: usize) -> Verdict {
        let model = &self.clients[client];
        let should_be = model.visible();
        let are = view.devices[client].store.visible_rows();
        let wrong = are.iter().find(|(name, row)| {
            let rows = should_be.get(name).into_iter().flatten();
            !rows.flatten().any(|one| is_same(row, one))
        });
        if let Some((name, row)) = wrong {
            let what = format!(
                "client {client} sees {name:?} as {row:?}, not as {:?} (checkpoint {})",
                should_be.get(name),
                model.shown
            );
            return Err(Failure { invariant: "C1", what });
        }
        let needed = should_be.iter().filter(|(_, rows)| !rows.contains(&None));
        let missing: Option<&Name> = needed.map(|(name, _)| name).find(|name| !are.contains_key(*name));
        holds("C1", missing.is_none(), || {
            format!("client {client} does not see {missing:?} (checkpoint {})", model.shown)
        })
    }

    /// C3: nothing is published while an own write is on its way: each was applied by a commit that the checkpoint has, or
    /// was refused. Rows of the highest priority are excepted.
    pub(super) fn c3_nothing_is_published_over_pending_writes(
        &mut self,
        client: usize,
        request: &PublishRequest,
        commits: u64,
    ) -> Verdict {
        if request.partial == Some(BucketPriority::HIGHEST) {
            return Ok(());
        }
        let pending = self.clients[client].pending.iter().find(|write| !write.is_carried(commits));
        holds("C3", pending.is_none(), || {
            format!("client {client} publishes {} at commit {commits} over {pending:?}", request.target.last_op_id)
        })
    }

    /// Takes in what a publish shows.
    pub(super) fn publish(&mut self, client: usize, request: &PublishRequest, commits: u64) -> Verdict {
        let identity = self.clients[client].identity.clone();
        let subscriptions: Vec<StreamSubscription> = request
            .requested
            .iter()
            .map(|one| StreamSubscription {
                stream: one.stream.clone(),
                parameters: Some(one.parameters.clone()),
                override_priority: one.priority,
            })
            .collect();
        let shown = self.shown.get(&request.target.last_op_id);
        let config = shown.map(|shown| self.expected.number(&shown.checkpoint.config.text)).unwrap_or_default();
        let rows = self.expected.rows(config, commits, &identity, &subscriptions, request.partial);
        let rows = rows.map_err(|what| Failure { invariant: "S7", what })?;
        let model = &mut self.clients[client];
        if request.partial.is_some() {
            for write in model.pending.iter().filter(|write| write.is_carried(commits)) {
                let names = write.transaction.crud.iter().map(|one| (one.table.to_string(), one.id.clone()));
                let released = names.filter(|name| rows.contains_key(name));
                model.released.extend(released.map(|name| (write.transaction.transaction_id, name)));
            }
            model.base.extend(rows);
            model.based_on = request.target.last_op_id;
        } else {
            model.base = rows;
            model.based_on = request.target.last_op_id;
            model.pending.clear();
            model.released.clear();
            model.shown = request.target.last_op_id;
            model.subscriptions = subscriptions;
        }
        Ok(())
    }
}

impl Write {
    /// Whether the client may know that a state of the source after so many commits has what became of it.
    fn is_carried(&self, commits: u64) -> bool {
        self.answered && (self.refused || self.applied.is_some_and(|applied| applied <= commits))
    }
}

impl ClientModel {
    /// What the application should see of each row: one of these, `None` being no row.
    fn visible(&self) -> BTreeMap<Name, Vec<Option<Row>>> {
        let base = self.base.iter().map(|(name, rows)| (name.clone(), rows.iter().cloned().map(Some).collect()));
        let mut visible: BTreeMap<Name, Vec<Option<Row>>> = base.collect();
        for Write { transaction, .. } in &self.pending {
            for write in &transaction.crud {
                let name = (write.table.to_string(), write.id.clone());
                let rows = visible.entry(name.clone()).or_insert_with(|| vec![None]);
                let columns = write.data.clone().unwrap_or_default();
                let mut written: Vec<Option<Row>> = match write.op {
                    WriteKind::Put => vec![Some(columns)],
                    WriteKind::Patch => rows.iter().cloned().map(|row| row.map(|row| patched(row, &columns))).collect(),
                    WriteKind::Delete => vec![None],
                };
                if self.released.contains(&(transaction.transaction_id, name)) {
                    written.append(rows);
                }
                *rows = written;
            }
        }
        visible
    }
}

fn patched(mut row: Row, columns: &Row) -> Row {
    row.extend(columns.clone());
    row
}
