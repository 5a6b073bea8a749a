//! The law: after every change of a row, each user has what the naive evaluator says, and nothing else.
#![allow(clippy::disallowed_methods, reason = "how many cases are run is said from outside")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use syncline_core::testing::{NaiveConfig, NaiveRow, NaiveTable};
use syncline_core::{ConfigRequest, SourceColumn, SourceTable, SyncConfig, TableId, Value};

use super::configs::{self, COLUMNS};
use super::engine::{Connection, Engine, Key};
use super::users::{self, User};
use super::{joins, old_streams, rules, values};

/// Why the engine may refuse a made-up config.
const FAIR_REFUSALS: [&str; 3] = ["dnf-too-large", "request-function-partitioned", "no-result-table"];
/// The tables of the rows that may exist, where one table is asked at a time, and where several are joined.
const FEW: [usize; 5] = [0, 0, 0, 0, 1];
const MANY: [usize; 9] = [0, 0, 0, 1, 1, 1, 2, 2, 2];

type Row = Option<Vec<Value>>;

#[derive(Clone)]
struct Case {
    text: String,
    /// The table of each row.
    places: &'static [usize],
    rows: Vec<Row>,
    changes: Vec<(usize, Row)>,
    users: Vec<User>,
}

/// One line each, however proptest asks for it.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.text)?;
        self.rows.iter().enumerate().try_for_each(|(number, row)| writeln!(f, "row {number}: {row:?}"))?;
        self.changes.iter().try_for_each(|(number, row)| writeln!(f, "row {number} becomes {row:?}"))?;
        self.users.iter().try_for_each(|user| writeln!(f, "{user:?}"))
    }
}

/// What was looked at, so that a law about nothing does not pass for one.
#[derive(Debug, Default)]
struct Seen {
    cases: u64,
    refused: u64,
    /// Requests that fail as a whole.
    failed: u64,
    /// Answers that were kept over a change, and that were found anew.
    kept: u64,
    anew: u64,
    answers: u64,
    rows: u64,
    /// Rows of the tables that a user did not see.
    hidden: u64,
    uncertain: u64,
}

fn row() -> impl Strategy<Value = Vec<Value>> {
    let column = |name: &&str| if *name == "list" { values::list().boxed() } else { values::column().boxed() };
    COLUMNS.iter().map(column).collect::<Vec<_>>()
}

/// A row that is often joined with another.
fn joined_row() -> impl Strategy<Value = Vec<Value>> {
    let small = proptest::sample::select(&["a", "a", "b", "1"][..]).prop_map(Value::from);
    let value = || prop_oneof![7 => small.clone(), 1 => (0i64..2).prop_map(Value::from), 2 => values::column()];
    let column = |name: &&str| if *name == "list" { values::list().boxed() } else { value().boxed() };
    COLUMNS.iter().map(column).collect::<Vec<_>>()
}

fn case(
    text: impl Strategy<Value = String>,
    places: &'static [usize],
    row: BoxedStrategy<Vec<Value>>,
    changes: usize,
) -> impl Strategy<Value = Case> {
    let rows = proptest::collection::vec(proptest::option::weighted(0.9, row.clone()), places.len());
    let change = (0..places.len(), proptest::option::weighted(0.8, row));
    let parts = (text, rows, proptest::collection::vec(change, 0..changes));
    (parts, proptest::collection::vec(users::user(), 1..4)).prop_map(move |((text, rows, changes), users)| Case {
        text,
        places,
        rows,
        changes,
        users,
    })
}

fn tables() -> [SourceTable; 3] {
    let table = |number: u64, columns: &[&str]| SourceTable {
        id: TableId(number),
        schema: "public".into(),
        name: format!("t{number}").into(),
        columns: columns
            .iter()
            .map(|name| SourceColumn { name: (*name).into(), key: *name == "id", type_name: "any".into() })
            .collect(),
    };
    [table(1, &COLUMNS), table(2, &COLUMNS[..COLUMNS.len() - 1]), table(3, &COLUMNS)]
}

fn check(case: &Case, seen: &mut Seen) -> TestCaseResult {
    seen.cases += 1;
    let config = match SyncConfig::parse(&case.text) {
        Ok(config) => config,
        Err(diagnostics) => {
            let fatal = diagnostics.iter().filter(|found| found.level == syncline_core::DiagnosticLevel::Fatal);
            let unfair: Vec<_> = fatal.filter(|found| !FAIR_REFUSALS.contains(&found.kind)).collect();
            prop_assert!(unfair.is_empty(), "{}", diagnostics);
            seen.refused += 1;
            return Ok(());
        }
    };
    let naive = NaiveConfig::parse(&case.text).unwrap();
    let tables = tables();
    let mut engine = Engine::new(&config, &tables);
    let mut rows: Vec<Row> = vec![None; case.places.len()];
    let initial = case.rows.iter().cloned().enumerate();
    let identities: Vec<_> = case.users.iter().map(User::identity).collect();
    let requests: Vec<_> = case.users.iter().zip(&identities).map(|(user, identity)| user.request(identity)).collect();
    let mut connections: Vec<_> = requests.iter().map(|request| Connection::new(&engine, request)).collect();
    let mut changes = initial.chain(case.changes.iter().cloned()).enumerate().peekable();
    while let Some((step, (row, after))) = changes.next() {
        let table = case.places[row];
        let width = tables[table].columns.len();
        let after = after.map(|values| values[..width].to_vec());
        let changed = engine.change(table, row, rows[row].as_deref(), after.as_deref());
        connections.iter_mut().for_each(|connection| connection.note(&changed));
        rows[row] = after;
        // The last of the rows that are there from the start, and every change.
        if step + 1 >= rows.len() || changes.peek().is_none() {
            let scene = Scene { engine: &engine, naive: &naive, tables: &tables, rows: &rows, places: case.places };
            for (number, request) in requests.iter().enumerate() {
                scene
                    .agree(request, &mut connections[number], seen)
                    .map_err(|error| TestCaseError::fail(format!("user {number} after step {step}: {error}")))?;
            }
        }
    }
    Ok(())
}

/// All rows at one time.
struct Scene<'s, 'e> {
    engine: &'s Engine<'e>,
    naive: &'s NaiveConfig,
    tables: &'s [SourceTable],
    rows: &'s [Row],
    places: &'static [usize],
}

impl Scene<'_, '_> {
    /// Both see the same rows.
    fn agree(&self, request: &ConfigRequest<'_>, connection: &mut Connection, seen: &mut Seen) -> TestCaseResult {
        // The rows of each table, with their numbers.
        let numbered = |table: usize| {
            let rows = self.rows.iter().enumerate().filter(move |(row, _)| self.places[*row] == table);
            rows.filter_map(|(number, row)| Some((number, row.clone()?))).unzip::<_, _, Vec<_>, Vec<_>>()
        };
        let (numbers, contents): (Vec<_>, Vec<_>) = (0..self.tables.len()).map(numbered).unzip();
        let given: Vec<_> = self.tables.iter().zip(&contents).map(|(table, rows)| NaiveTable { table, rows }).collect();
        let expected = self.naive.rows_in("public", &given, request).unwrap();
        let resolved = self.engine.resolve(request);
        let (held, anew) = connection.resolve(self.engine);
        prop_assert_eq!(&held, &resolved, "what a connection holds is what is found without a memory; anew: {}", anew);
        if anew {
            seen.anew += 1;
        } else {
            seen.kept += 1;
        }
        let (Some(expected), Some(resolved)) = (&expected, &resolved) else {
            prop_assert!(expected.is_none() && resolved.is_none(), "fails: {resolved:?}; right: {expected:?}");
            seen.failed += 1;
            return Ok(());
        };
        let place = |row: &NaiveRow| -> Key {
            (numbers[row.source.0][row.source.1], row.object_type.clone(), row.object_id.clone())
        };
        let allowed: BTreeSet<_> = expected.iter().map(|row| (place(row), row.data.clone())).collect();
        let wanted: BTreeSet<_> = expected.iter().filter(|row| row.certain).map(place).collect();
        let found = self.engine.rows(resolved);
        for (key, data) in &found {
            prop_assert!(allowed.contains(&(key.clone(), data.clone())), "shown: {key:?} {data}; right: {allowed:?}");
        }
        let found: BTreeSet<_> = found.into_iter().map(|(key, _)| key).collect();
        for key in &wanted {
            prop_assert!(found.contains(key), "hidden: {key:?}; shown: {found:?}; right: {allowed:?}");
        }
        seen.answers += 1;
        seen.rows += wanted.len() as u64;
        seen.uncertain += expected.iter().filter(|row| !row.certain).count() as u64;
        let visible: BTreeSet<_> = wanted.iter().map(|(row, ..)| row).collect();
        seen.hidden += (contents.iter().map(Vec::len).sum::<usize>() - visible.len()) as u64;
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs the law over many cases; `default` of them unless `CONFIG_CASES` says otherwise.
fn hold(test: &str, default: u64, case: impl Strategy<Value = Case>) -> Seen {
    let (cases, seed_number) = (number("CONFIG_CASES", default), number("CONFIG_SEED", 0));
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&seed_number.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let seen = RefCell::new(Seen::default());
    let outcome = runner.run(&case, |case| check(&case, &mut seen.borrow_mut()));
    if let Err(error) = outcome {
        panic!(
            "{error}\nagain: CONFIG_CASES={cases} CONFIG_SEED={seed_number} cargo test -p syncline-core --all-features \
             --test config_meaning {test}"
        );
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(seen.refused * 4 < seen.cases, "most made-up configs are accepted: {seen:?}");
    assert!(seen.rows > seen.cases && seen.hidden > seen.cases, "rows are seen, and others are not: {seen:?}");
    assert!(seen.uncertain * 5 < seen.rows, "the answer is mostly certain: {seen:?}");
    seen
}

fn choices(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

#[test]
fn every_user_sees_what_the_text_of_the_config_says() {
    hold("every_user", 2_000, case(configs::config(), &FEW, row().boxed(), 4));
}

#[test]
fn tables_are_joined_as_the_text_of_the_config_says() {
    let text = choices(160).prop_map(|choices| joins::config(&choices));
    let seen = hold("tables_are_joined", 700, case(text, &MANY, joined_row().boxed(), 6));
    assert!(seen.kept > seen.cases / 4 && seen.anew > seen.cases, "some changes concern a user: {seen:?}");
}

#[test]
fn bucket_definitions_mean_what_their_text_says() {
    let text = choices(100).prop_map(|choices| rules::config(&choices));
    let seen = hold("bucket_definitions", 700, case(text, &MANY, joined_row().boxed(), 6));
    assert!(seen.failed * 4 < seen.answers, "most requests have an answer: {seen:?}");
}

#[test]
fn streams_of_edition_2_mean_what_their_text_says() {
    let text = choices(100).prop_map(|choices| old_streams::config(&choices));
    let seen = hold("streams_of_edition_2", 700, case(text, &MANY, joined_row().boxed(), 6));
    assert!(seen.kept > seen.cases / 4 && seen.anew > seen.cases, "some changes concern a user: {seen:?}");
}
