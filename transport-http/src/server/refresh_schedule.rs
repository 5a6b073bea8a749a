//! When published keys are fetched again. Pure: time comes in, decisions go out.

use std::time::Duration;

use syncline_core::Time;

/// Keys older than this are refreshed when they are next used.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// Keys older than this are not used any more: their issuer may have withdrawn them.
const USABLE: Duration = Duration::from_secs(60 * 60);
/// Refreshes that the allowance holds.
const ALLOWANCE: f64 = 10.0;
/// The allowance grows by one in this time.
const REGAIN: Duration = Duration::from_secs(60);

/// What the age of keys means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// They are used as they are.
    Fresh,
    /// They are used, and refreshed beside that.
    Stale,
    /// They are not used; whoever needs them waits for new ones.
    Unusable,
}

/// Decides when to fetch. Successes are rare and failures or tokens by unknown keys may be many, so fetches share an
/// allowance: the more of it was used lately, the longer the wait for the next one.
#[derive(Debug, Default)]
pub(super) struct RefreshSchedule {
    fetched_at: Option<Time>,
    attempted_at: Option<Time>,
    /// Used allowance at the time of the last attempt.
    used: f64,
    running: bool,
}

impl RefreshSchedule {
    /// The age of the keys.
    pub(super) fn age(&self, now: Time) -> Age {
        match self.fetched_at.map(|at| now.since(at)) {
            Some(age) if age < FRESH => Age::Fresh,
            Some(age) if age < USABLE => Age::Stale,
            _ => Age::Unusable,
        }
    }

    /// Whether a fetch is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Whether to start a fetch now; if so, it counts as started.
    pub(super) fn start(&mut self, now: Time) -> bool {
        if self.running {
            return false;
        }
        if let Some(last) = self.attempted_at {
            let since = now.since(last);
            let used = (self.used - since.as_secs_f64() / REGAIN.as_secs_f64()).max(0.0);
            let share = used / ALLOWANCE;
            if used + 1.0 > ALLOWANCE || since.as_secs_f64() < share * share * REGAIN.as_secs_f64() {
                return false;
            }
            self.used = used;
        }
        self.used += 1.0;
        self.attempted_at = Some(now);
        self.running = true;
        true
    }

    /// The fetch that was started has ended.
    pub(super) fn ended(&mut self, now: Time, fetched: bool) {
        self.running = false;
        if fetched {
            self.fetched_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn keys_are_refreshed_after_five_minutes_and_dropped_after_an_hour() {
        let mut schedule = RefreshSchedule::default();
        assert_eq!(schedule.age(at(0)), Age::Unusable);
        assert!(schedule.start(at(0)));
        assert!(!schedule.start(at(0)), "one at a time");
        assert!(schedule.is_running());
        schedule.ended(at(1), true);
        assert_eq!(schedule.age(at(300)), Age::Fresh);
        assert_eq!(schedule.age(at(301)), Age::Stale);
        assert!(schedule.start(at(301)));
        schedule.ended(at(302), false);
        assert_eq!(schedule.age(at(3_600)), Age::Stale);
        assert_eq!(schedule.age(at(3_601)), Age::Unusable);
    }

    #[test]
    fn many_attempts_slow_down_and_an_idle_time_makes_up_for_them() {
        let mut schedule = RefreshSchedule::default();
        // Somebody sends tokens by unknown keys all the time, for an hour.
        let mut attempts = Vec::new();
        for tenth in 0..36_000_u64 {
            let now = Time(1_000_000 + tenth * 100);
            if schedule.start(now) {
                attempts.push(tenth / 10);
                schedule.ended(now, true);
            }
        }
        assert!(attempts[1] <= 2, "a second one comes soon: {attempts:?}");
        assert!((60..=72).contains(&attempts.len()), "then about one a minute: {}", attempts.len());
        assert!(schedule.start(at(3_600 + 700)));
        schedule.ended(at(3_600 + 700), true);
        assert!(schedule.start(at(3_600 + 702)), "the allowance is back");
    }
}
