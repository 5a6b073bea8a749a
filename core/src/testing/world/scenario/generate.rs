//! Drawing a whole scenario from a seed, or from bytes.

use serde_json::{Map, Value as Json, json};

use super::super::backend::REFUSED;
use super::super::content::Row;
use super::super::database::Change;
use super::super::process::Process;
use super::super::random::Random;
use super::action::{Action, NetworkFault};
use super::rule::columns;
use super::theme::Theme;
use super::{Scenario, Setup, Step};
use crate::local_transaction::{LocalWrite, WriteKind};

/// Tables that clients have.
const TABLES: [&str; 4] = ["notices", "lists", "items", "projects"];
/// The tables of the source.
const SOURCE_TABLES: [&str; 5] = ["notices", "lists", "items", "projects", "members"];
pub(super) const USERS: [&str; 3] = ["anna", "ben", "carl"];
pub(super) const TEAMS: [&str; 2] = ["red", "blue"];
/// Texts that are awkward somewhere.
const TEXTS: [&str; 8] =
    ["milk", "", "tea \"green\"", "x'; --", "zwölf Äpfel 🍎", "line\nbreak\u{2028}", "\u{0}\t\\", "{\"json\":[1]}"];

/// The random numbers that draw the scenario of a seed.
pub(super) fn chance(seed: u64) -> Random {
    Random::new(seed ^ 0x005e_ed0f_5ce4_a210)
}

/// Draws a scenario; `seed` is for chance within it.
pub(super) fn scenario(seed: u64, random: &Random) -> Scenario {
    // More than a service wakes at once, now and then.
    let clients = if random.permille(120) { random.between(5, 9) } else { random.between(1, 4) };
    let mut setup = Setup {
        clients: (0..clients).map(|_| (pick(random, &USERS).to_owned(), pick(random, &TEAMS).to_owned())).collect(),
        token_life_s: random.permille(500).then(|| random.between(25, 120)),
        compact_every_s: random.between(3, 40),
        faults_end_in_sight: random.permille(700),
        stalled: (clients > 1 && random.permille(250)).then(|| random.index(usize::try_from(clients).unwrap_or(1))),
        rows_before: (0..random.between(0, 25)).map(|_| put(random)).collect(),
    };
    let calm = random.permille(100);
    let theme = Theme::of(seed);
    if let Some(theme) = theme {
        theme.prepare(random, &mut setup);
    }
    let mut steps = Vec::new();
    let mut at = 0;
    for _ in 0..random.between(10, 120) {
        if !random.has_more() {
            break;
        }
        if let Some(theme) = theme.filter(|_| random.permille(250)) {
            at = theme.happens(random, setup.clients.len(), at, &mut steps);
            continue;
        }
        at += match random.below(10) {
            0 => 0,
            1..=6 => random.below(200),
            7 | 8 => random.between(200, 3_000),
            _ => random.between(3_000, 20_000),
        };
        let client = random.index(setup.clients.len());
        if calm || random.permille(700) {
            steps.push(Step { at, nudge: nudge(random), action: work(random, client) });
        } else {
            trouble(random, client, at, &mut steps);
        }
    }
    steps.sort_by_key(|step| step.at);
    if random.permille(800) {
        // What is broken then, is mended all at once.
        steps.retain(|step| step.at <= at);
    }
    Scenario { seed, setup, steps }
}

pub(super) fn nudge(random: &Random) -> u64 {
    if random.permille(500) { 0 } else { random.between(1, 40) }
}

/// What users do.
fn work(random: &Random, client: usize) -> Action {
    match random.below(20) {
        0..=8 => {
            let changes = if random.permille(60) { random.between(10, 40) } else { random.between(1, 4) };
            Action::Commit((0..changes).map(|_| change(random)).collect())
        }
        9..=16 => {
            let refused = random.permille(120);
            let writes = (0..random.between(1, 3)).map(|_| local_write(random, refused)).collect();
            Action::Write(client, writes)
        }
        17 | 18 => {
            let priority = random.permille(200).then(|| u8::try_from(random.below(4)).unwrap_or(3));
            Action::Subscribe(client, id(random, "lists"), priority)
        }
        _ => Action::Unsubscribe(client, random.index(3)),
    }
}

/// What goes wrong, and mostly ends after a while.
fn trouble(random: &Random, client: usize, at: u64, steps: &mut Vec<Step>) {
    let later = at + if random.permille(700) { random.between(10, 3_000) } else { random.between(3_000, 90_000) };
    let network = |fault| Action::Network(client, fault);
    let crash = |process| (Action::Crash(process), Some(Action::Restart(process)));
    let amid = |process| (Action::CrashAmid(process), Some(Action::Restart(process)));
    let (begins, ends) = match random.below(26) {
        0 | 1 => crash(Process::Replicator),
        2 => crash(Process::Server),
        3..=5 => crash(Process::Client(client)),
        6 | 7 => (network(NetworkFault::Cut), Some(network(NetworkFault::Up))),
        8 | 9 => (network(NetworkFault::Silent), Some(network(NetworkFault::Up))),
        10 => (network(NetworkFault::HalfOpen), None),
        11 => (network(NetworkFault::Slow(random.between(10, 5_000))), Some(network(NetworkFault::Up))),
        12 | 13 => {
            let damages = if random.permille(300) { random.between(10, 300) } else { 0 };
            let fault = NetworkFault::Unreliable(random.below(400), random.below(300), damages);
            (network(fault), Some(network(NetworkFault::Up)))
        }
        14 => (Action::SourceAway(true), Some(Action::SourceAway(false))),
        15 => (Action::SourceCut, None),
        16 => match random.below(8) {
            0 => (Action::DropSlot, None),
            1 | 2 => (Action::SwitchConfig, None),
            _ => (Action::ReadAnew(pick(random, &SOURCE_TABLES)), None),
        },
        17 => (Action::MarkerAnswersLost(random.below(600)), Some(Action::MarkerAnswersLost(0))),
        18 => {
            let fails = if random.permille(500) { random.below(200) } else { 0 };
            (Action::BucketDisk(random.between(1, 400), fails), Some(Action::BucketDisk(1, 0)))
        }
        19 => {
            let fails = if random.permille(500) { random.below(200) } else { 0 };
            (Action::DeviceDisk(random.between(1, 400), fails), Some(Action::DeviceDisk(1, 0)))
        }
        21 => crash(Process::Host),
        22 | 23 => amid(Process::Host),
        24 => amid(Process::Client(client)),
        20 => (Action::SignalsLost(random.between(100, 1_000)), Some(Action::SignalsLost(0))),
        _ => {
            const HOUR: i64 = 3_600_000;
            let jump = [HOUR, -HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR, 90_000][random.index(5)];
            if random.permille(500) {
                (Action::ServerClock(jump), Some(Action::ServerClock(0)))
            } else {
                (Action::ClientClock(client, jump), Some(Action::ClientClock(client, 0)))
            }
        }
    };
    if matches!(begins, Action::DropSlot | Action::SwitchConfig | Action::ReadAnew(_)) {
        // Changes while tables are read: of keys, and without the values that they leave as they are.
        for _ in 0..random.between(1, 4) {
            let renamed =
                |_| Change::Rename { table: "lists".to_owned(), from: id(random, "lists"), to: id(random, "lists") };
            let changes = (0..random.between(1, 2)).map(renamed).chain([change(random)]).collect();
            let at = at + random.below(600);
            steps.push(Step { at, nudge: nudge(random), action: Action::Commit(changes) });
        }
    }
    if ends == Some(Action::Restart(Process::Host)) && random.permille(500) {
        // The service is there again before replication can go on.
        let back = later + random.between(100, 20_000);
        steps.push(Step { at: later, nudge: 0, action: Action::SourceAway(true) });
        steps.push(Step { at: back, nudge: nudge(random), action: Action::SourceAway(false) });
    }
    steps.push(Step { at, nudge: nudge(random), action: begins });
    steps.extend(ends.map(|action| Step { at: later, nudge: nudge(random), action }));
}

pub(super) fn change(random: &Random) -> Change {
    let table = pick(random, &SOURCE_TABLES);
    match random.below(20) {
        0..=10 => put(random),
        11..=14 => {
            Change::Patch { table: table.to_owned(), id: id(random, table), columns: some_columns(random, table) }
        }
        15 => Change::Rename { table: table.to_owned(), from: id(random, table), to: id(random, table) },
        16 if random.permille(100) => Change::Truncate { table: table.to_owned() },
        _ => Change::Delete { table: table.to_owned(), id: id(random, table) },
    }
}

fn put(random: &Random) -> Change {
    let table = pick(random, &SOURCE_TABLES);
    let mut row = all_columns(random, table);
    row.insert("id".to_owned(), Json::String(id(random, table)));
    // Now and then a column that no stream reads is added.
    if random.permille(30) {
        row.insert(format!("extra{}", random.below(3)), json!(random.below(9)));
    }
    Change::Put { table: table.to_owned(), row }
}

pub(super) fn local_write(random: &Random, refused: bool) -> LocalWrite {
    let table = pick(random, &TABLES);
    let (op, mut data) = match random.below(10) {
        0..=4 => (WriteKind::Put, Some(all_columns(random, table))),
        5..=7 => (WriteKind::Patch, Some(some_columns(random, table))),
        _ => (WriteKind::Delete, None),
    };
    if let Some(data) = data.as_mut().filter(|_| refused) {
        let column = columns(table)[0];
        data.insert(column.to_owned(), Json::String(format!("{REFUSED} {}", random.below(100))));
    }
    LocalWrite {
        op_id: 0,
        op,
        table: table.into(),
        id: id(random, table),
        tx_id: None,
        data,
        old: None,
        metadata: None,
    }
}

pub(super) fn all_columns(random: &Random, table: &str) -> Row {
    columns(table).iter().map(|column| ((*column).to_owned(), value(random, column))).collect()
}

pub(super) fn some_columns(random: &Random, table: &str) -> Row {
    let mut row: Map<String, Json> = all_columns(random, table);
    let kept = columns(table)[random.index(columns(table).len())];
    row.retain(|column, _| column == kept || random.permille(300));
    row
}

fn value(random: &Random, column: &str) -> Json {
    match column {
        "owner_id" | "user_id" => json!(pick(random, &USERS)),
        "team" => json!(pick(random, &TEAMS)),
        "list_id" => json!(id(random, "lists")),
        "shared" => json!(u64::from(random.permille(300))),
        "body" => json!("b".repeat(random.index(60))),
        _ if random.permille(50) => Json::Null,
        // Numbered, so that an old version is not taken for a new one.
        _ => json!(format!("{}{}", pick(random, &TEXTS), random.below(1_000))),
    }
}

pub(super) fn id(random: &Random, table: &str) -> String {
    let count = if table == "items" { 12 } else { 5 };
    let number = random.below(count);
    let name = table.get(..1).unwrap_or("x");
    if number == 0 { format!("{name} 'ü\"0") } else { format!("{name}{number}") }
}

pub(super) fn pick<'a>(random: &Random, of: &[&'a str]) -> &'a str {
    of[random.index(of.len())]
}
