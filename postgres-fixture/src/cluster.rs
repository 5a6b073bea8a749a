//! A running cluster.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio_postgres::{Client, NoTls};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::options::ClusterOptions;
use crate::server::{Server, Stop, Watchdog, signal_process};
use crate::template::{SUPERUSER, initdb, materialize};

const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// A Postgres server of our own with its files, gone when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    account: Account,
    root: TempDir,
    port: u16,
    tcp: bool,
    password: Option<String>,
    server: Mutex<Option<Server>>,
    watchdog: Mutex<Option<Watchdog>>,
    databases: AtomicU32,
}

impl Cluster {
    /// Starts a cluster with the default [options](ClusterOptions).
    ///
    /// # Errors
    /// If no server is installed or it does not start within a minute.
    pub async fn start() -> Result<Self> {
        ClusterOptions::new().start().await
    }

    pub(crate) async fn with_options(options: ClusterOptions) -> Result<Self> {
        let password = options.password.clone();
        let cluster =
            spawn_blocking(move || Self::create(&options)).await.context("starting a cluster was interrupted")??;
        if let Some(password) = password {
            // Over the socket, which needs no password.
            let client = cluster.connect(&cluster.socket_url(SUPERUSER)).await?;
            let sql = format!("ALTER ROLE {SUPERUSER} PASSWORD '{}'", password.replace('\'', "''"));
            client.batch_execute(&sql).await.context("cannot set the superuser's password")?;
        }
        Ok(cluster)
    }

    fn create(options: &ClusterOptions) -> Result<Self> {
        let binaries = Binaries::find()?;
        // The path of a Unix socket may have about 100 bytes, so it stays short.
        let root = tempfile::Builder::new().prefix("pg-").tempdir().context("cannot create a temporary directory")?;
        let account = Account::for_owner_of(root.path())?;
        account.check_reach(&binaries.program("postgres"))?;
        account.give(root.path())?;
        let watchdog = Watchdog::start(root.path())?;
        let data = root.path().join("data");
        if options.own_identity {
            initdb(&binaries, account, &data)?;
        } else {
            materialize(&binaries, account, &data)?;
        }
        write_hba(&data, options)?;
        if let Some((certificates, key)) = &options.tls {
            write_private(&data.join("server.crt"), certificates)?;
            write_private(&data.join("server.key"), key)?;
        }
        account.give(&data)?;

        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = free_port(attempts)?;
            write_settings(&data, root.path(), port, options)?;
            account.give(&data.join("postgresql.auto.conf"))?;
            match Server::start(&binaries, account, &data, &root.path().join("log")) {
                Ok(server) => {
                    return Ok(Self {
                        binaries,
                        account,
                        root,
                        port,
                        tcp: options.tcp,
                        password: options.password.clone(),
                        server: Mutex::new(Some(server)),
                        watchdog: Mutex::new(Some(watchdog)),
                        databases: AtomicU32::new(0),
                    });
                }
                // Somebody else took the port in the meantime.
                Err(error) if attempts < 5 && format!("{error:#}").contains("could not bind") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The URL of the database `postgres`, as the superuser.
    pub fn url(&self) -> String {
        self.url_of(SUPERUSER)
    }

    /// The URL of a database of this name, as the superuser.
    pub fn url_of(&self, database: &str) -> String {
        if !self.tcp {
            return self.socket_url(database);
        }
        let password = self.password.as_ref().map(|password| format!(":{}", percent(password))).unwrap_or_default();
        format!("postgres://{SUPERUSER}{password}@127.0.0.1:{}/{}", self.port, percent(database))
    }

    fn socket_url(&self, database: &str) -> String {
        let directory = percent(&self.root.path().to_string_lossy());
        format!("postgres://{SUPERUSER}@{directory}:{}/{}", self.port, percent(database))
    }

    /// Creates a database and returns its URL.
    ///
    /// # Errors
    /// If the server refuses, for instance because the name is taken.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let client = self.connect(&self.url()).await?;
        let sql = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        client.batch_execute(&sql).await.with_context(|| format!("cannot create database {name}"))?;
        Ok(self.url_of(name))
    }

    /// Creates a database with a name that was not used before and returns its URL.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn fresh_database(&self) -> Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        self.create_database(&format!("fresh_{number}")).await
    }

    /// Connects without TLS and drives the connection in a task of its own. Retries for 20 s while the server starts.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub async fn connect(&self, url: &str) -> Result<Client> {
        let mut config: tokio_postgres::Config = url.parse().context("not the URL of a database")?;
        config.connect_timeout(CONNECT_LIMIT);
        let deadline = tokio::time::Instant::now() + CONNECT_LIMIT;
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection of a test ended");
                        }
                    });
                    return Ok(client);
                }
                Err(error) => {
                    let starting = error.code() == Some(&tokio_postgres::error::SqlState::CANNOT_CONNECT_NOW);
                    if !starting || tokio::time::Instant::now() > deadline {
                        return Err(error).with_context(|| format!("cannot connect to {url}"));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Stops the server in an orderly way and starts it again, at the same address with the same data.
    ///
    /// # Errors
    /// If it does not stop within 30 s or does not start.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops the server in an orderly way. Its files stay; see [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// If it does not stop within 30 s.
    pub async fn stop(&self) -> Result<()> {
        let running = lock(&self.server).take();
        if let Some(mut running) = running {
            // In a thread of its own, since clients in this one may have to answer before the server ends.
            spawn_blocking(move || running.stop(Stop::Fast)).await.context("stopping a cluster was interrupted")??;
        }
        Ok(())
    }

    /// Ends the server without a checkpoint, as a crash would. Its files stay; see [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub fn crash(&self) -> Result<()> {
        let mut server = lock(&self.server);
        if let Some(running) = server.as_mut() {
            running.stop(Stop::Immediate)?;
        }
        *server = None;
        Ok(())
    }

    /// Starts a server that was stopped as a standby without a primary: it stays in recovery until `SELECT pg_promote()`.
    ///
    /// # Errors
    /// If it runs already or does not start.
    pub async fn start_as_standby(&self) -> Result<()> {
        let signal = self.data_directory().join("standby.signal");
        fs::write(&signal, "").with_context(|| format!("cannot write {}", signal.display()))?;
        self.account.give(&signal)?;
        self.start_again().await
    }

    /// Starts a server that was stopped or crashed.
    ///
    /// # Errors
    /// If it runs already or does not start.
    pub async fn start_again(&self) -> Result<()> {
        let (binaries, account) = (self.binaries.clone(), self.account);
        let (data, log) = (self.data_directory(), self.root.path().join("log"));
        if lock(&self.server).is_some() {
            bail!("the cluster runs already");
        }
        let server = spawn_blocking(move || Server::start(&binaries, account, &data, &log))
            .await
            .context("starting a cluster was interrupted")??;
        *lock(&self.server) = Some(server);
        Ok(())
    }

    /// The process id of the postmaster, unless it was crashed.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.server).as_ref().map(Server::pid)
    }

    /// Sends a signal by its name (`STOP`, `CONT`, `HUP`, `TERM`) to the postmaster or to one of its backends.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn signal(&self, signal: &str, pid: u32) -> Result<()> {
        signal_process(signal, pid)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the Unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.root.path()
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The programs that this cluster runs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// What the server has logged so far.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.root.path().join("log")).context("cannot read the server's log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = lock(&self.server).take()
            && let Err(error) = server.stop(Stop::Immediate)
        {
            tracing::warn!(%error, "a Postgres server is killed");
            server.kill();
        }
        if let Some(watchdog) = lock(&self.watchdog).take()
            && let Err(error) = watchdog.release()
        {
            tracing::warn!(%error, "a Postgres cluster was not removed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_settings(data: &Path, root: &Path, port: u16, options: &ClusterOptions) -> Result<()> {
    let onoff = |on: bool| if on { "on" } else { "off" }.to_owned();
    let mut settings = vec![
        ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
        ("port".to_owned(), port.to_string()),
        ("unix_socket_directories".to_owned(), root.to_string_lossy().into_owned()),
        ("fsync".to_owned(), onoff(options.fsync)),
        ("full_page_writes".to_owned(), onoff(options.fsync)),
        ("ssl".to_owned(), onoff(options.tls.is_some())),
    ];
    settings.extend(options.settings.iter().cloned());
    let text: String =
        settings.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
    fs::write(data.join("postgresql.auto.conf"), text).context("cannot write the server's settings")
}

fn write_hba(data: &Path, options: &ClusterOptions) -> Result<()> {
    let method = if options.password.is_some() { "scram-sha-256" } else { "trust" };
    let tcp = options
        .hba
        .clone()
        .unwrap_or_else(|| format!("host all all all {method}\nhost replication all all {method}\n"));
    let text = format!("local all all trust\nlocal replication all trust\n{tcp}");
    fs::write(data.join("pg_hba.conf"), text).context("cannot write pg_hba.conf")
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))
}

/// A port that is free now. It lies below the range of outgoing connections, so that it stays free over a restart.
fn free_port(attempt: u32) -> Result<u16> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.subsec_nanos()).unwrap_or(0);
    let mut seed = nanos ^ std::process::id().wrapping_mul(2_654_435_761) ^ attempt.wrapping_mul(40_503);
    for _ in 0..200 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = 10_000 + u16::try_from((seed >> 8) % 22_000).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free port on 127.0.0.1")
}

/// Percent-encodes all that is not plain in a part of a URL.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
