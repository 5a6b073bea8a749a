//! One run of a source: from the checks at its start to the error that ends it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use syncline_core::{SourceEvent, SourceStart, TableId, TableSelection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::catalog::{self, Catalog, DEFAULT_SCHEMA};
use crate::connection::{self, Connection};
use crate::link::Link;
use crate::lsn::Lsn;
use crate::output::{Output, Stop};
use crate::preflight::{self, Asking, Findings, Occasion, Server, Wanted};
use crate::reread::Readable;
use crate::schema::{self, Change};
use crate::slot;
use crate::source::{Settings, Shared, message_sql, nudge_content};
use crate::state::{Progress, State, TableRecord, selection_hash};
use crate::transactions::Tracked;
use crate::value::TypeRegistry;
use crate::visibility;
use crate::walsender;

/// How long transactions that have committed may take to be seen, before something is given up.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// Everything that one run of a source works with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) selection: TableSelection,
    pub(crate) server: Server,
    pub(crate) state: State,
    /// The state differs from what was sent last.
    pub(crate) state_changed: bool,
    /// Some table may be stale or not completely read.
    unsettled: bool,
    /// Whether it was told that a reading is open, by this run or an earlier one.
    reading_told: bool,
    /// For catalog queries and messages of this run.
    pub(crate) sql: Link,
    pub(crate) types: TypeRegistry,
    pub(crate) output: Output,
    /// Everything up to here has been sent, by this run or an earlier one.
    pub(crate) position: Lsn,
    /// The relations that the stream has described on this connection.
    pub(crate) relations: HashMap<u32, Tracked>,
    /// Tables of which rows came in another form than they were last read in.
    pub(crate) outdated: BTreeSet<u32>,
    /// Estimates of rows, for people.
    pub(crate) estimates: HashMap<u32, u64>,
    /// Tables that can be read in order of their key.
    pub(crate) ordered: BTreeSet<u32>,
    pub(crate) poll_at: Instant,
    pub(crate) slot_checked_at: Instant,
    /// Nothing that the stream sent is stored yet, and the tables are being read for the first time.
    pub(crate) fresh: bool,
}

impl Session {
    /// Connects, checks everything, and makes the slot if there is none yet.
    pub(crate) async fn begin(
        settings: &Arc<Settings>,
        shared: &Arc<Shared>,
        start: SourceStart,
        output: Output,
    ) -> Result<Self, Stop> {
        let owner = start.state.as_ref().and_then(State::owner);
        // For a slot that was known before.
        let mut sql = Link::new(settings.config.clone(), "syncline", Occasion::Again);
        let stop = match Self::open(settings, shared, start, output).await {
            Ok(session) => return Ok(session),
            Err(stop) => stop,
        };
        if let (Stop::Lost(_), Some(owner)) = (&stop, owner) {
            slot::give_up(&mut sql, shared, &owner).await?;
        }
        Err(stop)
    }

    async fn open(
        settings: &Arc<Settings>,
        shared: &Arc<Shared>,
        start: SourceStart,
        output: Output,
    ) -> Result<Self, Stop> {
        let durable = start.position.as_ref().map(Lsn::try_from).transpose()?;
        let mut known = match (&start.state, durable) {
            (None, None) => None,
            (Some(state), _) => Some(
                State::decode(state)?
                    .ok_or_else(|| Stop::Lost("another version of this program wrote the stored state".into()))?,
            ),
            (None, Some(_)) => return Err(Stop::Lost("the store has a position but no state of this source".into())),
        };
        if let Some(state) = known.as_ref().filter(|state| state.slot != settings.slot()) {
            return Err(Stop::Lost(format!(
                "the replication slot is to be {} instead of {}",
                settings.slot(),
                state.slot
            )));
        }
        // Server and login were right when the slot was made; the tables, if the same ones are asked for as then.
        let occasion = if known.as_ref().is_some_and(State::has_slot) { Occasion::Again } else { Occasion::First };
        let mut sql = Link::new(settings.config.clone(), "syncline", occasion);
        let mut findings = Findings::default();
        let name = &settings.publication;
        let (server, mut catalog) = preflight::look(&mut sql, name, &start.selection, occasion, &mut findings).await?;
        let selected = selection_hash(&start.selection)?;
        let same_tables = known.as_ref().is_some_and(|state| state.selection == selected);
        let about_tables = if same_tables { occasion } else { Occasion::First };
        let out = known.as_mut().map_or(Ok(None), |state| note_out_of_log(state, &catalog))?;
        let wanted = Wanted {
            publication: name,
            selection: &start.selection,
            known: known.as_ref(),
            occasion: about_tables,
            role: &server.role,
        };
        let publication = preflight::check_tables(&mut catalog, wanted, &mut findings);
        if known.is_none() {
            let checked = preflight::check_slot(&mut sql, &settings.slot(), Asking::NewStore, &mut findings).await;
            if let Err(error) = checked {
                return Err(findings.and(error.into()).into());
            }
        }
        findings.finish().map_err(|error| failed_after(out, error))?;

        let incarnation = known.as_ref().map_or_else(|| Uuid::new_v4().as_u64_pair().0, |state| state.incarnation);
        let name = slot::application_name(incarnation);
        let mut replication =
            Connection::open(&settings.config, connection::Session::Replication, &name, occasion).await?;
        let identity = walsender::identify(&mut replication).await?;
        // Of a slot that is yet to be made.
        let intended = |consistent_point| State {
            system: identity.system,
            timeline: identity.timeline,
            slot: settings.slot(),
            incarnation,
            publication,
            consistent_point,
            selection: selected,
            // Even if there is no table yet: only its end lets anything be published.
            reading: true,
            tables: Vec::new(),
        };
        let (state, position, fresh, state_changed) = match known {
            Some(state) if !state.has_slot() => {
                if identity.system != state.system {
                    return Err(Stop::Lost(
                        "this is another cluster than before: its system identifier differs".into(),
                    ));
                }
                let consistent_point = slot::create(&mut sql, &mut replication, shared, &state.slot_owner()).await?;
                (intended(consistent_point), consistent_point, true, true)
            }
            Some(mut state) => {
                if state.publication != publication {
                    return Err(Stop::Lost(format!(
                        "publication {} was dropped and made again; what changed in between is not in the log",
                        settings.publication
                    )));
                }
                let position = durable.unwrap_or_default().max(state.consistent_point);
                slot::check(&mut sql, &mut replication, &identity, &state, position, durable.is_none()).await?;
                let changed = state.timeline != identity.timeline || state.selection != selected;
                state.timeline = identity.timeline;
                state.selection = selected;
                (state, position, durable.is_none(), changed)
            }
            None => {
                let table = catalog.tables.first().map(|table| table.record.label()).unwrap_or_default();
                return Err(Stop::EndedAfter(Box::new(intended(Lsn(0)).progress(table, 0, None)?)));
            }
        };
        // What an earlier run was told must not count for this one: it may have been another slot.
        shared.durable.send_replace(durable.unwrap_or_default());
        shared.streamed.begin(&mut sql).await?;
        let values = start.selection.values;
        let mut session = Self {
            reading_told: start.state.is_some() && state.reading,
            settings: settings.clone(),
            shared: shared.clone(),
            selection: start.selection,
            server,
            state,
            state_changed,
            unsettled: true,
            sql: sql.settled(),
            types: TypeRegistry::new(values),
            output,
            position,
            relations: HashMap::new(),
            outdated: BTreeSet::new(),
            estimates: HashMap::new(),
            ordered: BTreeSet::new(),
            poll_at: Instant::now() + settings.poll_interval,
            slot_checked_at: Instant::now(),
            fresh,
        };
        session.compare(&catalog).await?;
        for table in &mut session.state.tables {
            // Reading in one go cannot be resumed: all of the table is read again.
            if table.parts.iter().any(|part| matches!(part.progress, Progress::Unordered { .. })) {
                table.stale = Some(Lsn(0));
            }
        }
        Ok(session)
    }

    /// Sends events until something ends it.
    pub(crate) async fn run(mut self) {
        let stop = match self.go().await {
            Ok(never) => match never {},
            Err(stop) => stop,
        };
        let mut stop = self.explain(stop).await;
        if matches!(stop, Stop::Lost(_))
            && let Err(error) = slot::give_up(&mut self.sql, &self.shared, &self.state.slot_owner()).await
        {
            // The store still knows its slot: the next run finds the same loss.
            stop = error.into();
        }
        self.output.finish(stop).await;
    }

    async fn go(&mut self) -> Result<std::convert::Infallible, Stop> {
        // The snapshot of a new slot, or one that was interrupted, comes before the stream.
        self.read_tables(true).await?;
        let stream = slot::open_stream(
            &mut self.sql,
            &self.settings,
            &self.shared,
            &self.state,
            self.position,
            Duration::from_millis(self.server.sender_timeout_ms),
        )
        .await?;
        // Until now anybody could use the slot; from here on it moves only as far as we confirm, which is nothing yet.
        self.check_slot().await?;
        // Somebody may wait for a position that an idle server would never pass.
        self.nudge().await?;
        self.follow(stream).await
    }

    /// A publication that does not exist at all is for a person to make, and is waited for; until then nothing is thrown
    /// away.
    async fn explain(&mut self, stop: Stop) -> Stop {
        let Stop::Lost(reason) = stop else { return stop };
        // The log tells of a dropped publication some moments before queries do. If others hold that up, it is as it seems.
        if let Ok(Err(error)) = tokio::time::timeout(VISIBLE_WITHIN, visibility::barrier(&mut self.sql)).await {
            return Stop::Failed(error.into());
        }
        let sql = format!(
            "SELECT count(*) AS n FROM pg_publication WHERE pubname = {}",
            postgres_protocol::escape::escape_literal(&self.settings.publication)
        );
        match self.sql.query_again(&sql).await {
            Ok(rows) if rows.get(0, "n") == Some("0") => Stop::Failed(syncline_core::Error::unavailable(format!(
                "publication {} is gone ({reason}): create it again",
                self.settings.publication
            ))),
            Ok(_) => Stop::Lost(reason),
            // Nothing is given up before it is certain.
            Err(error) => Stop::Failed(error.into()),
        }
    }

    /// Makes the stream move past everything that was committed before.
    pub(crate) async fn nudge(&mut self) -> Result<(), Stop> {
        let sql = message_sql(&nudge_content(&self.state.slot));
        self.sql.query_again(&sql).await?;
        Ok(())
    }

    /// Compares all tables with the catalog: new ones are to be read, changed ones to be read again, as soon as the stream
    /// has passed the present.
    pub(crate) async fn compare(&mut self, catalog: &Catalog) -> Result<(), Stop> {
        let mut stale = Vec::new();
        for table in &catalog.tables {
            if !matches!(table.kind, 'r' | 'p') {
                continue;
            }
            let oid = table.record.oid;
            self.estimates.extend(table.estimate.map(|estimate| (oid, estimate)));
            if table.ordered {
                self.ordered.insert(oid);
            } else {
                self.ordered.remove(&oid);
            }
            match self.state.tables.iter_mut().find(|known| known.oid == oid) {
                None => {
                    self.state.tables.push(table.record.clone());
                    self.state_changed = true;
                }
                Some(known) => match schema::compare(known, table) {
                    Change::None => {}
                    Change::Harmless(record) => {
                        *known = record;
                        self.state_changed = true;
                    }
                    Change::Reread(_) if known.parts.iter().any(|part| part.progress != Progress::Done) => {
                        // It is being read now, so it begins again at once.
                        known.stale = Some(Lsn(0));
                    }
                    Change::Reread(reason) if known.stale.is_none() => {
                        tracing::info!(table = known.label(), reason, "the table will be read again");
                        stale.push(oid);
                    }
                    Change::Reread(_) => {}
                },
            }
        }
        for known in &mut self.state.tables {
            let gone = !catalog.tables.iter().any(|table| table.record.oid == known.oid);
            if gone && known.stale != Some(Lsn(0)) {
                tracing::info!(table = known.label(), "the table is gone or has another name");
                known.stale = Some(Lsn(0));
                self.state_changed = true;
            }
        }
        self.unsettled = true;
        self.mark_stale(stale).await?;
        self.share_readable();
        Ok(())
    }

    /// These tables are to be read again once the stream has passed the present.
    pub(crate) async fn mark_stale(&mut self, oids: impl IntoIterator<Item = u32>) -> Result<(), Stop> {
        let oids: BTreeSet<u32> = oids.into_iter().collect();
        let fresh = |table: &TableRecord| oids.contains(&table.oid) && table.stale.is_none();
        if !self.state.tables.iter().any(fresh) {
            return Ok(());
        }
        let now = self.sql.insert_lsn().await?;
        for table in self.state.tables.iter_mut().filter(|table| fresh(table)) {
            table.stale = Some(now);
        }
        self.state_changed = true;
        self.unsettled = true;
        self.nudge().await
    }

    /// Looks for changes that the stream does not show.
    pub(crate) async fn poll(&mut self) -> Result<(), Stop> {
        self.poll_at = Instant::now() + self.settings.poll_interval;
        self.check_slot().await?;
        let catalog = self.load_catalog().await?;
        self.compare(&catalog).await?;
        self.rebuild().await
    }

    /// The catalog as it is now, with tables that can be replicated.
    async fn load_catalog(&mut self) -> Result<Catalog, Stop> {
        let name = &self.settings.publication;
        let connection = self.sql.connection().await?;
        let mut catalog = catalog::load(connection, self.server.version, name, &self.selection).await?;
        let out = note_out_of_log(&mut self.state, &catalog)?;
        let wanted = Wanted {
            publication: name,
            selection: &self.selection,
            known: Some(&self.state),
            occasion: Occasion::Poll,
            role: &self.server.role,
        };
        let mut findings = Findings::default();
        let publication = preflight::check_tables(&mut catalog, wanted, &mut findings);
        findings.finish().map_err(|error| failed_after(out, error))?;
        if publication != self.state.publication {
            return Err(Stop::Lost(format!(
                "publication {name} was dropped and made again; what changed in between is not in the log"
            )));
        }
        Ok(catalog)
    }

    /// Whether the server still keeps what the slot needs.
    pub(crate) async fn check_slot(&mut self) -> Result<(), Stop> {
        self.slot_checked_at = Instant::now();
        Ok(slot::check_health(&mut self.sql, &self.state, self.position, self.fresh).await?)
    }

    /// Whether some table is to be read now.
    pub(crate) fn reading_due(&self) -> bool {
        self.unsettled
            && (self.state.reading
                || !self.state.is_complete()
                || self.state.tables.iter().any(|table| table.stale.is_some_and(|at| at <= self.position)))
    }

    /// Reads what is to be read, between two transactions: throws away tables that are stale or gone, then reads all that
    /// is not complete, and tells from where on the result may be shown.
    pub(crate) async fn read_tables(&mut self, at_start: bool) -> Result<(), Stop> {
        if !self.reading_due() {
            return Ok(());
        }
        let catalog = self.load_catalog().await?;
        self.open_reading().await?;
        let position = self.position;
        let (due, kept): (Vec<TableRecord>, Vec<TableRecord>) = std::mem::take(&mut self.state.tables)
            .into_iter()
            .partition(|table| table.stale.is_some_and(|at| at <= position));
        self.state.tables = kept;
        for table in due {
            self.output.push(SourceEvent::TableReset { table: TableId(table.oid.into()) }, 0);
            // Described as it is now; if it is gone, the reset was all.
            let now = catalog.tables.iter().find(|now| now.record.oid == table.oid && matches!(now.kind, 'r' | 'p'));
            self.state.tables.extend(now.map(|now| now.record.clone()));
        }
        self.share_readable();
        if at_start && self.fresh {
            visibility::barrier(&mut self.sql).await?;
        } else {
            self.output.flush().await?;
            self.shared.streamed.wait(&mut self.sql).await?;
        }
        self.snapshot().await?;
        self.fresh = false;
        let no_checkpoint_before = self.sql.insert_lsn().await?.position();
        self.state.reading = false;
        self.reading_told = false;
        let state = self.state.encode()?;
        self.state_changed = false;
        let size = state.0.len();
        self.output.push(SourceEvent::SnapshotDone { no_checkpoint_before, state }, size);
        self.output.flush().await?;
        // Without it an idle server's stream would never pass that position.
        self.nudge().await?;
        self.unsettled = self.state.tables.iter().any(|table| table.stale.is_some());
        self.rebuild().await
    }

    /// Makes it known that tables are being read, before the first of their rows: whatever happens from here on, the next
    /// run tells the end of the reading.
    async fn open_reading(&mut self) -> Result<(), Stop> {
        self.state.reading = true;
        if std::mem::replace(&mut self.reading_told, true) {
            return Ok(());
        }
        let table = self.state.tables.first().map(TableRecord::label).unwrap_or_default();
        self.push_progress(table, 0, None)?;
        self.output.flush().await
    }

    /// Whether the sync config reads a column of a table.
    pub(crate) fn reads(&self, table: &TableRecord, column: &str) -> bool {
        self.selection.reads(DEFAULT_SCHEMA, &table.schema, &table.name, column)
    }

    /// Lets rows be read again with what is known now.
    pub(crate) fn share_readable(&self) {
        let readable = Readable::new(self.selection.clone(), self.state.tables.clone(), self.server.role.clone());
        *self.shared.readable.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(readable);
    }
}

/// What is written to a table while it is unlogged or out of the publication does not come: one that is seen so must be read
/// again, even if all is well at the next look. Replication waits for that; what it must remember until then is returned.
fn note_out_of_log(state: &mut State, catalog: &Catalog) -> Result<Option<SourceEvent>, Stop> {
    // Without a publication nothing is in it; if it comes back, it is another one, and all is read again.
    if catalog.publication.is_none() {
        return Ok(None);
    }
    let out = |known: &TableRecord| {
        let now = catalog.tables.iter().find(|table| table.record.oid == known.oid);
        now.is_some_and(|table| matches!(table.kind, 'r' | 'p') && !(table.permanent && table.published))
    };
    let mut seen = None;
    for table in state.tables.iter_mut().filter(|table| out(table) && table.stale != Some(Lsn(0))) {
        table.stale = Some(Lsn(0));
        seen = Some(table.label());
    }
    let Some(table) = seen else { return Ok(None) };
    state.reading = true;
    Ok(Some(state.progress(table, 0, None)?))
}

fn failed_after(event: Option<SourceEvent>, error: syncline_core::Error) -> Stop {
    match event {
        Some(event) => Stop::FailedAfter(Box::new(event), error),
        None => Stop::Failed(error),
    }
}
