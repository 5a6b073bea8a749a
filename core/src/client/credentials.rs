//! Credentials: kept between uses, fetched when somebody needs them, dropped when they were refused.

use crate::connector::Credentials;
use crate::time::Time;

use super::options::ClientLimits;
use super::reconnect::{Backoff, Jitter};

/// The credentials that a session shares between its stream and its uploads.
#[derive(Debug)]
pub(super) struct CredentialCache {
    kept: Option<Credentials>,
    fetched_at: Time,
    fetch: Fetch,
    /// New ones are wanted although those at hand are still good.
    refresh: bool,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Idle,
    Running { deadline: Time },
    Waiting { until: Time },
}

impl CredentialCache {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            kept: None,
            fetched_at: Time::default(),
            fetch: Fetch::Idle,
            refresh: false,
            backoff: Backoff::new(limits.reconnect),
        }
    }

    pub(super) fn get(&self) -> Option<&Credentials> {
        self.kept.as_ref()
    }

    /// When those at hand were fetched.
    pub(super) fn fetched_at(&self) -> Time {
        self.fetched_at
    }

    /// These were refused; others that were fetched meanwhile stay.
    pub(super) fn refuse(&mut self, refused: &Credentials) {
        if self.kept.as_ref() == Some(refused) {
            self.kept = None;
        }
    }

    /// Those that were fetched before are not good enough.
    pub(super) fn forget_older(&mut self, than: Time) {
        if self.fetched_at < than {
            self.kept = None;
        }
    }

    /// Those at hand expire soon.
    pub(super) fn refresh(&mut self) {
        self.refresh = true;
    }

    /// Whether to start a fetch now, given that somebody waits for credentials or not.
    pub(super) fn start(&mut self, now: Time, awaited: bool, limits: &ClientLimits) -> bool {
        let wanted = self.refresh || (awaited && self.kept.is_none());
        if !wanted || self.fetch != Fetch::Idle {
            return false;
        }
        self.fetch = Fetch::Running { deadline: now + limits.credentials };
        true
    }

    pub(super) fn fetching(&self) -> bool {
        matches!(self.fetch, Fetch::Running { .. })
    }

    /// Whether the running fetch has taken too long.
    pub(super) fn overdue(&self, now: Time) -> bool {
        matches!(self.fetch, Fetch::Running { deadline } if deadline <= now)
    }

    /// Ends a back-off that is over.
    pub(super) fn tick(&mut self, now: Time) {
        if matches!(self.fetch, Fetch::Waiting { until } if until <= now) {
            self.fetch = Fetch::Idle;
        }
    }

    pub(super) fn retry_now(&mut self) {
        if matches!(self.fetch, Fetch::Waiting { .. }) {
            self.fetch = Fetch::Idle;
        }
    }

    pub(super) fn fetched(&mut self, now: Time, credentials: Credentials) {
        self.kept = Some(credentials);
        self.fetched_at = now;
        self.fetch = Fetch::Idle;
        self.refresh = false;
        self.backoff.reset();
    }

    pub(super) fn failed(&mut self, now: Time, jitter: &mut Jitter) {
        self.fetch = Fetch::Waiting { until: self.backoff.next(now, jitter) };
    }

    pub(super) fn timeout(&self) -> Option<Time> {
        match self.fetch {
            Fetch::Idle => None,
            Fetch::Running { deadline } => Some(deadline),
            Fetch::Waiting { until } => Some(until),
        }
    }
}
