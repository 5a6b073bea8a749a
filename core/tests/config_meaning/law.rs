//! The law: after every change of a row, each user has what the naive evaluator says, and nothing else.
#![allow(clippy::disallowed_methods, reason = "how many cases are run is said from outside")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use syncline_core::testing::{NaiveConfig, NaiveTable};
use syncline_core::{SourceColumn, SourceTable, SyncConfig, TableId, Value};

use super::configs::{self, COLUMNS};
use super::engine::{Engine, Key};
use super::users::{self, User};
use super::values;

/// Why the engine may refuse a made-up config.
const FAIR_REFUSALS: [&str; 3] = ["dnf-too-large", "request-function-partitioned", "no-result-table"];
/// Rows that exist at the same time, at most; their numbers tell which table they are in.
const ROWS: usize = 5;

type Row = Option<Vec<Value>>;

#[derive(Clone)]
struct Case {
    text: String,
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

fn case() -> impl Strategy<Value = Case> {
    let rows = proptest::collection::vec(proptest::option::weighted(0.9, row()), ROWS);
    let change = (0..ROWS, proptest::option::weighted(0.8, row()));
    let parts = (configs::config(), rows, proptest::collection::vec(change, 0..4));
    (parts, proptest::collection::vec(users::user(), 1..4)).prop_map(|((text, rows, changes), users)| Case {
        text,
        rows,
        changes,
        users,
    })
}

fn tables() -> [SourceTable; 2] {
    let table = |number: u64, columns: &[&str]| SourceTable {
        id: TableId(number),
        schema: "public".into(),
        name: format!("t{number}").into(),
        columns: columns
            .iter()
            .map(|name| SourceColumn { name: (*name).into(), key: *name == "id", type_name: "any".into() })
            .collect(),
    };
    [table(1, &COLUMNS), table(2, &COLUMNS[..COLUMNS.len() - 1])]
}

/// The table of a row, by its number.
fn table_of(row: usize) -> usize {
    usize::from(row + 1 == ROWS)
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
    let mut rows: Vec<Row> = vec![None; ROWS];
    let initial = case.rows.iter().cloned().enumerate();
    let mut changes = initial.chain(case.changes.iter().cloned()).enumerate().peekable();
    while let Some((step, (row, after))) = changes.next() {
        let width = tables[table_of(row)].columns.len();
        let after = after.map(|values| values[..width].to_vec());
        engine.change(table_of(row), row, rows[row].as_deref(), after.as_deref());
        rows[row] = after;
        if step + 1 >= ROWS || changes.peek().is_none() {
            for user in &case.users {
                agree(&engine, &naive, &tables, &rows, user, seen)?;
            }
        }
    }
    Ok(())
}

/// Both see the same rows.
fn agree(
    engine: &Engine<'_>,
    naive: &NaiveConfig,
    tables: &[SourceTable],
    rows: &[Row],
    user: &User,
    seen: &mut Seen,
) -> TestCaseResult {
    let identity = user.identity();
    let request = user.request(&identity);
    // The rows of each table, with their numbers.
    let numbered = |table: usize| {
        let rows = rows.iter().enumerate().filter(move |(row, _)| table_of(*row) == table);
        rows.filter_map(|(number, row)| Some((number, row.clone()?))).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (numbers, contents): (Vec<_>, Vec<_>) = (0..tables.len()).map(numbered).unzip();
    let given: Vec<_> = tables.iter().zip(&contents).map(|(table, rows)| NaiveTable { table, rows }).collect();
    let expected = naive.rows(&given, &request).unwrap();
    let place = |row: &syncline_core::testing::NaiveRow| -> Key {
        (numbers[row.source.0][row.source.1], row.object_type.clone(), row.object_id.clone())
    };
    let allowed: BTreeSet<_> = expected.iter().map(|row| (place(row), row.data.clone())).collect();
    let wanted: BTreeSet<_> = expected.iter().filter(|row| row.certain).map(place).collect();
    let found = engine.rows(&request);
    for (key, data) in &found {
        prop_assert!(allowed.contains(&(key.clone(), data.clone())), "shown: {key:?} {data}; right: {allowed:?}");
    }
    let found: BTreeSet<_> = found.into_iter().map(|(key, _)| key).collect();
    for key in &wanted {
        prop_assert!(found.contains(key), "hidden: {key:?}; shown: {found:?}");
    }
    seen.answers += 1;
    seen.rows += wanted.len() as u64;
    seen.uncertain += expected.iter().filter(|row| !row.certain).count() as u64;
    let visible: BTreeSet<_> = wanted.iter().map(|(row, ..)| row).collect();
    seen.hidden += (contents.iter().map(Vec::len).sum::<usize>() - visible.len()) as u64;
    Ok(())
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_user_sees_what_the_text_of_the_config_says() {
    let config = Config {
        cases: u32::try_from(number("CONFIG_CASES", 2_000)).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number("CONFIG_SEED", 0).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let seen = RefCell::new(Seen::default());
    let outcome = runner.run(&case(), |case| check(&case, &mut seen.borrow_mut()));
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert!(seen.refused * 4 < seen.cases, "most made-up configs are accepted: {seen:?}");
    assert!(seen.rows > seen.cases && seen.hidden > seen.cases, "rows are seen, and others are not: {seen:?}");
    assert!(seen.uncertain * 5 < seen.rows, "the answer is mostly certain: {seen:?}");
}
