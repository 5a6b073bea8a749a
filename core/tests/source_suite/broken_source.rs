//! Sources that break one promise each, around the one in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use syncline_core::memory::MemorySource;
use syncline_core::testing::source_suite::{Change, Hand};
use syncline_core::{
    Bytes, Field, MarkerToken, Reread, Result, RowKey, Source, SourceEvent, SourcePosition, SourceRow, SourceStart,
    SourceTable, TablePattern, TableSelection, Value, async_trait,
};

use crate::memory_hand::MemoryHand;

/// What is wrong with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A transaction is told in two.
    SplitsTransactions,
    /// Two are told as one.
    MergesTransactions,
    /// Positions are numbers whose lowest byte comes first.
    LittleEndian,
    /// The first transaction after a position is left out.
    SkipsOne,
    /// The last transaction before a position comes again.
    RepeatsOne,
    /// What was sent once is not sent again.
    ForgetsWhatItSent,
    /// A stream begins where the last confirmation was.
    ResumesFromConfirmed,
    /// Of many events that wait, only the last ones are kept.
    DropsWhenSlow,
    /// NULL comes as empty text in a snapshot.
    NullIsEmpty,
    /// Nothing tells that the stream has passed the end of the snapshot.
    NeverPassesSnapshot,
    /// What is committed while the snapshot is read is not in the stream, but for the last of it.
    StreamsFromTheEndOfTheSnapshot,
    /// After a restart within a snapshot, the stream begins at the restart.
    ForgetsWhereTheSnapshotBegan,
    /// The stream spells keys in another way than the snapshot.
    KeysDiffer,
    /// Tables that came late are not noticed.
    IgnoresLateTables,
    /// The old key of a row is not told.
    KeepsOldKeys,
    /// A large value that did not change comes as NULL.
    UnchangedIsNull,
    /// Removals come at the end of a transaction.
    RemovesLast,
    /// All tables are sent, whatever was selected.
    SendsAllTables,
    /// No column is sent that an update did not name: the selection is misunderstood.
    LeavesOutColumns,
    /// Rows that are read again are taken from a cache.
    RereadsFromCache,
    /// Keys without a row get no answer.
    AnswersOnlyWhatIsThere,
    /// The position of what was read again lies ahead of what an idle stream reaches.
    HoldsTooFar,
    /// Markers go ahead of what waits.
    MarkersOvertake,
    /// A marker that nobody listens for is not sent.
    LosesMarkers,
    /// Where history is lost, the stream goes on near the end of what there is.
    GoesOnAfterLostHistory,
    /// After lost history the stream stays open.
    StaysOpenAfterLostHistory,
    /// Any bytes are taken for a position.
    TakesAnyPosition,
    /// A state that cannot be read is taken for none.
    TakesAnyState,
}

/// A row that was read again.
type Answer = Option<(Arc<SourceTable>, SourceRow)>;

/// What all handles of one broken source share.
#[derive(Debug, Default)]
struct Shared {
    sent: Mutex<u64>,
    confirmed: Mutex<Option<SourcePosition>>,
    bodies: Mutex<BTreeMap<Bytes, Value>>,
    cache: Mutex<BTreeMap<Bytes, Answer>>,
    open: AtomicUsize,
}

/// A hand on a database in memory whose source is broken.
#[derive(Debug)]
pub(crate) struct BrokenHand {
    hand: MemoryHand,
    fault: Fault,
    shared: Arc<Shared>,
}

impl BrokenHand {
    pub(crate) fn new(fault: Fault, patience: Duration) -> Self {
        Self { hand: MemoryHand::new(patience), fault, shared: Arc::default() }
    }
}

#[async_trait]
impl Hand for BrokenHand {
    fn source(&self) -> Arc<dyn Source> {
        let (inner, fault, shared) = (self.hand.database(), self.fault, Arc::clone(&self.shared));
        Arc::new(BrokenSource { inner, fault, shared })
    }
    fn patience(&self) -> Duration {
        self.hand.patience()
    }
    fn many_rows(&self) -> usize {
        self.hand.many_rows()
    }
    async fn create_table(&self, name: &str, columns: &[&str]) {
        self.hand.create_table(name, columns).await;
    }
    async fn commit(&self, changes: &[Change]) {
        self.hand.commit(changes).await;
    }
    async fn commit_overlapping(&self, first: &[Change], second: &[Change]) {
        self.hand.commit_overlapping(first, second).await;
    }
    async fn lose_history(&self) {
        self.hand.lose_history().await;
    }
}

#[derive(Debug)]
struct BrokenSource {
    inner: MemorySource,
    fault: Fault,
    shared: Arc<Shared>,
}

impl BrokenSource {
    /// Where the log ends.
    async fn end(&self) -> Result<SourcePosition> {
        let nothing =
            SourceTable { id: syncline_core::TableId(0), schema: "".into(), name: "".into(), columns: Vec::new() };
        Ok(self.inner.reread(&nothing, &[]).await?.no_checkpoint_before)
    }

    async fn begin(&self, mut start: SourceStart) -> Result<SourceStart> {
        match self.fault {
            Fault::LittleEndian => start.position = start.position.as_ref().map(reversed),
            Fault::RepeatsOne => start.position = start.position.map(|at| position(number(&at).saturating_sub(1))),
            Fault::ResumesFromConfirmed => {
                let confirmed = self.shared.confirmed.lock().unwrap().clone();
                start.position = start.position.map(|position| confirmed.unwrap_or(position));
            }
            Fault::ForgetsWhereTheSnapshotBegan if start.position.is_none() => start.state = None,
            Fault::TakesAnyState => start.state = start.state.filter(|state| state.0.len() == 8),
            Fault::SendsAllTables => {
                let all = TablePattern { prefix: true, ..TablePattern::default() };
                start.selection = TableSelection { patterns: vec![all], ..TableSelection::default() };
            }
            Fault::GoesOnAfterLostHistory | Fault::TakesAnyPosition => {
                let last = position(number(&self.end().await?) - 1);
                let is_known = |position: &SourcePosition| position.0.len() == last.0.len() && *position <= last;
                start.position =
                    start.position.map(|position| if is_known(&position) { position } else { last.clone() });
            }
            _ => {}
        }
        Ok(start)
    }
}

#[async_trait]
impl Source for BrokenSource {
    async fn events(&self, start: SourceStart) -> Result<BoxStream<'static, Result<Vec<SourceEvent>>>> {
        let resumes = start.position.is_some();
        let events = self.inner.events(self.begin(start).await?).await?;
        let mut broken = Broken { fault: self.fault, shared: Arc::clone(&self.shared), batches: 0, resumes };
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&self.shared));
        let events = events.map(move |batch| {
            let _open = &open;
            batch.map(|batch| broken.batch(batch))
        });
        if self.fault == Fault::StaysOpenAfterLostHistory {
            return Ok(events.chain(stream::pending()).boxed());
        }
        Ok(events.boxed())
    }

    fn acknowledge(&self, position: &SourcePosition) {
        if position.0.len() == 8 {
            *self.shared.confirmed.lock().unwrap() = Some(position.clone());
        }
        self.inner.acknowledge(position);
    }

    async fn emit_marker(&self, token: &MarkerToken) -> Result<()> {
        if self.fault == Fault::LosesMarkers && self.shared.open.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.inner.emit_marker(token).await
    }

    async fn reread(&self, table: &SourceTable, keys: &[RowKey]) -> Result<Reread> {
        let mut answer = self.inner.reread(table, keys).await?;
        match self.fault {
            Fault::RereadsFromCache => {
                let mut cache = self.shared.cache.lock().unwrap();
                for (key, row) in keys.iter().zip(&mut answer.rows) {
                    *row = cache.entry(key.key.clone()).or_insert_with(|| row.clone()).clone();
                }
            }
            Fault::AnswersOnlyWhatIsThere => answer.rows.retain(Option::is_some),
            Fault::HoldsTooFar => answer.no_checkpoint_before = position(number(&answer.no_checkpoint_before) + 1),
            _ => {}
        }
        Ok(answer)
    }
}

/// Counts a stream for as long as it is there.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One stream with a fault.
struct Broken {
    fault: Fault,
    shared: Arc<Shared>,
    batches: usize,
    resumes: bool,
}

impl Broken {
    fn batch(&mut self, events: Vec<SourceEvent>) -> Vec<SourceEvent> {
        self.batches += 1;
        let first = self.batches == 1;
        match self.fault {
            Fault::SplitsTransactions => flat(transactions(events), |events| {
                let Some(SourceEvent::Commit { position: at, .. }) = events.last() else { return events };
                let mut half = position(number(at) - 1).0.to_vec();
                half.push(1);
                let commit =
                    SourceEvent::Commit { position: SourcePosition(half.into()), committed_at: None, state: None };
                let mut events = events;
                if events.len() > 2 {
                    events.insert(1, commit);
                }
                events
            }),
            Fault::MergesTransactions => {
                let last = events.len() - 1;
                let kept = events.into_iter().enumerate();
                kept.filter(|(at, event)| *at == last || !matches!(event, SourceEvent::Commit { .. }))
                    .map(|(_, event)| event)
                    .collect()
            }
            Fault::LittleEndian => each(events, |event| match event {
                SourceEvent::Commit { position, .. } | SourceEvent::Progress { position, .. } => {
                    *position = reversed(position);
                }
                SourceEvent::SnapshotDone { no_checkpoint_before, .. } => {
                    *no_checkpoint_before = reversed(no_checkpoint_before);
                }
                _ => {}
            }),
            Fault::SkipsOne if first && self.resumes => transactions(events).into_iter().skip(1).flatten().collect(),
            Fault::ForgetsWhatItSent => {
                let mut sent = self.shared.sent.lock().unwrap();
                let fresh = flat(transactions(events), |events| match events.last() {
                    Some(SourceEvent::Commit { position, .. }) if number(position) <= *sent => Vec::new(),
                    Some(SourceEvent::Commit { position, .. }) => {
                        *sent = number(position);
                        events
                    }
                    _ => events,
                });
                drop(sent);
                fresh
            }
            Fault::DropsWhenSlow => {
                let mut kept = transactions(events);
                let surplus = kept.len().saturating_sub(100);
                kept.drain(..surplus);
                kept.into_iter().flatten().collect()
            }
            Fault::NullIsEmpty => each(events, |event| {
                if let SourceEvent::SnapshotRows { rows, .. } = event {
                    let fields = rows.iter_mut().flat_map(|row| &mut row.fields);
                    fields.filter(|field| **field == Field::Value(Value::Null)).for_each(|field| {
                        *field = Field::Value("".into());
                    });
                }
            }),
            Fault::NeverPassesSnapshot => without(events, |event| matches!(event, SourceEvent::Progress { .. })),
            Fault::StreamsFromTheEndOfTheSnapshot if self.batches == 2 && !self.resumes => {
                transactions(events).pop().unwrap_or_default()
            }
            Fault::KeysDiffer => each(events, |event| match event {
                SourceEvent::Put { table, row: SourceRow { key, .. }, .. } | SourceEvent::Remove { table, key }
                    if &*table.name == "a" =>
                {
                    key.key = [b"'", &key.key[..], b"'"].concat().into();
                }
                _ => {}
            }),
            Fault::IgnoresLateTables => without(events, |event| match event {
                SourceEvent::Put { table, .. } | SourceEvent::Remove { table, .. } => table.name.starts_with("late_"),
                _ => false,
            }),
            Fault::KeepsOldKeys => flat(transactions(events), |events| {
                let puts =
                    events.iter().any(|event| matches!(event, SourceEvent::Put { table, .. } if &*table.name == "a"));
                without(events, |event| puts && matches!(event, SourceEvent::Remove { .. }))
            }),
            Fault::UnchangedIsNull => {
                let mut bodies = self.shared.bodies.lock().unwrap();
                each(events, |event| {
                    let SourceEvent::Put { row, .. } = event else { return };
                    for field in &mut row.fields {
                        let Field::Value(value) = field else { continue };
                        if value.size() < 1_000 {
                            continue;
                        }
                        let before = bodies.insert(row.key.key.clone(), value.clone());
                        if before.as_ref() == Some(value) {
                            *field = Field::Value(Value::Null);
                        }
                    }
                })
            }
            Fault::RemovesLast => flat(transactions(events), |events| {
                let is_removal = |event: &SourceEvent| matches!(event, SourceEvent::Remove { .. });
                let (removals, mut events): (Vec<_>, Vec<_>) = events.into_iter().partition(is_removal);
                let end = events.pop();
                events.into_iter().chain(removals).chain(end).collect()
            }),
            Fault::LeavesOutColumns => each(events, |event| {
                if let SourceEvent::Put { table, row, .. } = event
                    && &*table.name == "a"
                {
                    row.fields[1] = Field::Unused;
                }
            }),
            Fault::MarkersOvertake => {
                let is_marker = |event: &SourceEvent| matches!(event, SourceEvent::Marker(_));
                let (markers, rest): (Vec<_>, Vec<_>) = events.into_iter().partition(is_marker);
                markers.into_iter().chain(rest).collect()
            }
            _ => events,
        }
    }
}

fn each(mut events: Vec<SourceEvent>, change: impl FnMut(&mut SourceEvent)) -> Vec<SourceEvent> {
    events.iter_mut().for_each(change);
    events
}

fn without(mut events: Vec<SourceEvent>, unwanted: impl Fn(&SourceEvent) -> bool) -> Vec<SourceEvent> {
    events.retain(|event| !unwanted(event));
    events
}

fn flat(
    transactions: Vec<Vec<SourceEvent>>,
    change: impl FnMut(Vec<SourceEvent>) -> Vec<SourceEvent>,
) -> Vec<SourceEvent> {
    transactions.into_iter().flat_map(change).collect()
}

/// Each piece ends with a commit; whatever else there is, is one piece.
fn transactions(events: Vec<SourceEvent>) -> Vec<Vec<SourceEvent>> {
    let mut pieces = vec![Vec::new()];
    for event in events {
        let ends = matches!(event, SourceEvent::Commit { .. });
        pieces.last_mut().unwrap().push(event);
        if ends {
            pieces.push(Vec::new());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn number(position: &SourcePosition) -> u64 {
    u64::from_be_bytes(position.0[..8].try_into().unwrap())
}

fn position(number: u64) -> SourcePosition {
    SourcePosition(Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn reversed(position: &SourcePosition) -> SourcePosition {
    SourcePosition(position.0.iter().rev().copied().collect())
}
