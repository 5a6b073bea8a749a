//! Made-up streams of edition 2: one table each, with conditions that may look for a row of another.

use serde_json::json;

use super::dice::Dice;
use super::rules::{LITERALS, column, plain};

fn request(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&[
        "auth.user_id()",
        "auth.parameter('p0')",
        "connection.parameter('p0')",
        "subscription.parameter('p0')",
        "auth.parameters() ->> 'p1'",
        "connection.parameters() ->> '$.p1'",
    ])
}

fn request_list(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&["auth.parameter('list')", "connection.parameter('list')", "subscription.parameter('list')"])
}

fn of_request(dice: &mut Dice<'_>) -> String {
    let value = request(dice);
    match dice.roll(3) {
        0 => format!("{value} = {}", dice.one_of(&LITERALS)),
        1 => format!("{value} IS NOT NULL"),
        _ => format!("NOT ({value} = {})", request(dice)),
    }
}

/// Rows against the request, by equality.
fn matching(dice: &mut Dice<'_>) -> String {
    match dice.roll(4) {
        0 => format!("{} = {}", column(dice), request(dice)),
        1 => format!("{} = {}", request(dice), column(dice)),
        2 => format!("{} IN list", request(dice)),
        _ => format!("{} IN {}", column(dice), request_list(dice)),
    }
}

/// `(SELECT …)`; with `matched`, its rows depend on the request.
fn subquery(dice: &mut Dice<'_>, matched: bool) -> String {
    let (table, selected) = (dice.one_of(&["t2", "t3", "t1"]), column(dice));
    let mut members = Vec::new();
    if matched {
        members.push(matching(dice));
    }
    if dice.rarely(3) {
        members.push(matching(dice));
    }
    if dice.rarely(3) {
        members.push(plain(dice, 0));
    }
    if dice.rarely(6) {
        members.push(of_request(dice));
    }
    if members.is_empty() {
        return format!("(SELECT {selected} FROM {table})");
    }
    format!("(SELECT {selected} FROM {table} WHERE {})", members.join(" AND "))
}

fn condition(dice: &mut Dice<'_>, depth: usize) -> String {
    match dice.roll(if depth > 0 { 10 } else { 6 }) {
        0 => matching(dice),
        1 => format!("{} IN {}", column(dice), subquery(dice, true)),
        2 => format!("{} IN {}", request(dice), subquery(dice, false)),
        3 => format!("list && {}", subquery(dice, true)),
        4 => plain(dice, 1),
        5 => of_request(dice),
        6 | 7 => format!("({} AND {})", condition(dice, depth - 1), condition(dice, depth - 1)),
        8 => format!("({} OR {})", condition(dice, depth - 1), condition(dice, depth - 1)),
        _ => format!("({} AND {})", matching(dice), condition(dice, depth - 1)),
    }
}

/// A config with streams of edition 2.
pub(crate) fn config(choices: &[u8]) -> String {
    let mut dice = Dice::new(choices);
    let dice = &mut dice;
    let mut text = "config: { edition: 2 }\nstreams:\n".to_owned();
    for number in 0..=dice.roll(2) {
        let columns = dice.one_of(&["*", "id, a", "*, upper(b) AS a", "b AS id, list"]);
        let table = dice.one_of(&["t1", "t2", "t3", "t1 AS renamed"]);
        let automatic = !dice.rarely(3);
        let condition = condition(dice, 2);
        let query = json!(format!("SELECT {columns} FROM {table} WHERE {condition}"));
        text.push_str(&format!("  s{number}:\n    auto_subscribe: {automatic}\n    query: {query}\n"));
    }
    text
}
