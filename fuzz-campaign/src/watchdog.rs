//! Ends the process when one input is never done: a test cannot be stopped from inside otherwise.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure;

/// So long one input may take, on a busy machine and without optimisation.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Debug, Default)]
struct Running {
    state: Mutex<State>,
    /// The campaign is over.
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    input: Option<(Instant, Vec<u8>)>,
    over: bool,
}

/// Watches over one campaign, until dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<Running>);

impl Watchdog {
    pub(crate) fn new(target: &str) -> Self {
        let running = Arc::new(Running::default());
        let (watched, target) = (Arc::clone(&running), target.to_owned());
        thread::spawn(move || watched.watch(&target));
        Self(running)
    }

    /// An input begins.
    pub(crate) fn begin(&self, input: &[u8]) {
        self.0.lock().input = Some((Instant::now(), input.to_vec()));
    }

    /// It has ended; returns how long it took.
    pub(crate) fn end(&self) -> Duration {
        let began = self.0.lock().input.take();
        began.map_or(Duration::ZERO, |(began, _)| began.elapsed())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.over.notify_all();
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of the campaign, and looks whenever an input that runs now could be due.
    fn watch(&self, target: &str) {
        let mut state = self.lock();
        while !state.over {
            // One that begins in the meantime is due later.
            let left = match &state.input {
                None => LONGEST,
                Some((began, input)) => {
                    let left = LONGEST.saturating_sub(began.elapsed());
                    if left.is_zero() {
                        eprintln!("{target} is still busy after {} s with one input", LONGEST.as_secs());
                        eprintln!("{}", failure::describe(target, input));
                        std::process::exit(101);
                    }
                    left
                }
            };
            state = self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
