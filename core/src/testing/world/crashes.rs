//! How processes of a world end and begin again, and what they find on their disks then.

use futures::FutureExt;

use super::ledger::Fact;
use super::process::Process;
use super::simulation::Simulation;
use crate::bucket_store::Resume;
use crate::client_store::{ClientStore, PublishRequest};
use crate::local_transaction::LocalWrite;
use crate::time::WallTime;

impl Simulation {
    /// Ends a process where it is, unless it has ended already.
    pub(super) fn crash(&mut self, process: Process) {
        match process {
            Process::World => {}
            Process::Host => {
                self.kill_host();
                self.reopen_bucket_store(false);
            }
            Process::Client(client) => {
                if self.kill(process) {
                    self.reopen_device(client, None);
                }
            }
            Process::Replicator | Process::Server => {
                self.kill(process);
            }
        }
    }

    /// Starts a process that was crashed.
    pub(super) fn restart(&mut self, process: Process) {
        self.faults.lock().doomed.remove(&process);
        if process == Process::Host {
            self.restart(Process::Replicator);
            self.restart(Process::Server);
        } else if self.down.remove(&process) {
            match process {
                Process::Replicator => self.start_replicator(),
                Process::Server => self.start_server(),
                Process::Client(client) => self.start_client(client),
                Process::World | Process::Host => {}
            }
        }
    }

    /// Takes away the processes that died in the step that was just taken, and opens their stores again.
    pub(super) fn bury(&mut self) {
        let died = std::mem::take(&mut self.faults.lock().died);
        for (process, publish) in died {
            if let Process::Client(client) = process {
                self.kill(process);
                self.reopen_device(client, publish);
            } else {
                self.kill_host();
                self.reopen_bucket_store(true);
            }
        }
    }

    /// A device loses its power while its application writes.
    pub(super) fn die_while_writing(&mut self, client: usize, writes: Vec<LocalWrite>) {
        let store = self.devices[client].store.clone();
        let written = if store.brace(self.random.next()) { store.write(writes) } else { None };
        self.kill(Process::Client(client));
        store.crash(self.random.next());
        // Nobody was told that it is stored, but if it is, it is a write like any other.
        if let Some(transaction) = written.filter(|written| store.is_queued(written.transaction_id)) {
            self.ledger.record(Fact::Wrote { client, transaction });
        }
        self.look_at_device(client, None);
    }

    /// Where the bucket store stands; what is known of it is up to date then.
    pub(super) fn look_at_store(&mut self) -> Resume {
        match self.disk.look().now_or_never() {
            Some(Ok(resume)) => resume,
            other => panic!("the store of a world must say where it stands: {other:?}"),
        }
    }

    /// Ends the tasks of a process. False if it had ended already.
    fn kill(&mut self, process: Process) -> bool {
        if !self.down.insert(process) {
            return false;
        }
        self.ledger.note(format!("{process} crashes"));
        match process {
            Process::Server => self.port.listen(None),
            Process::Client(client) => self.clients[client] = None,
            _ => {}
        }
        self.executor.crash(process);
        self.oracle.crashed(process);
        true
    }

    fn kill_host(&mut self) {
        self.kill(Process::Replicator);
        self.kill(Process::Server);
    }

    fn reopen_bucket_store(&mut self, amid: bool) {
        let known = super::lock(&self.disk.known).clone();
        self.disk.store.crash(self.random.next());
        let found = self.look_at_store();
        // Nobody had looked at a store that nothing was ever committed to.
        let known = known.unwrap_or_else(|| found.clone());
        self.ledger.record(Fact::StoreReopened { known: Box::new(known), found: Box::new(found), amid });
    }

    fn reopen_device(&mut self, client: usize, publish: Option<PublishRequest>) {
        self.devices[client].store.crash(self.random.next());
        self.look_at_device(client, publish);
    }

    fn look_at_device(&mut self, client: usize, publish: Option<PublishRequest>) {
        let device = &self.devices[client];
        let kept = match device.kept().now_or_never() {
            Some(Ok(kept)) => kept,
            other => panic!("the store of a client must say what it has: {other:?}"),
        };
        let state = device.store.resume(WallTime(i64::MIN)).now_or_never();
        let last_synced_at = state.and_then(Result::ok).and_then(|state| state.last_synced_at);
        self.ledger.record(Fact::Reopened { client, publish: publish.map(Box::new), kept, last_synced_at });
    }
}
