//! The stream: transactions, markers and idle positions.

use std::time::Duration;

use syncline_core::{Error, SourceEvent, TableId, WallTime};
use tokio::time::{Instant, sleep_until};

use crate::catalog::DEFAULT_SCHEMA;
use crate::layout::Layout;
use crate::link::MESSAGE_PREFIX;
use crate::lsn::Lsn;
use crate::output::Stop;
use crate::pgoutput::{self, DecodeError, Message, Relation};
use crate::schema;
use crate::session::Session;
use crate::slot::SlotError;
use crate::source::OwnMessage;
use crate::visibility::MANY;
use crate::walsender::{POSTGRES_EPOCH_MICROS, WalFrame, WalFrames, WalStream};

/// How often a position without changes is told, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a row was read again the stream is made to move, unless it moves by itself: many rows share one message.
const NUDGE_DELAY: Duration = Duration::from_millis(100);

/// A relation that the stream has described.
#[derive(Debug)]
pub(crate) struct Tracked {
    relation: Relation,
    reading: Reading,
}

/// How rows of a relation are read.
#[derive(Debug)]
enum Reading {
    /// Nothing reads it.
    Ignored,
    /// Its rows come without the key that the table has now; the table is read again anyway.
    Unkeyed { table: u32 },
    Rows {
        table: u32,
        layout: Layout,
        /// The rows have other columns than those that the table was read with.
        outdated: bool,
    },
}

/// The transaction that is being received.
#[derive(Debug)]
struct Transaction {
    xid: u32,
    /// It was sent before.
    replayed: bool,
    /// Something of it was sent on.
    changed: bool,
    /// Reads beside the stream wait for it already.
    awaited: bool,
}

/// Where the stream stands.
#[derive(Debug)]
struct Receiving {
    transaction: Option<Transaction>,
    /// What committed before was sent by an earlier run.
    resumed_at: Lsn,
    /// Transactions that were sent on since the last batch.
    xids: Vec<u32>,
    /// A position that was passed and not told.
    passed: Option<Lsn>,
    told_at: Instant,
    /// The server waits for its confirmation.
    awaited: bool,
}

impl Session {
    /// Turns the stream into events until something ends it.
    pub(crate) async fn follow(&mut self, mut stream: WalStream) -> Result<std::convert::Infallible, Stop> {
        let mut receiving = Receiving {
            transaction: None,
            resumed_at: self.position,
            xids: Vec::new(),
            passed: None,
            told_at: Instant::now(),
            awaited: false,
        };
        let mut rereads = self.shared.reread_at.subscribe();
        let mut nudge_at: Option<Instant> = None;
        loop {
            let frames = match stream.try_next() {
                Some(frames) => frames.map_err(SlotError::of_walsender)?,
                None => {
                    // Nothing more has arrived: a lone transaction waits for nobody. Half of one waits for its rest.
                    if receiving.transaction.is_none() {
                        self.between_transactions(&mut receiving).await?;
                        self.deliver(&mut receiving).await?;
                    }
                    let tell_at = receiving.passed.map(|_| receiving.told_at + PROGRESS_INTERVAL);
                    let idle = receiving.transaction.is_none();
                    if idle && nudge_at.is_some_and(|at| at <= Instant::now()) {
                        nudge_at = None;
                        // An idle server's stream would never pass what it has not written.
                        if self.position < *rereads.borrow() {
                            self.nudge().await?;
                        }
                    }
                    let timer = [tell_at, nudge_at].into_iter().flatten().fold(self.poll_at, Instant::min);
                    tokio::select! {
                        changed = rereads.changed(), if idle && nudge_at.is_none() => {
                            if changed.is_ok() {
                                nudge_at = Some(Instant::now() + NUDGE_DELAY);
                            }
                            continue;
                        }
                        frames = stream.next() => frames.map_err(SlotError::of_walsender)?,
                        () = sleep_until(timer), if idle => continue,
                    }
                }
            };
            self.receive(&mut receiving, frames).await?;
        }
    }

    async fn receive(&mut self, receiving: &mut Receiving, mut frames: WalFrames) -> Result<(), Stop> {
        while let Some(frame) = frames.next()? {
            match frame {
                WalFrame::Data(bytes) => {
                    let size = bytes.len();
                    let message = pgoutput::decode(bytes).map_err(|error| self.broken(&error))?;
                    self.message(receiving, message, size).await?;
                }
                WalFrame::Keepalive { end, reply_requested } => {
                    // A server that shuts down ends only when all it has sent is confirmed, and asks for that: also for
                    // a position that was told before and that nobody was in a hurry to store.
                    let asked = reply_requested && end == self.position;
                    if receiving.transaction.is_none() && (end > self.position || asked) {
                        self.position = end;
                        receiving.passed = Some(end);
                        receiving.awaited |= reply_requested;
                    }
                }
            }
            if self.output.is_full() {
                self.deliver(receiving).await?;
            }
        }
        Ok(())
    }

    /// Hands the batch over; from then on reads beside the stream wait for its transactions.
    async fn deliver(&mut self, receiving: &mut Receiving) -> Result<(), Stop> {
        // Of a large one the first part, too: it has committed, or it would not come.
        if let Some(open) = receiving.transaction.as_mut().filter(|open| open.changed && !open.awaited) {
            open.awaited = true;
            receiving.xids.push(open.xid);
        }
        if !receiving.xids.is_empty() && self.shared.streamed.add(&mut receiving.xids) > MANY {
            self.shared.streamed.prune(&mut self.sql).await?;
        }
        self.output.flush().await
    }

    /// What is due where no transaction is open.
    async fn between_transactions(&mut self, receiving: &mut Receiving) -> Result<(), Stop> {
        if Instant::now() >= self.poll_at {
            self.poll().await?;
        }
        if self.reading_due() {
            // What is read is stored as of this position, or the tables would later be read by what was passed already.
            if let Some(position) = receiving.passed.take() {
                let awaited = std::mem::take(&mut receiving.awaited);
                self.output.push(SourceEvent::Progress { position: position.position(), awaited }, 0);
            }
            self.deliver(receiving).await?;
            self.read_tables(false).await?;
        }
        let due = receiving.told_at.elapsed() >= PROGRESS_INTERVAL || receiving.awaited;
        if let (Some(position), true) = (receiving.passed, due) {
            receiving.passed = None;
            receiving.told_at = Instant::now();
            let awaited = std::mem::take(&mut receiving.awaited);
            self.output.push(SourceEvent::Progress { position: position.position(), awaited }, 0);
        }
        Ok(())
    }

    async fn message(&mut self, receiving: &mut Receiving, message: Message, size: usize) -> Result<(), Stop> {
        match message {
            Message::Begin { commit_lsn, xid } => {
                // A stored position is the end of a transaction, so one that commits right there is new.
                let replayed = commit_lsn < receiving.resumed_at;
                receiving.transaction = Some(Transaction { xid, replayed, changed: false, awaited: false });
            }
            Message::Commit { end_lsn, time } => self.commit(receiving, end_lsn, time).await?,
            Message::Relation(relation) => self.relation(receiving, relation).await?,
            Message::Logical { transactional, prefix, content } => {
                if transactional && prefix == MESSAGE_PREFIX {
                    self.own_message(receiving, &content)?;
                }
            }
            Message::Truncate { relations } => {
                let transaction = open(receiving)?;
                if !transaction.replayed {
                    transaction.changed |= self.truncate(&relations);
                }
            }
            Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => {
                let transaction = open(receiving)?;
                if !transaction.replayed {
                    let changed = self.row(message, size).map_err(|error| self.broken(&error))?;
                    transaction.changed |= changed;
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    /// Turns a row message into an event; false if nothing reads its table.
    fn row(&mut self, message: Message, size: usize) -> Result<bool, DecodeError> {
        let relation = match &message {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                *relation
            }
            _ => return Ok(false),
        };
        let tracked = self
            .relations
            .get(&relation)
            .ok_or_else(|| DecodeError::Row(format!("a row of relation {relation}, which was not described")))?;
        let layout = match &tracked.reading {
            Reading::Ignored => return Ok(false),
            Reading::Unkeyed { table } => {
                self.outdated.insert(*table);
                return Ok(true);
            }
            Reading::Rows { table, layout, outdated } => {
                if *outdated {
                    self.outdated.insert(*table);
                }
                layout
            }
        };
        let table = layout.table.clone();
        let event = match message {
            Message::Insert { new, .. } => {
                let (row, old_key) = layout.row(&new, None)?;
                SourceEvent::Put { table, row, old_key }
            }
            Message::Update { new, old, .. } => {
                let (row, old_key) = layout.row(&new, old.as_ref())?;
                SourceEvent::Put { table, row, old_key }
            }
            Message::Delete { old, .. } => SourceEvent::Remove { table, key: layout.old_key(&old)? },
            _ => return Ok(false),
        };
        self.output.push(event, size);
        Ok(true)
    }

    /// Whole tables are truncated at once; of a partitioned one perhaps only some partitions, and then it is read again.
    fn truncate(&mut self, relations: &[u32]) -> bool {
        let mut tables = Vec::new();
        let mut partly = Vec::new();
        for table in &mut self.state.tables {
            let mut hit = 0;
            for part in table.parts.iter_mut().filter(|part| relations.contains(&part.oid)) {
                hit += 1;
                part.file = 0;
                self.state_changed = true;
            }
            if relations.contains(&table.oid) || (hit > 0 && hit == table.parts.len()) {
                tables.push(TableId(table.oid.into()));
            } else if hit > 0 {
                partly.push(table.oid);
            }
        }
        let changed = !tables.is_empty() || !partly.is_empty();
        self.outdated.extend(partly);
        if !tables.is_empty() {
            self.output.push(SourceEvent::Truncate { tables }, 0);
        }
        changed
    }

    fn own_message(&mut self, receiving: &mut Receiving, content: &[u8]) -> Result<(), Stop> {
        let transaction = open(receiving)?;
        if transaction.replayed {
            return Ok(());
        }
        match OwnMessage::parse(&self.state.slot, content) {
            OwnMessage::Marker(token) => {
                self.output.push(SourceEvent::Marker(token), 0);
                transaction.changed = true;
            }
            // Somebody waits for this position.
            OwnMessage::Nudge => transaction.changed = true,
            OwnMessage::Foreign => {}
        }
        Ok(())
    }

    async fn commit(&mut self, receiving: &mut Receiving, end: Lsn, time: i64) -> Result<(), Stop> {
        let transaction = receiving
            .transaction
            .take()
            .ok_or_else(|| Error::protocol("the server ended a transaction that it had not begun"))?;
        if transaction.replayed {
            return Ok(());
        }
        if !self.outdated.is_empty() {
            // Known durably with this very transaction, so that a restart does not forget it.
            let outdated = std::mem::take(&mut self.outdated);
            self.mark_stale(outdated).await?;
        }
        self.position = self.position.max(end);
        if !transaction.awaited {
            receiving.xids.push(transaction.xid);
        }
        if transaction.changed || self.state_changed {
            let state = if self.state_changed { Some(self.state.encode()?) } else { None };
            self.state_changed = false;
            let committed_at = Some(WallTime((time + POSTGRES_EPOCH_MICROS).div_euclid(1000)));
            self.output.push(SourceEvent::Commit { position: end.position(), committed_at, state }, 0);
            receiving.passed = None;
        } else {
            receiving.passed = Some(end);
        }
        if self.reading_due() || Instant::now() >= self.poll_at {
            self.between_transactions(receiving).await?;
        }
        Ok(())
    }

    /// A relation is described, for the first time on this connection or because it may have changed.
    async fn relation(&mut self, receiving: &mut Receiving, relation: Relation) -> Result<(), Stop> {
        if self.relations.get(&relation.oid).is_some_and(|tracked| tracked.relation == relation) {
            return Ok(());
        }
        let unknown = match self.state.table_of(relation.oid) {
            // Perhaps a table or a partition that was made or renamed a moment ago.
            None if self.selection.matches(DEFAULT_SCHEMA, &relation.schema, &relation.name) => true,
            None => {
                self.see(receiving).await?;
                self.is_partition_of_ours(&relation).await?
            }
            Some(table) => !schema::fits(table, &relation, |name| self.reads(table, name)),
        };
        if unknown {
            self.see(receiving).await?;
            self.poll().await?;
        }
        let types: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        if self.state.table_of(relation.oid).is_some() {
            self.types.load(self.sql.connection().await?, types).await?;
        }
        let reading = self.reading(&relation);
        self.relations.insert(relation.oid, Tracked { relation, reading });
        Ok(())
    }

    /// Waits until the catalog is that of the open transaction. The stream may be faster than visibility: asked at once,
    /// the catalog could still be that from before this very transaction, and its rows would not fit.
    async fn see(&mut self, receiving: &mut Receiving) -> Result<(), Stop> {
        receiving.xids.extend(receiving.transaction.as_ref().map(|transaction| transaction.xid));
        self.shared.streamed.add(&mut receiving.xids);
        Ok(self.shared.streamed.wait(&mut self.sql).await?)
    }

    async fn is_partition_of_ours(&mut self, relation: &Relation) -> Result<bool, Stop> {
        let sql = format!("SELECT pg_partition_root(oid)::oid AS root FROM pg_class WHERE oid = {}", relation.oid);
        let rows = self.sql.query_again(&sql).await?;
        let root = rows.get(0, "root").and_then(|root| root.parse().ok());
        Ok(root.is_some_and(|root: u32| self.state.tables.iter().any(|table| table.oid == root)))
    }

    fn reading(&self, relation: &Relation) -> Reading {
        let Some(table) = self.state.table_of(relation.oid) else { return Reading::Ignored };
        let columns = relation.columns.iter().map(|column| (column.name.as_str(), column.type_oid));
        match Layout::new(table, columns, &self.types, |name| self.reads(table, name)) {
            Some(layout) if schema::names_rows(table, relation) => {
                let outdated = !schema::fits(table, relation, |name| self.reads(table, name));
                Reading::Rows { table: table.oid, layout, outdated }
            }
            _ => Reading::Unkeyed { table: table.oid },
        }
    }

    /// Decides anew how each relation is read, after tables have changed.
    pub(crate) async fn rebuild(&mut self) -> Result<(), Stop> {
        let relations: Vec<Relation> = self.relations.drain().map(|(_, tracked)| tracked.relation).collect();
        let known = relations.iter().filter(|relation| self.state.table_of(relation.oid).is_some());
        let types: Vec<u32> =
            known.flat_map(|relation| relation.columns.iter().map(|column| column.type_oid)).collect();
        self.types.load(self.sql.connection().await?, types).await?;
        for relation in relations {
            let reading = self.reading(&relation);
            self.relations.insert(relation.oid, Tracked { relation, reading });
        }
        Ok(())
    }

    fn broken(&self, error: &DecodeError) -> Stop {
        Stop::Failed(Error::protocol(format!("the stream cannot be read after {}: {error}", self.position)))
    }
}

fn open(receiving: &mut Receiving) -> Result<&mut Transaction, Stop> {
    let outside = || Stop::Failed(Error::protocol("the server sent a change outside a transaction"));
    receiving.transaction.as_mut().ok_or_else(outside)
}
