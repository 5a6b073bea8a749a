//! [`PostgresSource`]: a handle on one database.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use postgres_protocol::escape::escape_literal;
use sha2::{Digest, Sha256};
use syncline_core::{
    Error, MarkerToken, Reread, Result, RowKey, Source, SourceEvent, SourcePosition, SourceSchema, SourceStart,
    SourceTable, TableSelection,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::catalog;
use crate::config::PostgresConfig;
use crate::link::{Link, MESSAGE_PREFIX};
use crate::lsn::Lsn;
use crate::output::{Output, Stop, WAITING_BATCHES};
use crate::preflight::{self, Asking, Findings, Occasion, Wanted};
use crate::reread::{self, Readable};
use crate::session::Session;
use crate::visibility::Streamed;

/// How often the catalog is compared with what we know, unless it was configured.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Changes of a Postgres database, from its write-ahead log.
///
/// The server must have `wal_level = logical` (14 or later), and someone must have made a publication of the tables that
/// are to be replicated; the source never changes the schema, the publication or any table. It owns one replication
/// slot, which keeps the server's log until it is read: if replication ends for good, drop that slot.
///
/// Whatever is wrong before there is a slot is an error that ends replication. From then on the same is `Unavailable`, so
/// that it is tried again: a standby that is yet to be promoted, a password that is being changed, a right that was taken
/// away.
///
/// A handle: cheap to clone, all clones are the same source. Its methods need a tokio runtime.
#[derive(Clone)]
pub struct PostgresSource {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

/// What a source was configured with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: PostgresConfig,
    pub(crate) publication: String,
    slot: Option<String>,
    pub(crate) poll_interval: Duration,
}

impl Settings {
    /// The name of the slot: as configured, or made from the names of database and publication.
    pub(crate) fn slot(&self) -> String {
        self.slot.clone().unwrap_or_else(|| {
            let mut hash = Sha256::new();
            hash.update(self.config.database());
            hash.update([0]);
            hash.update(&self.publication);
            let digest = hash.finalize();
            let [a, b, c, d] = [digest[0], digest[1], digest[2], digest[3]];
            format!("syncline_{a:02x}{b:02x}{c:02x}{d:02x}")
        })
    }
}

/// What the parts of a source share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Everything up to here is durable and may be confirmed.
    pub(crate) durable: watch::Sender<Lsn>,
    /// What reads beside the stream must wait for.
    pub(crate) streamed: Streamed,
    /// The tables as the stream has them, for rows that are read again.
    pub(crate) readable: Mutex<Arc<Readable>>,
    /// Where the last row was read again: no checkpoint comes before the stream has passed it.
    pub(crate) reread_at: watch::Sender<Lsn>,
    /// For markers; single rows have a connection of their own, since they may have to wait.
    control: tokio::sync::Mutex<Link>,
    rereading: tokio::sync::Mutex<Link>,
    terminated: Mutex<Option<Instant>>,
}

impl Shared {
    /// Whether a process may be ended now; true at most once per `interval`.
    pub(crate) fn may_terminate(&self, interval: Duration) -> bool {
        let mut last = self.terminated.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|at| at.elapsed() >= interval);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

impl PostgresSource {
    /// A source for the database at `url`, such as `postgres://user:password@host/database?sslmode=verify-full`. Touches
    /// nothing outside. The publication is `syncline` unless [`publication`](Self::publication) names another.
    ///
    /// # Errors
    /// `Invalid` if the URL cannot be understood.
    pub fn new(url: &str) -> Result<Self> {
        let config: PostgresConfig = url.parse()?;
        // Both are used only beside a run, which has logged in before.
        let link = || tokio::sync::Mutex::new(Link::new(config.clone(), "syncline", Occasion::Again));
        let (control, rereading) = (link(), link());
        Ok(Self {
            settings: Arc::new(Settings {
                config,
                publication: "syncline".into(),
                slot: None,
                poll_interval: POLL_INTERVAL,
            }),
            shared: Arc::new(Shared {
                durable: watch::Sender::new(Lsn(0)),
                streamed: Streamed::default(),
                readable: Mutex::default(),
                reread_at: watch::Sender::new(Lsn(0)),
                control,
                rereading,
                terminated: Mutex::new(None),
            }),
        })
    }

    /// The publication that says which tables the log is read for.
    #[must_use]
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.settings).publication = name.into();
        self
    }

    /// The name of the replication slot: lower-case letters, digits and underscores, at most 63. By default it is made
    /// from the names of database and publication; two stores that replicate the same database need two names. A slot of
    /// this name that another store made is never dropped: a person does that when its store is gone.
    #[must_use]
    pub fn slot(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.settings).slot = Some(name.into());
        self
    }

    /// How often the catalog is looked at for changes that leave no trace in the log: tables that were dropped or added,
    /// rewritten columns, another publication. 30 s by default; the queries are cheap.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        Arc::make_mut(&mut self.settings).poll_interval = interval;
        self
    }

    /// The name of the replication slot that this source uses.
    pub fn slot_name(&self) -> String {
        self.settings.slot()
    }

    /// Looks whether replication of these tables could begin: the server's version and settings, the role, the
    /// publication, the tables, the slot. Changes nothing. A check for people; a run makes the same checks.
    ///
    /// # Errors
    /// `Invalid` with everything that is wrong and how to mend it, one line for each problem; `Unauthorized` if the login is refused; `Unavailable` if
    /// the server cannot be reached, is a standby, or has no slot left.
    pub async fn check(&self, selection: &TableSelection) -> Result<()> {
        let mut link = Link::new(self.settings.config.clone(), "syncline", Occasion::First);
        let publication = &self.settings.publication;
        let mut findings = Findings::default();
        let (server, mut catalog) =
            preflight::look(&mut link, publication, selection, Occasion::First, &mut findings).await?;
        let wanted = Wanted { publication, selection, known: None, occasion: Occasion::First, role: &server.role };
        preflight::check_tables(&mut catalog, wanted, &mut findings);
        match preflight::check_slot(&mut link, &self.slot_name(), Asking::Anybody, &mut findings).await {
            Ok(()) => findings.finish(),
            Err(error) => Err(findings.and(error.into())),
        }
    }

    /// The tables of the database and their columns, for [`SyncConfig::parse_with_schema`](syncline_core::SyncConfig::parse_with_schema):
    /// ordinary and partitioned ones that the role may see the names of, which are all but those of the system.
    ///
    /// # Errors
    /// `Unauthorized` if the login is refused; `Unavailable` if the server cannot be reached or does not answer within 30 s.
    pub async fn schema(&self) -> Result<SourceSchema> {
        let mut link = Link::new(self.settings.config.clone(), "syncline", Occasion::First);
        Ok(catalog::schema(&mut link).await?)
    }
}

impl fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Ends the task when the stream is dropped, which closes its connections and frees the slot.
#[derive(Debug)]
struct Running {
    batches: mpsc::Receiver<Result<Vec<SourceEvent>>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The statement that sends one of our messages. It travels as a transaction of its own, after all that was committed
/// before, and the log is flushed with its commit.
pub(crate) fn message_sql(content: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', {})", escape_literal(content))
}

#[async_trait]
impl Source for PostgresSource {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        // To a store that has a slot, another name would mean to give that one up.
        if start.state.is_some() || start.position.is_some() {
            preflight::check_slot_name(&self.settings.slot())?;
        }
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let output = Output::new(sender);
        let session = match Session::begin(&self.settings, &self.shared, start, output).await {
            Ok(session) => session,
            Err(Stop::Lost(reason)) => {
                return Ok(stream::iter([Ok(vec![SourceEvent::HistoryLost { reason }])]).boxed());
            }
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::EndedAfter(event)) => return Ok(stream::iter([Ok(vec![*event])]).boxed()),
            Err(Stop::FailedAfter(event, error)) => return Ok(stream::iter([Ok(vec![*event]), Err(error)]).boxed()),
            Err(Stop::Unwanted) => return Ok(stream::empty().boxed()),
        };
        let running = Running { batches, task: tokio::spawn(session.run()) };
        Ok(stream::unfold(running, |mut running| async move {
            let batch = running.batches.recv().await?;
            Some((batch, running))
        })
        .boxed())
    }

    fn acknowledge(&self, position: &SourcePosition) {
        match Lsn::try_from(position) {
            Ok(lsn) => {
                self.shared.durable.send_if_modified(|durable| {
                    let rises = lsn > *durable;
                    if rises {
                        *durable = lsn;
                    }
                    rises
                });
            }
            // Not confirming anything only costs disk space on the server.
            Err(error) => tracing::error!(%error, "a position that this source did not hand out was acknowledged"),
        }
    }

    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        let content = marker_content(&self.settings.slot(), token);
        let mut control = self.shared.control.lock().await;
        control.query_again(&message_sql(&content)).await.map_err(Error::from)?;
        Ok(())
    }

    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        let readable = self.shared.readable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut link = self.shared.rereading.lock().await;
        let (rows, at) = reread::rows(&mut link, &self.shared.streamed, &readable, table, keys).await?;
        self.shared.reread_at.send_modify(|known| *known = at.max(*known));
        Ok(Reread { rows, no_checkpoint_before: at.position() })
    }
}

/// The content of a marker: whose it is, and the token.
fn marker_content(slot: &str, token: &MarkerToken) -> String {
    format!("{slot} marker {}", token.0)
}

/// The content of a message that only makes the stream move.
pub(crate) fn nudge_content(slot: &str) -> String {
    format!("{slot} nudge")
}

/// What a message with our prefix is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OwnMessage {
    Marker(MarkerToken),
    Nudge,
    /// It belongs to another slot.
    Foreign,
}

impl OwnMessage {
    pub(crate) fn parse(slot: &str, content: &[u8]) -> Self {
        let Some(rest) = std::str::from_utf8(content).ok().and_then(|text| text.strip_prefix(slot)) else {
            return Self::Foreign;
        };
        match rest.strip_prefix(" marker ") {
            Some(token) => Self::Marker(MarkerToken(token.into())),
            None if rest == " nudge" => Self::Nudge,
            None => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slot_is_named_after_database_and_publication() {
        let source = PostgresSource::new("postgres://u@h/db").unwrap();
        let name = source.slot_name();
        assert!(name.starts_with("syncline_") && name.len() == 17, "{name}");
        assert_ne!(name, source.clone().publication("other").slot_name());
        assert_eq!(source.slot("mine").slot_name(), "mine");
    }

    #[test]
    fn messages_of_another_slot_are_left_alone() {
        let token = MarkerToken("a b".into());
        let content = marker_content("s_1", &token);
        assert_eq!(OwnMessage::parse("s_1", content.as_bytes()), OwnMessage::Marker(token));
        assert_eq!(OwnMessage::parse("s", content.as_bytes()), OwnMessage::Foreign);
        assert_eq!(OwnMessage::parse("s_1", nudge_content("s_1").as_bytes()), OwnMessage::Nudge);
        assert_eq!(OwnMessage::parse("s_1", &[0xFF]), OwnMessage::Foreign);
    }
}
