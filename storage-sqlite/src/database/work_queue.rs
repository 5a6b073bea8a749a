//! The queue of a worker thread: bounded, with the application's work before that of sync.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::error::Result;

/// Jobs of one kind that may wait before those who submit have to.
const CAPACITY: usize = 1024;
/// While a task of sync waits, the application's jobs run for at most this long before it gets a turn.
const LOCAL_TURN: Duration = Duration::from_millis(20);

/// A closure of the application, run to its end.
pub(crate) type Job<W> = Box<dyn FnOnce(&mut W) + Send>;
/// Work of sync, done in steps between which the application's jobs run.
pub(crate) type Task<W> = Box<dyn FnMut(&mut W) -> Step + Send>;

/// What a [`Task`] answers after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    Again,
    /// It is finished.
    Done,
}

/// What a worker is to do next.
pub(crate) enum Work<W> {
    Job(Job<W>),
    Task(Task<W>),
    /// Nothing came in time.
    Idle,
    Closed,
}

/// The queue.
pub(crate) struct WorkQueue<W> {
    state: Mutex<State<W>>,
    ready: Condvar,
    worker: OnceLock<ThreadId>,
}

struct State<W> {
    jobs: VecDeque<(Instant, Job<W>)>,
    tasks: VecDeque<Task<W>>,
    /// Since when jobs were run although a task waited.
    local_turn: Option<Instant>,
    /// Tasks wait until they are released.
    held: bool,
    wakers: Vec<Waker>,
    closed: bool,
}

impl<W> std::fmt::Debug for WorkQueue<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("WorkQueue")
            .field("jobs", &state.jobs.len())
            .field("tasks", &state.tasks.len())
            .field("closed", &state.closed)
            .finish()
    }
}

impl<W> WorkQueue<W> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                tasks: VecDeque::new(),
                local_turn: None,
                held: false,
                wakers: Vec::new(),
                closed: false,
            }),
            ready: Condvar::new(),
            worker: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // Nothing runs under the lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the calling thread as the worker: it must never wait for itself.
    pub(crate) fn adopt(&self) {
        let _ = self.worker.set(std::thread::current().id());
    }

    /// Submits a job; waits while too many wait already.
    pub(crate) async fn submit(&self, job: Job<W>) -> Result<()> {
        self.check_nesting()?;
        let mut job = Some((Instant::now(), job));
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(Err(closed()));
            }
            if state.jobs.len() >= CAPACITY {
                state.wakers.push(context.waker().clone());
                return Poll::Pending;
            }
            state.jobs.extend(job.take());
            self.ready.notify_one();
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Submits a task of sync, behind those that wait.
    pub(crate) fn submit_task(&self, task: Task<W>) -> Result<()> {
        self.check_nesting()?;
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        state.tasks.push_back(task);
        self.ready.notify_one();
        Ok(())
    }

    /// Submits upkeep from the worker itself. `false` if the queue is closed.
    pub(crate) fn submit_upkeep(&self, task: Task<W>) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.tasks.push_back(task);
        }
        !state.closed
    }

    fn check_nesting(&self) -> Result<()> {
        if self.worker.get() == Some(&std::thread::current().id()) {
            let message = "the database was used inside a closure that it runs itself, which would wait for ever: use the transaction";
            return Err(syncline_core::Error::invalid(message).into());
        }
        Ok(())
    }

    /// Puts back a task that has more to do, before all others.
    pub(crate) fn resume_task(&self, task: Task<W>) {
        self.lock().tasks.push_front(task);
    }

    /// Lets tasks wait, and only them, until [`WorkQueue::release_tasks`].
    pub(crate) fn hold_tasks(&self) {
        self.lock().held = true;
    }

    /// Lets tasks go on.
    pub(crate) fn release_tasks(&self) {
        self.lock().held = false;
        self.ready.notify_one();
    }

    /// The next work, or [`Work::Idle`] after `patience`. Jobs come first, but never starve tasks.
    pub(crate) fn next(&self, patience: Duration) -> Work<W> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let turn_is_over = state.local_turn.is_some_and(|since| since.elapsed() >= LOCAL_TURN);
            // What was accepted is done even so.
            let held = state.held && !state.closed;
            if !held
                && (state.jobs.is_empty() || turn_is_over)
                && let Some(task) = state.tasks.pop_front()
            {
                state.local_turn = None;
                return Work::Task(task);
            }
            if let Some((_, job)) = state.jobs.pop_front() {
                if state.tasks.is_empty() {
                    state.local_turn = None;
                } else {
                    state.local_turn.get_or_insert_with(Instant::now);
                }
                for waker in state.wakers.drain(..) {
                    waker.wake();
                }
                return Work::Job(job);
            }
            if state.closed {
                return Work::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::Idle;
            }
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long the oldest job of the application has been waiting.
    pub(crate) fn waiting(&self) -> Option<Duration> {
        self.lock().jobs.front().map(|(since, _)| since.elapsed())
    }

    /// Refuses new work; what was accepted is still done.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for waker in state.wakers.drain(..) {
            waker.wake();
        }
        self.ready.notify_all();
    }
}

/// The error of everything after [`WorkQueue::close`].
pub(crate) fn closed() -> super::error::Error {
    syncline_core::Error::closed("the database was closed").into()
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn submit(queue: &WorkQueue<Vec<&'static str>>) {
        queue
            .submit_task(Box::new(|done| {
                done.push("task");
                Step::Done
            }))
            .unwrap_or_else(|error| panic!("{error}"));
        block_on(queue.submit(Box::new(|done| done.push("job")))).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Everything that there is to do now.
    fn work(queue: &WorkQueue<Vec<&'static str>>) -> Vec<&'static str> {
        let mut done = Vec::new();
        loop {
            match queue.next(Duration::ZERO) {
                Work::Job(job) => job(&mut done),
                Work::Task(mut task) => {
                    task(&mut done);
                }
                Work::Idle | Work::Closed => return done,
            }
        }
    }

    #[test]
    fn a_local_write_goes_before_tasks_and_does_not_wait_while_they_are_held() {
        let queue = WorkQueue::new();
        submit(&queue);
        assert_eq!(work(&queue), ["job", "task"]);
        queue.hold_tasks();
        submit(&queue);
        assert_eq!(work(&queue), ["job"]);
        queue.release_tasks();
        assert_eq!(work(&queue), ["task"]);
        queue.hold_tasks();
        submit(&queue);
        queue.close();
        assert_eq!(work(&queue), ["job", "task"], "what was accepted is done");
    }
}
