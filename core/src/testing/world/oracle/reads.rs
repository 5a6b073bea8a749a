//! C1 and C3: what an application sees, and when that may change.

use super::expected::{Name, Rows, is_one_of};
use super::failure::{Failure, Verdict, holds};
use super::{ClientModel, Oracle, View};
use crate::bucket::BucketPriority;
use crate::client_store::PublishRequest;
use crate::config::StreamSubscription;
use crate::local_transaction::WriteKind;

impl Oracle {
    /// C1: an application sees exactly the rows of one commit of the source that its buckets have, the one that the last
    /// published checkpoint lies at, with every own write on top that the checkpoint does not carry.
    ///
    /// A partial publish replaces and adds rows of its priorities and never takes any away.
    pub(super) fn c1_a_read_sees_one_checkpoint(&self, view: &View<'_>, client: usize) -> Verdict {
        let model = &self.clients[client];
        let should_be = model.visible();
        let are = view.devices[client].store.visible_rows();
        let wrong = are.iter().find(|(name, row)| should_be.get(name).is_none_or(|rows| !is_one_of(row, rows)));
        if let Some((name, row)) = wrong {
            let what = format!(
                "client {client} sees {name:?} as {row:?}, not as {:?} (checkpoint {})",
                should_be.get(name),
                model.shown
            );
            return Err(Failure { invariant: "C1", what });
        }
        let missing: Option<&Name> = should_be.keys().find(|name| !are.contains_key(*name));
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
        let pending = self.clients[client].pending.iter().find(|write| {
            let carried = write.applied.is_some_and(|applied| applied <= commits);
            !(write.answered && (carried || write.refused))
        });
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
            model.base.extend(rows);
        } else {
            model.base = rows;
            model.pending.clear();
            model.shown = request.target.last_op_id;
            model.subscriptions = subscriptions;
        }
        Ok(())
    }
}

impl ClientModel {
    /// What the application should see.
    fn visible(&self) -> Rows {
        let mut rows = self.base.clone();
        for write in self.pending.iter().flat_map(|pending| &pending.transaction.crud) {
            let name = (write.table.to_string(), write.id.clone());
            let columns = write.data.clone().unwrap_or_default();
            match write.op {
                WriteKind::Put => drop(rows.insert(name, vec![columns])),
                WriteKind::Patch => {
                    if let Some(of) = rows.get_mut(&name) {
                        of.iter_mut().for_each(|row| row.extend(columns.clone()));
                    }
                }
                WriteKind::Delete => drop(rows.remove(&name)),
            }
        }
        rows
    }
}
