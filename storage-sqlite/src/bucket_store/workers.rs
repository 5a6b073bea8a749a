//! Threads that own connections, and the bounded queue that feeds them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

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
    /// No job runs any more.
    idle: Condvar,
}

struct State<C> {
    jobs: VecDeque<Job<C>>,
    /// Places that are given: to jobs that wait, and to callers that are about to fill one.
    taken: usize,
    /// Callers that wait for a place, in the order in which they came.
    callers: VecDeque<oneshot::Sender<Place<C>>>,
    running: usize,
    /// Jobs wait until this is over.
    held: bool,
    /// No thread takes jobs any more.
    closed: bool,
    /// Because one panicked.
    broken: bool,
}

impl<C: Send + 'static> Workers<C> {
    /// One thread for each context.
    pub(super) fn start(name: &str, contexts: Vec<C>) -> Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                taken: 0,
                callers: VecDeque::new(),
                running: 0,
                held: false,
                closed: false,
                broken: false,
            }),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let mut workers = Self { queue: Arc::clone(&queue), threads: Vec::new() };
        for mut context in contexts {
            let queue = Arc::clone(&queue);
            let thread = Builder::new().name(format!("syncline {name}")).spawn(move || {
                // However the thread ends, nobody is left waiting for it.
                let _closing = Closing(&queue);
                while let Some(job) = queue.next() {
                    job(&mut context);
                    queue.done();
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

impl<C: Send + 'static> Workers<C> {
    /// What can hold the threads back.
    pub(super) fn brake(&self) -> Brake {
        Brake(Arc::clone(&self.queue) as Arc<dyn Hold>)
    }
}

/// Holds the threads of some workers back for a moment.
#[derive(Debug)]
pub(super) struct Brake(Arc<dyn Hold>);

impl Brake {
    /// Runs something while no job runs. `None` if the jobs at hand do not end in time.
    pub(super) fn hold<T>(&self, patience: Duration, something: impl FnOnce() -> T) -> Option<T> {
        let held = Held(&*self.0);
        held.0.begin(patience).then(something)
    }
}

/// Lets jobs run again, whatever happens meanwhile.
struct Held<'a>(&'a dyn Hold);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

trait Hold: fmt::Debug + Send + Sync {
    /// Lets no further job begin, and waits for those that run. Whether they ended.
    fn begin(&self, patience: Duration) -> bool;
    fn end(&self);
}

impl<C: Send> Hold for Queue<C> {
    fn begin(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.held = true;
        let waited = self.idle.wait_timeout_while(state, patience, |state| state.running > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.running == 0
    }

    fn end(&self) {
        self.state().held = false;
        self.work.notify_all();
    }
}

impl<C> fmt::Debug for Queue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// The right to add a job; dropping it passes it on.
struct Place<C>(Option<Arc<Queue<C>>>);

impl<C> Drop for Place<C> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.pass_on();
        }
    }
}

impl<C> Queue<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn push(self: &Arc<Self>, job: Job<C>) -> Result<()> {
        let place = {
            let mut state = self.state();
            state.check()?;
            if state.taken < WAITING && state.callers.is_empty() {
                state.taken += 1;
                state.jobs.push_back(job);
                self.work.notify_one();
                return Ok(());
            }
            let (give, place) = oneshot::channel();
            state.callers.push_back(give);
            place
        };
        let place = place.await;
        let mut state = self.state();
        state.check()?;
        if let Ok(mut place) = place {
            // From here on the job has it.
            place.0 = None;
            state.jobs.push_back(job);
            self.work.notify_one();
        }
        Ok(())
    }

    /// Gives a place that became free to the caller that waits longest.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let caller = {
                let mut state = self.state();
                match state.callers.pop_front() {
                    Some(caller) => caller,
                    None => {
                        state.taken -= 1;
                        return;
                    }
                }
            };
            match caller.send(Place(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // One that is gone needs no place.
                Err(mut place) => place.0 = None,
            }
        }
    }

    fn next(self: &Arc<Self>) -> Option<Job<C>> {
        let mut state = self.state();
        loop {
            if !state.held
                && let Some(job) = state.jobs.pop_front()
            {
                state.running += 1;
                drop(state);
                self.pass_on();
                return Some(job);
            }
            if state.closed && state.jobs.is_empty() {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job has ended.
    fn done(&self) {
        self.state().running -= 1;
        self.idle.notify_all();
    }

    fn close(&self) {
        let callers = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.callers)
        };
        // They look again, and find it closed.
        drop(callers);
        self.work.notify_all();
    }
}

impl<C> State<C> {
    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::internal("a thread of the bucket store panicked; open it again"));
        }
        if self.closed {
            return Err(Error::closed("the bucket store was closed"));
        }
        Ok(())
    }
}

/// Closes a queue and forgets its jobs if the thread panicked; the answers of those are then cancelled.
struct Closing<'a, C>(&'a Queue<C>);

impl<C> Drop for Closing<'_, C> {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            self.0.done();
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn a_newcomer_does_not_overtake_one_that_waits_for_room() {
        let workers = Workers::start("test", vec![Vec::new()]).unwrap();
        let (step, steps) = mpsc::channel::<()>();
        let steps = Arc::new(Mutex::new(steps));
        let ask = |number: usize| {
            let steps = Arc::clone(&steps);
            workers.call(move |done: &mut Vec<usize>| {
                steps.lock().unwrap().recv().unwrap();
                done.push(number);
                Ok(done.clone())
            })
        };
        // One job runs, the queue is full, and the last one waits for room.
        let mut asked: Vec<_> = (0..WAITING + 2).map(|number| Box::pin(ask(number))).collect();
        assert!(asked.iter_mut().all(|asked| asked.now_or_never().is_none()));
        step.send(()).unwrap();
        block_on(asked.remove(0)).unwrap();
        let mut newcomer = Box::pin(ask(999));
        assert!((&mut newcomer).now_or_never().is_none());
        (0..WAITING + 2).for_each(|_| step.send(()).unwrap());
        let others = block_on(futures::future::try_join_all(asked));
        assert_eq!(others.unwrap().last().unwrap().last(), Some(&(WAITING + 1)));
        assert_eq!(block_on(newcomer).unwrap().last(), Some(&999));
    }

    #[test]
    fn a_place_that_is_given_to_one_that_goes_is_passed_on() {
        let workers = Workers::start("test", vec![()]).unwrap();
        let (step, steps) = mpsc::channel::<()>();
        let steps = Arc::new(Mutex::new(steps));
        let ask = || {
            let steps = Arc::clone(&steps);
            workers.call(move |_| steps.lock().unwrap().recv().map_err(|_| Error::internal("no more steps")))
        };
        let mut asked: Vec<_> = (0..WAITING + 20).map(|_| Box::pin(ask())).collect();
        assert!(asked.iter_mut().all(|asked| asked.now_or_never().is_none()));
        let last = asked.pop().unwrap();
        let waiting = asked.split_off(WAITING);
        (0..10).for_each(|_| step.send(()).unwrap());
        block_on(futures::future::try_join_all(asked.drain(..10))).unwrap();
        drop(waiting);
        (0..WAITING + 20).for_each(|_| step.send(()).unwrap());
        block_on(last).unwrap();
        block_on(futures::future::try_join_all(asked)).unwrap();
    }

    #[test]
    fn no_job_runs_while_the_brake_is_held() {
        let workers = Workers::start("test", vec![0_u32]).unwrap();
        let brake = workers.brake();
        let mut asked = None;
        let held = brake.hold(Duration::from_secs(10), || {
            let mut job = Box::pin(workers.call(|count| {
                *count += 1;
                Ok(*count)
            }));
            let answer = (&mut job).now_or_never();
            asked = Some(job);
            answer.is_none()
        });
        assert_eq!(held, Some(true));
        assert_eq!(block_on(asked.unwrap()).unwrap(), 1);
    }
}
