//! A promise that was not kept.

use std::fmt;

/// Which invariant does not hold, and how that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Failure {
    /// Its name, such as `S4`.
    pub(in super::super) invariant: &'static str,
    /// What was seen.
    pub(in super::super) what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Whether an invariant holds.
pub(in super::super) type Verdict = Result<(), Failure>;

/// `Ok` if it holds; otherwise says how not.
pub(super) fn holds(invariant: &'static str, truth: bool, what: impl FnOnce() -> String) -> Verdict {
    if truth { Ok(()) } else { Err(Failure { invariant, what: what() }) }
}
