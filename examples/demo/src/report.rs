//! Progress for a person who watches: one line per step, with its time, and a summary.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    done: u32,
    failed: u32,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), done: 0, failed: 0 }
    }

    /// Runs one step and prints how it went.
    pub(crate) async fn step<T>(&mut self, name: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let spinner = ProgressBar::new_spinner().with_message(name);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}  {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        let begun = Instant::now();
        let outcome = work.await;
        spinner.finish_and_clear();
        let millis = begun.elapsed().as_millis();
        match &outcome {
            Ok(_) => {
                self.done += 1;
                println!("  ok      {name} ({millis} ms)");
            }
            Err(error) => {
                self.failed += 1;
                println!("  FAILED  {name} ({millis} ms): {error:#}");
            }
        }
        outcome.context(name)
    }

    pub(crate) fn finish(self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        println!("\n{} steps done, {} failed, in {seconds:.1} s", self.done, self.failed);
    }
}
