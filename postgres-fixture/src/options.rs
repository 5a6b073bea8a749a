//! How a cluster is to be set up.

use anyhow::Result;

use crate::cluster::Cluster;

/// Options of a [`Cluster`]; the defaults suit tests.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub(crate) fsync: bool,
    pub(crate) own_identity: bool,
    pub(crate) tcp: bool,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) password: Option<String>,
    pub(crate) tls: Option<(String, String)>,
    pub(crate) hba: Option<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let settings = [
            ("wal_level", "logical"),
            ("max_replication_slots", "300"),
            ("max_wal_senders", "50"),
            ("max_connections", "200"),
            ("shared_buffers", "64MB"),
            ("log_min_messages", "log"),
            ("log_line_prefix", "%m [%p] %a: "),
        ];
        Self {
            fsync: false,
            own_identity: false,
            tcp: true,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            password: None,
            tls: None,
            hba: None,
        }
    }
}

impl ClusterOptions {
    /// The defaults: `wal_level=logical`, 50 slots, 50 senders, 200 connections, no fsync, TCP on 127.0.0.1, trust.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the server flushes to disk. Off by default; the figures need it on.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Whether the cluster gets a system identifier of its own. Off by default: clusters are copies of one template, which
    /// starts faster, and so look alike to a replicator.
    #[must_use]
    pub fn own_identity(mut self, on: bool) -> Self {
        self.own_identity = on;
        self
    }

    /// Whether URLs name 127.0.0.1 and a port (the default) or the directory of a Unix socket.
    #[must_use]
    pub fn tcp(mut self, on: bool) -> Self {
        self.tcp = on;
        self
    }

    /// One server setting; a later one of the same name wins.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Demands this password of the superuser over TCP, by SCRAM-SHA-256. The Unix socket stays open to all.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Offers TLS with this certificate chain and private key, both PEM.
    #[must_use]
    pub fn tls(mut self, certificates: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificates.into(), key.into()));
        self
    }

    /// The rules for TCP in `pg_hba.conf`, instead of those that follow from the other options.
    #[must_use]
    pub fn hba(mut self, rules: impl Into<String>) -> Self {
        self.hba = Some(rules.into());
        self
    }

    /// Starts the cluster.
    ///
    /// # Errors
    /// If no server is installed or it does not start within a minute.
    pub async fn start(self) -> Result<Cluster> {
        Cluster::with_options(self).await
    }
}
