//! Threads that own connections, and the bounded queue that feeds them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use futures::channel::oneshot;
use syncline_core::{Error, Result};

/// Jobs that wait at most; callers beyond it wait for room.
const WAITING: usize = 256;

type Job<C> = Box<dyn FnOnce(&mut C) + Send>;

/// Threads that each own a `C` and run jobs on it, in the order of the queue. Dropping it runs what is queued and waits
/// for the threads to end.
pub(super) struct Workers<C> {
    queue: Arc<Queue<C>>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue<C> {
    state: Mutex<State<C>>,
    work: Condvar,
}

struct State<C> {
    jobs: VecDeque<Job<C>>,
    /// Callers that wait for room; all are woken at once and look again.
    callers: Vec<oneshot::Sender<()>>,
    /// No thread takes jobs any more.
    closed: bool,
    /// Because one panicked.
    broken: bool,
}

impl<C: Send + 'static> Workers<C> {
    /// One thread for each context.
    pub(super) fn start(name: &str, contexts: Vec<C>) -> Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State { jobs: VecDeque::new(), callers: Vec::new(), closed: false, broken: false }),
            work: Condvar::new(),
        });
        let mut workers = Self { queue: Arc::clone(&queue), threads: Vec::new() };
        for mut context in contexts {
            let queue = Arc::clone(&queue);
            let thread = Builder::new().name(format!("syncline {name}")).spawn(move || {
                // However the thread ends, nobody is left waiting for it.
                let _closing = Closing(&queue);
                while let Some(job) = queue.next() {
                    job(&mut context);
                }
            });
            let thread = thread.map_err(|error| Error::unavailable("cannot start a thread").caused_by(error))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Runs a job to its end, also if this future is dropped once the job is queued.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut C) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // A caller that is gone needs no answer.
        let job = move |context: &mut C| drop(reply.send(job(context)));
        self.queue.push(Box::new(job)).await?;
        answer.await.map_err(|_| Error::internal("a thread of the bucket store ended before it answered"))?
    }

    /// Runs a job, unless nobody waits for its answer any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut C) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move |context: &mut C| {
            if !reply.is_canceled() {
                drop(reply.send(job(context)));
            }
        };
        self.queue.push(Box::new(job)).await?;
        answer.await.map_err(|_| Error::internal("a thread of the bucket store ended before it answered"))?
    }
}

impl<C> Queue<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn push(&self, job: Job<C>) -> Result<()> {
        loop {
            let room = {
                let mut state = self.state();
                if state.broken {
                    return Err(Error::internal("a thread of the bucket store panicked; open it again"));
                }
                if state.closed {
                    return Err(Error::closed("the bucket store was closed"));
                }
                if state.jobs.len() < WAITING {
                    state.jobs.push_back(job);
                    self.work.notify_one();
                    return Ok(());
                }
                let (wake, room) = oneshot::channel();
                state.callers.push(wake);
                room
            };
            // Either way the next look tells.
            let _ = room.await;
        }
    }

    fn next(&self) -> Option<Job<C>> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                if state.jobs.len() <= WAITING / 2 {
                    state.wake_callers();
                }
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake_callers();
        drop(state);
        self.work.notify_all();
    }
}

impl<C> State<C> {
    fn wake_callers(&mut self) {
        for caller in self.callers.drain(..) {
            // One that is gone needs no room.
            let _ = caller.send(());
        }
    }
}

/// Closes a queue and forgets its jobs if the thread panicked; the answers of those are then cancelled.
struct Closing<'a, C>(&'a Queue<C>);

impl<C> Drop for Closing<'_, C> {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            let mut state = self.0.state();
            state.broken = true;
            let jobs = std::mem::take(&mut state.jobs);
            drop(state);
            drop(jobs);
        }
    }
}

impl<C> Drop for Workers<C> {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A caller's waker may drop the last handle on one of these threads, which cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the bucket store panicked");
            }
        }
    }
}

impl<C> fmt::Debug for Workers<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}
