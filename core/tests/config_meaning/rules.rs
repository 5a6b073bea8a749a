//! Made-up bucket definitions: static, dynamic and table-valued parameter queries, and data queries.

use serde_json::json;

use super::dice::Dice;

const COLUMNS: [&str; 4] = ["id", "a", "b", "c"];
pub(crate) const LITERALS: [&str; 5] = ["'a'", "'b'", "1", "NULL", "0"];

pub(crate) fn column(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&COLUMNS)
}

fn request(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&[
        "request.user_id()",
        "request.parameter('p0')",
        "user_parameters.p0",
        "token_parameters.user_id",
        "token_parameters.p0",
        "request.jwt() ->> 'p1'",
        "request.parameters() ->> 'p0'",
    ])
}

fn request_list(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&["request.parameter('list')", "request.jwt() ->> 'list'", "user_parameters.list"])
}

/// A condition on rows.
pub(crate) fn plain(dice: &mut Dice<'_>, depth: usize) -> String {
    let name = column(dice);
    match dice.roll(if depth > 0 { 7 } else { 4 }) {
        0 => format!("{name} = {}", dice.one_of(&LITERALS)),
        1 => format!("{name} IS NOT NULL"),
        2 => format!("{name} != {}", dice.one_of(&LITERALS)),
        3 => format!("{name} <= {}", column(dice)),
        4 => format!("NOT ({})", plain(dice, depth - 1)),
        5 => format!("({} AND {})", plain(dice, depth - 1), plain(dice, depth - 1)),
        _ => format!("({} OR {})", plain(dice, depth - 1), plain(dice, depth - 1)),
    }
}

fn of_request(dice: &mut Dice<'_>) -> String {
    let value = request(dice);
    match dice.roll(3) {
        0 => format!("{value} = {}", dice.one_of(&LITERALS)),
        1 => format!("{value} IS NOT NULL"),
        _ => format!("NOT ({value} = {})", request(dice)),
    }
}

/// Rows against the request, in a parameter query.
fn matching(dice: &mut Dice<'_>, expands: bool, depth: usize) -> String {
    match dice.roll(if depth > 0 { 7 } else { 4 }) {
        0 | 1 => format!("{} = {}", column(dice), request(dice)),
        2 => format!("{} IN list", request(dice)),
        3 if expands => format!("{} IN {}", column(dice), request_list(dice)),
        4 => format!("({} AND {})", matching(dice, false, depth - 1), plain(dice, 1)),
        5 => format!("({} AND {})", matching(dice, false, depth - 1), of_request(dice)),
        6 => format!("({} AND {} = {})", matching(dice, false, depth - 1), column(dice), request(dice)),
        _ => format!("{} = {}", request(dice), column(dice)),
    }
}

fn parameters(dice: &mut Dice<'_>, names: &[&str]) -> String {
    let select = |dice: &mut Dice<'_>, value: &mut dyn FnMut(&mut Dice<'_>) -> String| {
        let columns: Vec<_> = names.iter().map(|name| format!("{} AS {name}", value(dice))).collect();
        columns.join(", ")
    };
    match dice.roll(5) {
        0 => format!("SELECT {} WHERE {}", select(dice, &mut |dice| request(dice).to_owned()), of_request(dice)),
        1 => format!("SELECT {}", select(dice, &mut |dice| request(dice).to_owned())),
        2 => {
            let columns = select(dice, &mut |dice| {
                if dice.rarely(3) { request(dice).to_owned() } else { "e.value".to_owned() }
            });
            let condition = dice.one_of(&["e.value IS NOT NULL", "e.value = request.user_id()", "e.key != 1"]);
            format!("SELECT {columns} FROM json_each({}) AS e WHERE {condition}", request_list(dice))
        }
        _ => {
            let columns = select(dice, &mut |dice| {
                if dice.rarely(4) { request(dice).to_owned() } else { column(dice).to_owned() }
            });
            let table = dice.one_of(&["t2", "t3", "t1"]);
            format!("SELECT {columns} FROM {table} WHERE {}", matching(dice, true, 2))
        }
    }
}

/// Rows against all parameters of the bucket.
fn covering(dice: &mut Dice<'_>, names: &[&str], depth: usize) -> String {
    if depth > 0 && dice.rarely(4) {
        return format!("({} OR {})", covering(dice, names, depth - 1), covering(dice, names, depth - 1));
    }
    // At most one of them is an element of a list.
    let list = dice.roll(4).checked_sub(2);
    let mut members: Vec<_> = (names.iter().enumerate())
        .map(|(place, name)| match list {
            Some(at) if at == place => format!("bucket.{name} IN list"),
            _ if dice.rarely(3) => format!("{} = bucket.{name}", column(dice)),
            _ => format!("bucket.{name} = {}", column(dice)),
        })
        .collect();
    if dice.rarely(3) || members.is_empty() {
        members.push(plain(dice, 2));
    }
    if !names.is_empty() && dice.rarely(6) {
        members.push(format!("{} = bucket.{}", column(dice), names[0]));
    }
    format!("({})", members.join(" AND "))
}

/// A config with bucket definitions of edition 1 or 2.
pub(crate) fn config(choices: &[u8]) -> String {
    let mut dice = Dice::new(choices);
    let dice = &mut dice;
    let mut text = format!("config: {{ edition: {} }}\nbucket_definitions:\n", 2 - dice.roll(2));
    for number in 0..=dice.roll(2) {
        let names: &[&str] = [&["p"][..], &["p", "q"], &[]][dice.roll(3)];
        text.push_str(&format!("  d{number}:\n"));
        if !names.is_empty() {
            text.push_str("    parameters:\n");
            for _ in 0..=dice.roll(2) {
                text.push_str(&format!("      - {}\n", json!(parameters(dice, names))));
            }
        }
        text.push_str("    data:\n");
        for _ in 0..=dice.roll(2) {
            let columns = dice.one_of(&["*", "id, a", "*, upper(b) AS a", "b AS id, list"]);
            let table = dice.one_of(&["t1", "t2", "t3", "t1 AS renamed", "\"t%\""]);
            let condition = covering(dice, names, 1);
            text.push_str(&format!("      - {}\n", json!(format!("SELECT {columns} FROM {table} WHERE {condition}"))));
        }
    }
    text
}
