//! Ends the process when one input is never done: a test cannot be stopped from inside otherwise.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure;

/// So long one input may take, on a busy machine and without optimisation.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

type Running = Mutex<Option<(Instant, Vec<u8>)>>;

/// Watches over one campaign, until dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<Running>);

impl Watchdog {
    pub(crate) fn new(target: &str) -> Self {
        let running = Arc::new(Mutex::new(None));
        let (watched, target) = (Arc::downgrade(&running), target.to_owned());
        thread::spawn(move || watch(&watched, &target));
        Self(running)
    }

    /// An input begins.
    pub(crate) fn begin(&self, input: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), input.to_vec()));
    }

    /// It has ended; returns how long it took.
    pub(crate) fn end(&self) -> Duration {
        let began = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        began.map_or(Duration::ZERO, |(began, _)| began.elapsed())
    }
}

fn watch(running: &Weak<Running>, target: &str) {
    while let Some(running) = running.upgrade() {
        if let Some((began, input)) = &*running.lock().unwrap_or_else(PoisonError::into_inner)
            && began.elapsed() > LONGEST
        {
            eprintln!("{target} is still busy after {} s with one input", LONGEST.as_secs());
            eprintln!("{}", failure::describe(target, input));
            std::process::exit(101);
        }
        drop(running);
        thread::sleep(Duration::from_millis(500));
    }
}
