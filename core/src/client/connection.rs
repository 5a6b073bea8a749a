//! The stream of a session: where it is between waiting, opening and open, and how long it may stay there.

use std::sync::Arc;
use std::time::Duration;

use crate::connector::Credentials;
use crate::protocol::SyncRequest;
use crate::time::Time;

use super::options::ClientLimits;
use super::reconnect::{Backoff, Jitter};

/// A stream is not opened again by choice more often than this: a burst of subscriptions becomes one request.
const SHORTEST_STREAM: Duration = Duration::from_millis(500);
/// With new credentials it is opened again at the earliest after this, lest short-lived tokens make a loop.
const SHORTEST_TOKEN: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Link {
    /// Until then nothing is tried.
    Waiting {
        until: Time,
    },
    /// The store is to be read for the request.
    Asking,
    /// Waits for credentials.
    Ready {
        request: Arc<SyncRequest>,
    },
    Opening {
        deadline: Time,
        credentials: Credentials,
    },
    Open {
        since: Time,
        heard: Time,
        credentials: Credentials,
    },
}

/// The stream of a session.
#[derive(Debug)]
pub(super) struct Connection {
    link: Link,
    backoff: Backoff,
    /// A stream was closed by choice and is being replaced: the application sees no interruption.
    replacing: bool,
    /// An open stream is to be replaced then.
    replace_at: Option<Time>,
    /// Fresh credentials were tried after a refusal.
    refused: bool,
    /// A stream was opened since the last refusal.
    accepted: bool,
    /// After a refusal and a while only credentials that were fetched from then on are good enough.
    trusted_from: Option<Time>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The stream did not open in time.
    NotOpened,
    /// The stream was silent for too long.
    Silent,
    /// The stream is to be replaced.
    Replace,
}

impl Connection {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            link: Link::Asking,
            backoff: Backoff::new(limits.reconnect),
            replacing: false,
            replace_at: None,
            refused: false,
            accepted: false,
            trusted_from: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }

    /// Whether there is a stream, or an attempt at one, to be closed.
    pub(super) fn has_stream(&self) -> bool {
        matches!(self.link, Link::Opening { .. } | Link::Open { .. })
    }

    /// Whether the stream that is being opened takes the place of one that was closed by choice.
    pub(super) fn is_replacing(&self) -> bool {
        self.replacing
    }

    pub(super) fn shows_connected(&self) -> bool {
        self.is_open() || self.replacing
    }

    pub(super) fn shows_connecting(&self) -> bool {
        !self.shows_connected() && !matches!(self.link, Link::Waiting { .. })
    }

    pub(super) fn wants_request(&self) -> bool {
        matches!(self.link, Link::Asking)
    }

    pub(super) fn needs_credentials(&self) -> bool {
        matches!(self.link, Link::Ready { .. })
    }

    /// Whether a request was made that a change of subscriptions would change.
    pub(super) fn has_request(&self) -> bool {
        matches!(self.link, Link::Ready { .. } | Link::Opening { .. } | Link::Open { .. })
    }

    /// Credentials that were fetched before would be an attempt wasted: what uploads fetched in the meantime may be over.
    pub(super) fn trusted_from(&self) -> Option<Time> {
        self.trusted_from.filter(|_| self.needs_credentials())
    }

    /// The credentials of the stream, or of the attempt at one.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        match &self.link {
            Link::Opening { credentials, .. } | Link::Open { credentials, .. } => Some(credentials),
            _ => None,
        }
    }

    pub(super) fn prepared(&mut self, request: Arc<SyncRequest>) {
        if self.wants_request() {
            self.link = Link::Ready { request };
        }
    }

    /// The request to open a stream with, if it is time.
    pub(super) fn start(
        &mut self,
        now: Time,
        credentials: &Credentials,
        limits: &ClientLimits,
    ) -> Option<Arc<SyncRequest>> {
        let Link::Ready { request } = &self.link else { return None };
        let request = Arc::clone(request);
        self.trusted_from = None;
        self.link = Link::Opening { deadline: now + limits.open, credentials: credentials.clone() };
        Some(request)
    }

    /// False if nothing was being opened.
    pub(super) fn opened(&mut self, now: Time) -> bool {
        let Link::Opening { credentials, .. } = &self.link else { return false };
        self.link = Link::Open { since: now, heard: now, credentials: credentials.clone() };
        self.accepted = true;
        self.replacing = false;
        true
    }

    /// A sign of life. False if no stream is open.
    pub(super) fn heard(&mut self, now: Time) -> bool {
        let Link::Open { heard, .. } = &mut self.link else { return false };
        *heard = (*heard).max(now);
        true
    }

    /// A checkpoint was received and verified: the next failure is the first one.
    pub(super) fn proved(&mut self) {
        self.backoff.reset();
        self.refused = false;
    }

    /// Asks for the stream to be replaced soon: because other streams are wanted, or because of new credentials.
    pub(super) fn replace_soon(&mut self, now: Time, because_of_credentials: bool) {
        let earliest = match &self.link {
            Link::Open { since, .. } if because_of_credentials => *since + SHORTEST_TOKEN,
            Link::Open { since, .. } => *since + SHORTEST_STREAM,
            Link::Ready { .. } | Link::Opening { .. } if !because_of_credentials => now,
            _ => return,
        };
        let at = earliest.max(now);
        self.replace_at = Some(self.replace_at.map_or(at, |planned| planned.min(at)));
    }

    /// The stream was closed to be replaced.
    pub(super) fn replaced(&mut self) {
        self.replacing = self.is_open() || self.replacing;
        self.replace_at = None;
        self.link = Link::Asking;
    }

    /// The stream cannot be replaced at once.
    pub(super) fn interrupted(&mut self) {
        self.replacing = false;
    }

    /// The stream ended, or could not be opened. At once again after the first refusal of credentials.
    pub(super) fn ended(&mut self, now: Time, refused: bool, jitter: &mut Jitter) {
        self.replacing = false;
        self.replace_at = None;
        if refused {
            // Since the last refusal a stream was opened, so that there are good ones: these have expired since, or are others
            // that uploads have fetched meanwhile. That says nothing about fresh ones, although no checkpoint may have been
            // complete in between. An open stream that ends so does not count, lest short-lived tokens make a loop.
            let accepted = std::mem::take(&mut self.accepted);
            if accepted && matches!(self.link, Link::Opening { .. }) {
                self.refused = false;
            }
        }
        if refused && !std::mem::replace(&mut self.refused, true) {
            self.link = Link::Asking;
            return;
        }
        self.link = Link::Waiting { until: self.backoff.next(now, jitter) };
    }

    pub(super) fn retry_now(&mut self) {
        if matches!(self.link, Link::Waiting { .. }) {
            self.link = Link::Asking;
        }
    }

    /// Ends a back-off that is over, and says what is due. `read`: whether the stream is being read.
    pub(super) fn tick(&mut self, now: Time, read: bool, limits: &ClientLimits) -> Option<Due> {
        match &mut self.link {
            Link::Waiting { until } if *until <= now => {
                self.trusted_from = self.refused.then_some(now);
                self.link = Link::Asking;
            }
            Link::Opening { deadline, .. } if *deadline <= now => return Some(Due::NotOpened),
            // What is not read cannot be heard.
            Link::Open { heard, .. } if !read => *heard = now,
            Link::Open { heard, .. } if *heard + limits.idle <= now => return Some(Due::Silent),
            _ => {}
        }
        self.replace_at.is_some_and(|at| at <= now).then_some(Due::Replace)
    }

    pub(super) fn timeout(&self, read: bool, limits: &ClientLimits) -> Option<Time> {
        let link = match &self.link {
            Link::Waiting { until } => Some(*until),
            Link::Opening { deadline, .. } => Some(*deadline),
            Link::Open { heard, .. } if read => Some(*heard + limits.idle),
            _ => None,
        };
        link.into_iter().chain(self.replace_at).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Opens a stream with these credentials, whatever it waits for.
    fn open(connection: &mut Connection, token: &str) {
        connection.retry_now();
        connection.prepared(Arc::default());
        assert!(connection.start(Time(0), &Credentials::new(token), &ClientLimits::default()).is_some());
    }

    #[test]
    fn credentials_that_were_good_before_are_replaced_at_once_when_they_expire() {
        let mut connection = Connection::new(&ClientLimits::default());
        let mut jitter = Jitter::new(1);
        open(&mut connection, "a");
        connection.ended(Time(0), true, &mut jitter);
        assert!(connection.wants_request(), "the first refusal");
        open(&mut connection, "b");
        assert!(connection.opened(Time(0)));
        // Broken before any checkpoint was complete.
        connection.ended(Time(0), false, &mut jitter);
        assert!(!connection.wants_request());
        open(&mut connection, "b");
        connection.ended(Time(0), true, &mut jitter);
        assert!(connection.wants_request(), "they have expired since they were accepted");
        open(&mut connection, "b");
        connection.ended(Time(0), true, &mut jitter);
        assert!(!connection.wants_request(), "others did not help");
    }

    #[test]
    fn after_a_refusal_and_a_while_only_fresh_credentials_are_tried() {
        let limits = ClientLimits::default();
        let mut connection = Connection::new(&limits);
        let mut jitter = Jitter::new(1);
        for token in ["a", "b"] {
            connection.prepared(Arc::default());
            assert_eq!(connection.trusted_from(), None);
            assert!(connection.start(Time(0), &Credentials::new(token), &limits).is_some());
            connection.ended(Time(0), true, &mut jitter);
        }
        let until = connection.timeout(true, &limits).unwrap();
        connection.tick(until, true, &limits);
        connection.prepared(Arc::default());
        assert_eq!(connection.trusted_from(), Some(until));
        assert!(connection.start(until, &Credentials::new("c"), &limits).is_some());
        assert_eq!(connection.trusted_from(), None);
    }

    #[test]
    fn credentials_that_uploads_fetched_and_that_expired_are_replaced_at_once_too() {
        let mut connection = Connection::new(&ClientLimits::default());
        let mut jitter = Jitter::new(1);
        open(&mut connection, "a");
        connection.ended(Time(0), true, &mut jitter);
        open(&mut connection, "b");
        assert!(connection.opened(Time(0)));
        connection.ended(Time(0), false, &mut jitter);
        open(&mut connection, "c");
        connection.ended(Time(0), true, &mut jitter);
        assert!(connection.wants_request(), "a stream was opened since the last refusal");
        // A stream that is opened and ended by its token again and again waits longer and longer.
        for token in ["d", "e"] {
            open(&mut connection, token);
            assert!(connection.opened(Time(0)));
            connection.ended(Time(0), true, &mut jitter);
            assert!(!connection.wants_request(), "{token} was short-lived");
        }
    }
}
