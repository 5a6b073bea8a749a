//! Who must know of a commit: the tables that it changed, and the watchers of tables.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The table of the upload queue.
pub(crate) const QUEUE: &str = "syncline_queue";

/// The tables that a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changes {
    /// These.
    Tables(HashSet<String>),
    /// Any: another process wrote, the schema changed, or SQLite does not say.
    Any,
}

impl Changes {
    fn touch(&self, tables: &HashSet<String>) -> bool {
        match self {
            Self::Any => true,
            Self::Tables(changed) => {
                changed.iter().any(|name| tables.contains(name) || tables.contains(index_of(name)))
            }
        }
    }
}

/// A full-text or R-tree index is written through tables of its own, called `index_data` and so on.
fn index_of(table: &str) -> &str {
    const SHADOWS: &[&str] = &["_data", "_content", "_idx", "_docsize", "_config", "_node", "_rowid", "_parent"];
    SHADOWS.iter().find_map(|suffix| table.strip_suffix(suffix)).unwrap_or(table)
}

/// The registry of watchers, shared by all handles of a database.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watchers: HashMap<u64, Watcher>,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    /// `None` while the tables are being found out: everything counts then.
    tables: Option<HashSet<String>>,
    /// What changed since the last look.
    pending: Pending,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Pending {
    any: bool,
    tables: HashSet<String>,
}

impl Pending {
    fn add(&mut self, changes: &Changes) {
        match changes {
            Changes::Any => self.any = true,
            Changes::Tables(tables) => self.tables.extend(tables.iter().cloned()),
        }
    }

    fn take(&mut self) -> Changes {
        let taken = std::mem::take(self);
        if taken.any { Changes::Any } else { Changes::Tables(taken.tables) }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells watchers of a commit. Called after it, so that whoever wakes up reads what changed.
    pub(crate) fn notify(&self, changes: &Changes) {
        if matches!(changes, Changes::Tables(tables) if tables.is_empty()) {
            return;
        }
        for watcher in self.lock().watchers.values_mut() {
            let concerned = watcher.tables.as_ref().is_none_or(|tables| changes.touch(tables));
            if concerned {
                watcher.pending.add(changes);
                if let Some(waker) = watcher.waker.take() {
                    waker.wake();
                }
            }
        }
    }

    /// Wakes all watchers for the last time.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for watcher in state.watchers.values_mut() {
            if let Some(waker) = watcher.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A registration, ended by dropping it. From its making on, no change is lost.
#[derive(Debug)]
pub(crate) struct Listener {
    hub: Arc<Hub>,
    id: u64,
}

impl Listener {
    /// Listens to `tables`, or to everything until [`Listener::narrow`].
    pub(crate) fn new(hub: &Arc<Hub>, tables: Option<HashSet<String>>) -> Self {
        let mut state = hub.lock();
        let id = state.next;
        state.next += 1;
        state.watchers.insert(id, Watcher { tables, pending: Pending::default(), waker: None });
        drop(state);
        Self { hub: Arc::clone(hub), id }
    }

    /// Listens to everything again and forgets what came, because the query is about to be run.
    pub(crate) fn widen(&self) {
        if let Some(watcher) = self.hub.lock().watchers.get_mut(&self.id) {
            watcher.tables = None;
            watcher.pending = Pending::default();
        }
    }

    /// Listens to `tables` alone from now on. What came in between and concerns them is kept.
    pub(crate) fn narrow(&self, tables: HashSet<String>) {
        if let Some(watcher) = self.hub.lock().watchers.get_mut(&self.id) {
            let pending = watcher.pending.take();
            if pending.touch(&tables) {
                watcher.pending.add(&pending);
            }
            watcher.tables = Some(tables);
        }
    }

    /// Waits for a change; several become one. `false` when the database is closed.
    ///
    /// Cancel safe: a change that was not answered is still there.
    pub(crate) async fn changed(&self) -> bool {
        std::future::poll_fn(|context| {
            let mut state = self.hub.lock();
            if state.closed {
                return Poll::Ready(false);
            }
            let Some(watcher) = state.watchers.get_mut(&self.id) else { return Poll::Ready(false) };
            if watcher.pending.any || !watcher.pending.tables.is_empty() {
                watcher.pending = Pending::default();
                return Poll::Ready(true);
            }
            watcher.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.lock().watchers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn tables(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_comes_while_a_query_runs_is_kept_if_it_concerns_it() {
        let hub = Arc::new(Hub::default());
        let listener = Listener::new(&hub, None);
        listener.widen();
        hub.notify(&Changes::Tables(tables(&["a"])));
        listener.narrow(tables(&["b"]));
        assert_eq!(listener.changed().now_or_never(), None);
        listener.widen();
        hub.notify(&Changes::Tables(tables(&["a"])));
        listener.narrow(tables(&["a", "b"]));
        assert_eq!(listener.changed().now_or_never(), Some(true));
        assert_eq!(listener.changed().now_or_never(), None);
        hub.notify(&Changes::Any);
        assert_eq!(listener.changed().now_or_never(), Some(true));
        hub.notify(&Changes::Tables(tables(&["c"])));
        assert_eq!(listener.changed().now_or_never(), None);
        hub.close();
        assert_eq!(listener.changed().now_or_never(), Some(false));
    }

    #[test]
    fn a_full_text_index_changes_with_its_tables() {
        let hub = Arc::new(Hub::default());
        let listener = Listener::new(&hub, Some(tables(&["notes_index"])));
        hub.notify(&Changes::Tables(tables(&["notes_index_data"])));
        assert_eq!(listener.changed().now_or_never(), Some(true));
    }
}
