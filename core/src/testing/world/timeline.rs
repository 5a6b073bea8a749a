//! Who did what, and when: the last events for people, and a number that two runs of one seed must share.

use std::collections::VecDeque;
use std::fmt;

/// Events that are kept.
const KEPT: usize = 400;

/// The events of a run.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    events: VecDeque<(u64, String)>,
    fingerprint: u64,
    /// Events so far.
    count: u64,
}

impl Timeline {
    /// Notes an event.
    pub(super) fn push(&mut self, now: u64, event: String) {
        self.mix(now);
        event.bytes().for_each(|byte| self.mix(u64::from(byte)));
        self.count += 1;
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back((now, event));
    }

    /// Notes something that only the fingerprint needs to know.
    pub(super) fn mix(&mut self, number: u64) {
        // FNV-1a, over whole numbers.
        self.fingerprint = (self.fingerprint ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    /// Differs if anything happened in another way.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count > self.events.len() as u64 {
            writeln!(f, "  … {} earlier events", self.count - self.events.len() as u64)?;
        }
        for (at, event) in &self.events {
            writeln!(f, "  {:>4}.{:03} s  {event}", at / 1_000, at % 1_000)?;
        }
        Ok(())
    }
}
