//! The limits that the file may set: every one that the parts have, under a name of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use syncline_core::ServiceLimits;
use syncline_core::server::SessionLimits;
use syncline_transport_http::HttpLimits;
use syncline_transport_ws::WebSocketLimits;

/// No wait of a server is longer than a year: what is written so has a unit wrong.
const LONGEST_SECONDS: u64 = 366 * 24 * 3_600;
/// A connection is closed after its stream was ended, which says why.
const AFTER_PATIENCE: Duration = Duration::from_secs(15);

/// The section `[limits]`; all have defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    streams: usize,
    streams_per_user: usize,
    buckets_per_stream: usize,
    subscriptions_per_stream: usize,
    buffered_bytes: usize,
    read_bytes: usize,
    line_operations: usize,
    request_bytes: usize,
    request_seconds: u64,
    write_checkpoints: usize,
    websocket_connections: usize,
    websocket_streams: usize,
    websocket_silence_seconds: u64,
    patience_seconds: u64,
    idle_seconds: u64,
    drain_seconds: u64,
    compact_minutes: u64,
    retry_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let (service, http, ws) = (ServiceLimits::default(), HttpLimits::default(), WebSocketLimits::default());
        Self {
            streams: service.streams,
            streams_per_user: service.streams_per_user,
            buckets_per_stream: service.buckets_per_stream,
            subscriptions_per_stream: service.subscriptions_per_stream,
            buffered_bytes: service.buffered_bytes,
            read_bytes: service.session.read_bytes,
            line_operations: service.session.line_operations,
            request_bytes: http.request_bytes,
            request_seconds: http.request_time.as_secs(),
            write_checkpoints: http.write_checkpoints,
            websocket_connections: ws.connections,
            websocket_streams: ws.streams_per_connection,
            websocket_silence_seconds: ws.lifetime.as_secs(),
            patience_seconds: http.patience.as_secs(),
            idle_seconds: 300,
            drain_seconds: 20,
            compact_minutes: 10,
            retry_seconds: 30,
        }
    }
}

impl Limits {
    /// Refuses values under which the server would serve nobody.
    pub(crate) fn check(&self) -> Result<()> {
        let counts = [
            ("streams", self.streams),
            ("streams_per_user", self.streams_per_user),
            ("buckets_per_stream", self.buckets_per_stream),
            ("subscriptions_per_stream", self.subscriptions_per_stream),
            ("buffered_bytes", self.buffered_bytes),
            ("read_bytes", self.read_bytes),
            ("line_operations", self.line_operations),
            ("request_bytes", self.request_bytes),
            ("write_checkpoints", self.write_checkpoints),
            ("websocket_connections", self.websocket_connections),
            ("websocket_streams", self.websocket_streams),
        ];
        for (key, value) in counts {
            ensure!(value > 0, "limits.{key} is 0, which would serve nobody: it must be at least 1");
        }
        check_seconds("limits.request_seconds", self.request_seconds)?;
        check_seconds("limits.patience_seconds", self.patience_seconds)?;
        check_seconds("limits.websocket_silence_seconds", self.websocket_silence_seconds)?;
        check_seconds("limits.idle_seconds", self.idle_seconds)?;
        check_seconds("limits.retry_seconds", self.retry_seconds)?;
        // Zero is fine for these: streams are cut at once, nothing is ever compacted.
        check_seconds("limits.drain_seconds", self.drain_seconds.max(1))?;
        check_seconds("limits.compact_minutes, in seconds,", self.compact_minutes.saturating_mul(60).max(1))
    }

    pub(crate) fn service(&self) -> ServiceLimits {
        ServiceLimits {
            streams: self.streams,
            streams_per_user: self.streams_per_user,
            buckets_per_stream: self.buckets_per_stream,
            subscriptions_per_stream: self.subscriptions_per_stream,
            buffered_bytes: self.buffered_bytes,
            session: SessionLimits { read_bytes: self.read_bytes, line_operations: self.line_operations },
        }
    }

    pub(crate) fn http(&self) -> HttpLimits {
        HttpLimits {
            request_bytes: self.request_bytes,
            request_time: Duration::from_secs(self.request_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            write_checkpoints: self.write_checkpoints,
        }
    }

    /// A request over WebSocket is bounded as one over HTTP is.
    pub(crate) fn websocket(&self) -> WebSocketLimits {
        WebSocketLimits {
            request_bytes: self.request_bytes,
            setup_time: Duration::from_secs(self.request_seconds),
            patience: Duration::from_secs(self.patience_seconds),
            lifetime: Duration::from_secs(self.websocket_silence_seconds),
            connections: self.websocket_connections,
            streams_per_connection: self.websocket_streams,
        }
    }

    /// How long a connection may take nothing.
    pub(crate) fn connection_patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds) + AFTER_PATIENCE
    }

    /// How long nothing may be sent on a connection.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    /// How long open streams have to end when the server stops.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// How often to compact; `None`: never.
    pub(crate) fn compact_interval(&self) -> Option<Duration> {
        (self.compact_minutes > 0).then(|| Duration::from_secs(self.compact_minutes * 60))
    }

    /// When to try replication again after a stop that needs a person.
    pub(crate) fn retry_interval(&self) -> Duration {
        Duration::from_secs(self.retry_seconds)
    }
}

/// Refuses a wait that is none, or one that is longer than any that makes sense.
pub(crate) fn check_seconds(key: &str, seconds: u64) -> Result<()> {
    ensure!(seconds > 0, "{key} is 0: it must be at least 1");
    ensure!(seconds <= LONGEST_SECONDS, "{key} is {seconds}, which is longer than a year");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A field that is added to a part's limits does not compile here, until it is a key of the file as well.
    #[test]
    fn every_limit_of_the_parts_can_be_set_in_the_file() {
        let file = "streams = 1\nstreams_per_user = 2\nbuckets_per_stream = 3\nsubscriptions_per_stream = 4\n\
                    read_bytes = 5\nline_operations = 6\nrequest_bytes = 7\nrequest_seconds = 8\n\
                    write_checkpoints = 9\npatience_seconds = 10\nidle_seconds = 11\ndrain_seconds = 0\n\
                    compact_minutes = 0\nretry_seconds = 12\nbuffered_bytes = 13\n\
                    websocket_connections = 14\nwebsocket_streams = 15\nwebsocket_silence_seconds = 16\n";
        let limits: Limits = toml::from_str(file).unwrap();
        limits.check().unwrap();
        let ServiceLimits {
            streams,
            streams_per_user,
            buckets_per_stream,
            subscriptions_per_stream,
            buffered_bytes,
            session,
        } = limits.service();
        let SessionLimits { read_bytes, line_operations } = session;
        let HttpLimits { request_bytes, request_time, patience, write_checkpoints } = limits.http();
        assert_eq!([streams, streams_per_user, buckets_per_stream, subscriptions_per_stream], [1, 2, 3, 4]);
        assert_eq!([read_bytes, line_operations, request_bytes, write_checkpoints, buffered_bytes], [5, 6, 7, 9, 13]);
        assert_eq!([request_time, patience].map(|time| time.as_secs()), [8, 10]);
        let WebSocketLimits { request_bytes, setup_time, patience, lifetime, connections, streams_per_connection } =
            limits.websocket();
        assert_eq!([request_bytes, connections, streams_per_connection], [7, 14, 15]);
        assert_eq!([setup_time, patience, lifetime].map(|time| time.as_secs()), [8, 10, 16]);
        let own = [limits.connection_patience(), limits.idle(), limits.drain(), limits.retry_interval()];
        assert_eq!(own.map(|time| time.as_secs()), [25, 11, 0, 12]);
        assert_eq!(limits.compact_interval(), None);

        // And every key that is documented stands here with its default, so that none is missing on either side.
        let shown = include_str!("../syncline.toml").split_once("[limits]\n").unwrap().1;
        let shown: String = shown.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
        let (shown, default): (Limits, Limits) = (toml::from_str(&shown).unwrap(), Limits::default());
        assert_eq!(format!("{shown:?}"), format!("{default:?}"));
        for key in file.lines().filter_map(|line| line.split(' ').next()) {
            assert!(include_str!("../syncline.toml").contains(&format!("\n# {key} = ")), "{key} is not documented");
        }
    }

    #[test]
    fn a_limit_that_would_serve_nobody_is_refused_by_its_name() {
        let keys = "streams streams_per_user buckets_per_stream subscriptions_per_stream buffered_bytes read_bytes line_operations \
                    request_bytes request_seconds write_checkpoints patience_seconds idle_seconds retry_seconds \
                    websocket_connections websocket_streams websocket_silence_seconds";
        for key in keys.split_whitespace() {
            let limits: Limits = toml::from_str(&format!("{key} = 0")).unwrap();
            let error = limits.check().unwrap_err().to_string();
            assert!(error.contains(&format!("limits.{key} is 0")), "{error}");
        }
        let limits: Limits = toml::from_str("patience_seconds = 9223372036854775807").unwrap();
        assert!(limits.check().unwrap_err().to_string().contains("limits.patience_seconds"));
    }
}
