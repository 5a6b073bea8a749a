//! Whole runs of a world that a seed alone decides: who is there, what they write, what breaks and when.
//!
//! A run has two halves. While things happen and break, only safety is looked at, after every step. Then all faults end, and
//! within a bound everything must be as if there had been none.

mod action;
mod drive;
mod generate;
mod rule;
mod shrink;
mod theme;

use std::fmt;
use std::sync::Arc;

use self::action::Action;
use super::database::Change;
use super::memory_stores::MemoryStores;
use super::oracle::Failure;
use super::random::Random;
use super::stores::WorldStores;

/// A run of a world, drawn from a seed.
///
/// ```
/// use syncline_core::testing::Scenario;
///
/// let report = Scenario::of(7).run();
/// assert!(report.failure().is_none(), "{report}");
/// assert_eq!(report.fingerprint(), Scenario::of(7).run().fingerprint());
/// ```
#[derive(Debug, Clone)]
pub struct Scenario {
    seed: u64,
    setup: Setup,
    steps: Vec<Step>,
}

/// What there is before anything happens.
#[derive(Debug, Clone)]
struct Setup {
    /// User and team of each client.
    clients: Vec<(String, String)>,
    /// How long a token lasts; for ever if not said.
    token_life_s: Option<u64>,
    compact_every_s: u64,
    /// When faults end, both sides of each connection learn that it is broken.
    faults_end_in_sight: bool,
    /// A client that goes on doing nothing when faults have ended for the others.
    stalled: Option<usize>,
    rows_before: Vec<Change>,
}

/// Something that happens at a time, in milliseconds from the beginning.
#[derive(Debug, Clone)]
struct Step {
    at: u64,
    /// So many steps of the world later: somewhere in the middle of what goes on then.
    nudge: u64,
    action: Action,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    seed: u64,
    failure: Option<Failure>,
    timeline: String,
    fingerprint: u64,
    steps: u64,
    healed_in: u64,
    actions: Vec<String>,
}

impl Scenario {
    /// The scenario of a seed: always the same.
    pub fn of(seed: u64) -> Self {
        generate::scenario(seed, &generate::chance(seed))
    }

    /// The scenario that bytes choose, for fuzzing: each stands for a choice or a part of one. What they do not say is as
    /// little as there can be.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let random = Random::of_bytes(bytes);
        let seed = random.below(1 << 16);
        generate::scenario(seed, &random)
    }

    /// Runs it over stores in memory.
    pub fn run(&self) -> Report {
        self.run_over(&in_memory())
    }

    /// Runs it over these stores.
    pub fn run_over(&self, stores: &Arc<dyn WorldStores>) -> Report {
        drive::run(self, stores)
    }

    /// Runs the scenario of a seed, and panics if a promise is broken: with the command that repeats it, the smallest part
    /// of the scenario that still breaks it, and a timeline. Returns what came of it.
    ///
    /// # Panics
    /// See above.
    pub fn check(seed: u64) -> Report {
        Self::check_over(seed, &in_memory())
    }

    /// The same over these stores.
    ///
    /// # Panics
    /// See [`check`](Self::check).
    pub fn check_over(seed: u64, stores: &Arc<dyn WorldStores>) -> Report {
        match Self::of(seed).shrunk_over(stores) {
            Ok(report) => report,
            Err(smallest) => {
                let test = stores.test();
                panic!("{smallest}\nrepeat with: WORLD_FROM={seed} WORLD_SEEDS=1 cargo nextest run {test}");
            }
        }
    }

    /// Runs it; if a promise is broken, what is returned is the smallest part of it that still breaks it.
    pub(crate) fn shrunk(&self) -> Result<Report, Report> {
        self.shrunk_over(&in_memory())
    }

    fn shrunk_over(&self, stores: &Arc<dyn WorldStores>) -> Result<Report, Report> {
        let report = self.run_over(stores);
        if report.failure.is_some() { Err(shrink::smallest(self, &report, stores)) } else { Ok(report) }
    }
}

fn in_memory() -> Arc<dyn WorldStores> {
    Arc::new(MemoryStores)
}

impl Report {
    /// The broken promise, in words that begin with its name, if there is one.
    pub fn failure(&self) -> Option<String> {
        self.failure.as_ref().map(Failure::to_string)
    }

    /// A number that differs between two runs if anything in them happened differently.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// How often a task was polled or time moved on.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How long it took after the end of all faults until everything was in order, in milliseconds of virtual time.
    pub fn healed_in_ms(&self) -> u64 {
        self.healed_in
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Some(failure) => writeln!(f, "seed {}: {failure}", self.seed)?,
            None => writeln!(f, "seed {}: {} steps, nothing broken", self.seed, self.steps)?,
        }
        writeln!(f, "what happens to the world:")?;
        for action in &self.actions {
            writeln!(f, "  {action}")?;
        }
        writeln!(f, "timeline:")?;
        f.write_str(&self.timeline)
    }
}
