//! An executor of one thread, in which chance decides which of the ready tasks runs next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;

use super::lock;
use super::process::Process;
use super::random::Random;

/// Runs tasks, each of which belongs to a process that may be crashed.
pub(super) struct Executor {
    tasks: BTreeMap<u64, Task>,
    spawner: Spawner,
    random: Random,
}

struct Task {
    process: Process,
    future: BoxFuture<'static, ()>,
    waker: Waker,
}

/// Starts tasks, also from within tasks. A handle.
#[derive(Clone, Default)]
pub(super) struct Spawner(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    spawned: Vec<(u64, Process, BoxFuture<'static, ()>)>,
    /// Tasks that were woken, none twice.
    ready: Vec<u64>,
}

struct TaskWaker {
    id: u64,
    queue: Spawner,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.queue.ready(self.id);
    }
}

impl Spawner {
    /// Starts a task of `process`; its number ends it.
    pub(super) fn spawn(&self, process: Process, future: impl Future<Output = ()> + Send + 'static) -> u64 {
        let mut queue = lock(&self.0);
        let id = queue.next;
        queue.next += 1;
        queue.spawned.push((id, process, Box::pin(future)));
        id
    }

    fn ready(&self, id: u64) {
        let mut queue = lock(&self.0);
        if !queue.ready.contains(&id) {
            queue.ready.push(id);
        }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

impl Executor {
    pub(super) fn new(random: Random) -> Self {
        Self { tasks: BTreeMap::new(), spawner: Spawner::default(), random }
    }

    pub(super) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Polls one of the ready tasks. Returns whose it was and its number; `None` if none is ready.
    pub(super) fn step(&mut self) -> Option<(Process, u64)> {
        self.take_in();
        loop {
            let id = {
                let mut queue = lock(&self.spawner.0);
                if queue.ready.is_empty() {
                    return None;
                }
                let index = self.random.index(queue.ready.len());
                queue.ready.swap_remove(index)
            };
            // One that was woken after its end is not there any more.
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let process = task.process;
            let waker = task.waker.clone();
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.tasks.remove(&id);
            }
            return Some((process, id));
        }
    }

    /// Whether no task is ready.
    pub(super) fn is_idle(&self) -> bool {
        let queue = lock(&self.spawner.0);
        queue.ready.is_empty() && queue.spawned.is_empty()
    }

    /// Ends all tasks of a process at once, wherever they are: their futures are dropped.
    pub(super) fn crash(&mut self, process: Process) {
        self.take_in();
        self.end_if(|_, task| task.process == process);
    }

    /// Ends one task.
    pub(super) fn end(&mut self, id: u64) {
        self.take_in();
        self.end_if(|of, _| of == id);
    }

    fn end_if(&mut self, ends: impl Fn(u64, &Task) -> bool) {
        let ids: Vec<u64> = self.tasks.iter().filter(|(id, task)| ends(**id, task)).map(|(id, _)| *id).collect();
        for id in ids {
            drop(self.tasks.remove(&id));
        }
    }

    fn take_in(&mut self) {
        let spawned = std::mem::take(&mut lock(&self.spawner.0).spawned);
        for (id, process, future) in spawned {
            let waker = Waker::from(Arc::new(TaskWaker { id, queue: self.spawner.clone() }));
            self.tasks.insert(id, Task { process, future, waker });
            self.spawner.ready(id);
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // What is spawned while tasks go away would keep the queue alive, and with it itself.
        self.tasks.clear();
        lock(&self.spawner.0).spawned.clear();
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}
