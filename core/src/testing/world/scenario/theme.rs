//! Scenarios that dwell on one thing: what goes wrong only when rare things meet would otherwise be met too rarely.

use serde_json::{Value as Json, json};

use super::super::content::Row;
use super::super::database::Change;
use super::super::random::Random;
use super::action::{Action, NetworkFault};
use super::generate::{TEAMS, USERS, all_columns, change, id, local_write, nudge, pick, some_columns};
use super::{Setup, Step};

/// So many seeds in a row have each theme once.
const ROUND: u64 = 12;

/// What a scenario dwells on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// Rows change their keys while their table is read, and are read again one by one.
    Rereads,
    /// The store is compacted beside downloads that take long.
    Compaction,
    /// Many clients ask for write checkpoints at once, while markers are sent and their answers lost.
    Markers,
    /// The network damages what it carries.
    Damage,
    /// The config gets another text and goes on meaning the same.
    Rewording,
    /// Tokens end, where nobody notices.
    Tokens,
}

impl Theme {
    /// That of a seed; half of all seeds have one.
    pub(super) fn of(seed: u64) -> Option<Self> {
        match seed % ROUND {
            1 => Some(Self::Rereads),
            3 => Some(Self::Compaction),
            5 => Some(Self::Markers),
            7 => Some(Self::Damage),
            9 => Some(Self::Rewording),
            11 => Some(Self::Tokens),
            _ => None,
        }
    }

    /// Changes what there is before anything happens.
    pub(super) fn prepare(self, random: &Random, setup: &mut Setup) {
        let most = |setup: &mut Setup, clients: u64| {
            while (setup.clients.len() as u64) < clients {
                setup.clients.push((pick(random, &USERS).to_owned(), pick(random, &TEAMS).to_owned()));
            }
        };
        match self {
            Self::Rereads => setup.rows_before.extend((0..4).map(|_| list(random))),
            Self::Compaction => {
                setup.compact_every_s = 1;
                most(setup, 3);
            }
            Self::Markers => {
                most(setup, random.between(5, 8));
                setup.token_life_s = None;
            }
            Self::Damage => setup.rows_before.extend((0..6).map(|_| list(random))),
            Self::Rewording => {}
            Self::Tokens => setup.token_life_s = Some(random.between(25, 45)),
        }
    }

    /// Has something happen from `at` on. Returns when it is over.
    pub(super) fn happens(self, random: &Random, clients: usize, at: u64, steps: &mut Vec<Step>) -> u64 {
        let mut script = Script { random, at, steps };
        match self {
            Self::Rereads => script.rereads(),
            Self::Compaction => script.compaction(random.index(clients)),
            Self::Markers => script.markers(clients),
            Self::Damage => script.damage(random.index(clients)),
            Self::Rewording => script.rewording(random.index(clients)),
            Self::Tokens => script.tokens(random.index(clients)),
        }
        script.at
    }
}

/// Steps one after the other.
struct Script<'a> {
    random: &'a Random,
    at: u64,
    steps: &'a mut Vec<Step>,
}

impl Script<'_> {
    fn then(&mut self, action: Action) {
        self.steps.push(Step { at: self.at, nudge: nudge(self.random), action });
    }

    fn after(&mut self, least: u64, most: u64, action: Action) {
        self.at += self.random.between(least, most);
        self.then(action);
    }

    fn rereads(&mut self) {
        let random = self.random;
        self.then(Action::Commit((0..3).map(|_| list(random)).collect()));
        self.after(0, 300, Action::BucketDisk(random.between(10, 150), 0));
        self.then(Action::ReadAnew("lists"));
        for _ in 0..random.between(6, 14) {
            let rename =
                Change::Rename { table: "lists".to_owned(), from: id(random, "lists"), to: id(random, "lists") };
            let other = if random.permille(500) { list(random) } else { change(random) };
            let changes = if random.permille(600) { vec![rename] } else { vec![other, rename] };
            self.after(2, 60, Action::Commit(changes));
        }
        self.after(0, 500, Action::BucketDisk(1, 0));
    }

    fn compaction(&mut self, client: usize) {
        let random = self.random;
        self.then(Action::Network(client, NetworkFault::Cut));
        self.rewrites(3, 100);
        self.then(Action::Network(client, NetworkFault::Up));
        self.then(Action::Network(client, NetworkFault::Slow(random.between(20, 300))));
        self.then(Action::BucketDisk(random.between(30, 300), 0));
        self.then(Action::Subscribe(client, id(random, "lists"), None));
        self.rewrites(14, 250);
        self.then(Action::BucketDisk(1, 0));
        self.then(Action::Network(client, NetworkFault::Up));
    }

    /// The same few rows again and again.
    fn rewrites(&mut self, times: u64, pause: u64) {
        let random = self.random;
        for _ in 0..random.between(times / 2, times) {
            let patch = |table: &str| Change::Patch {
                table: table.to_owned(),
                id: id(random, table),
                columns: some_columns(random, table),
            };
            let changes = (0..random.between(1, 5)).map(|_| match random.below(4) {
                0 => list(random),
                1 => patch("lists"),
                2 => item(random),
                _ => change(random),
            });
            self.after(0, pause, Action::Commit(changes.collect()));
        }
    }

    fn markers(&mut self, clients: usize) {
        let random = self.random;
        self.then(Action::BucketDisk(random.between(50, 400), 0));
        self.then(Action::MarkerAnswersLost(random.between(200, 700)));
        for _ in 0..random.between(8, 20) {
            let client = random.index(clients);
            self.after(0, 120, Action::Write(client, vec![local_write(random, false)]));
        }
        self.after(0, 500, Action::MarkerAnswersLost(0));
        self.then(Action::BucketDisk(1, 0));
    }

    fn damage(&mut self, client: usize) {
        let random = self.random;
        self.then(Action::Network(client, NetworkFault::Unreliable(0, 0, random.between(100, 700))));
        self.rewrites(8, 400);
        self.after(0, 2_000, Action::Network(client, NetworkFault::Up));
    }

    fn rewording(&mut self, client: usize) {
        let random = self.random;
        self.rewrites(3, 100);
        self.after(0, 300, Action::Reword(random.below(1_000)));
        self.then(Action::Write(client, vec![local_write(random, false)]));
        self.rewrites(4, 400);
    }

    fn tokens(&mut self, client: usize) {
        let random = self.random;
        let fault = match random.below(5) {
            0 => Some(NetworkFault::HalfOpen),
            1 => Some(NetworkFault::Silent),
            2 => Some(NetworkFault::Slow(random.between(100, 8_000))),
            _ => None,
        };
        self.rewrites(3, 500);
        if let Some(fault) = fault {
            self.then(Action::Network(client, fault));
            self.rewrites(6, 200);
        }
        self.at += random.between(10_000, 40_000);
        self.then(Action::Network(client, NetworkFault::Up));
    }
}

/// A whole row of `lists`, whose large column an update leaves out of the log.
fn list(random: &Random) -> Change {
    let mut row: Row = all_columns(random, "lists");
    row.insert("id".to_owned(), Json::String(id(random, "lists")));
    row.insert("body".to_owned(), json!("b".repeat(60)));
    Change::Put { table: "lists".to_owned(), row }
}

fn item(random: &Random) -> Change {
    let mut row: Row = all_columns(random, "items");
    row.insert("id".to_owned(), Json::String(id(random, "items")));
    Change::Put { table: "items".to_owned(), row }
}
