//! Awkward values of rows, requests and SQL texts, from so few that they meet.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use syncline_core::Value;

/// Texts that look like something else, and lists.
const TEXTS: [&str; 20] = [
    "",
    "a",
    "A",
    "b",
    "1",
    "1abc",
    " 1",
    "1.0",
    "0",
    "null",
    "é",
    "\u{1F680}",
    "[\"a\",1,null]",
    "[1.0,\"1\",true]",
    "[\"b\",[1],9007199254740993]",
    "[]",
    "{\"k\":1,\"l\":[\"a\",2.50],\"a\":\"b\"}",
    "{\"k\":null,\"k2\":{\"k\":\"1\"}}",
    "[",
    "\"a\"",
];

const INTEGERS: [i64; 9] = [0, 1, 2, -1, 9_007_199_254_740_992, 9_007_199_254_740_993, i64::MAX, i64::MIN, 1 << 60];

const REALS: [f64; 10] =
    [0.0, -0.0, 1.0, 0.5, -2.5, 9_007_199_254_740_992.0, 1_152_921_504_606_846_976.0, 1e21, 1e-7, 9.3e18];

pub(crate) fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => proptest::sample::select(&["a", "b", "1"][..]),
        2 => proptest::sample::select(&TEXTS[..]),
    ]
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 0i64..3, 1 => proptest::sample::select(&INTEGERS[..])]
}

fn real() -> impl Strategy<Value = f64> {
    prop_oneof![2 => Just(1.0), 2 => proptest::sample::select(&REALS[..])]
}

/// Texts that are lists, mostly.
pub(crate) fn list() -> impl Strategy<Value = Value> {
    let found = TEXTS.into_iter().filter(|text| text.len() > 1 && text.starts_with(['[', '{'])).collect::<Vec<_>>();
    prop_oneof![
        1 => Just(Value::Null),
        12 => proptest::sample::select(found).prop_map(Value::from),
        1 => column(),
    ]
}

/// A value of a row.
pub(crate) fn column() -> impl Strategy<Value = Value> {
    prop_oneof![
        12 => proptest::sample::select(&["a", "b", "1"][..]).prop_map(Value::from),
        8 => (0i64..2).prop_map(Value::from),
        2 => Just(Value::Real(1.0)),
        2 => Just(Value::Null),
        6 => text().prop_map(Value::from),
        4 => integer().prop_map(Value::from),
        2 => real().prop_map(Value::from),
        1 => proptest::sample::select(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY][..]).prop_map(Value::from),
        1 => proptest::sample::select(&["", "a", "1", "[\"a\"]"][..]).prop_map(|text| Value::Blob(text.into())),
    ]
}

/// A value of a token or of parameters.
pub(crate) fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        12 => proptest::sample::select(&["a", "b", "1"][..]).prop_map(Json::from),
        8 => (0i64..2).prop_map(Json::from),
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        6 => text().prop_map(Json::from),
        4 => integer().prop_map(Json::from),
        2 => real().prop_map(Json::from),
        1 => Just(json!(u64::MAX)),
        1 => Just(json!("1e999")),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            2 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            1 => proptest::collection::vec((proptest::sample::select(&["k", "l", "0"][..]), inner), 0..3)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// A literal.
pub(crate) fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("'[\"a\",1]'".to_owned()),
        1 => Just("NULL".to_owned()),
        1 => any::<bool>().prop_map(|truth| truth.to_string()),
        5 => text().prop_map(|text| format!("'{text}'")),
        4 => integer().prop_map(|integer| integer.to_string()),
        2 => proptest::sample::select(&["0.0", "1.0", "0.5", "-2.5", "9007199254740992.0", "1152921504606846976."][..])
            .prop_map(str::to_owned),
    ]
}
