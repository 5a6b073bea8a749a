//! Made-up configs: streams with queries whose conditions the engine accepts, and that make use of all of the language
//! that is known to the naive evaluator.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::values;

/// The columns of every table; the second lacks the last.
pub(crate) const COLUMNS: [&str; 5] = ["id", "a", "b", "list", "c"];

type Sql = BoxedStrategy<String>;

/// What stands for a list of the row, and of the request.
const ROW_LIST: &str = "list";
const REQUEST_LIST: &str = "auth.parameter('list')";

/// A condition over rows and the request together, which must keep matches from being negated.
#[derive(Debug, Clone)]
enum Condition {
    /// Of one side only.
    Plain(String),
    /// A row against the request, or the other way round.
    Match(String),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Condition {
    fn sql(&self, negated: bool) -> String {
        let joined = |members: &[Self], with: &str| {
            format!("({})", members.iter().map(|member| member.sql(negated)).collect::<Vec<_>>().join(with))
        };
        match self {
            Self::Plain(sql) => sql.clone(),
            // `NOT (… NOT (x = y))` is a match.
            Self::Match(sql) if negated => format!("(NOT {sql})"),
            Self::Match(sql) => sql.clone(),
            Self::All(members) => joined(members, " AND "),
            Self::Any(members) => joined(members, " OR "),
            Self::Not(inner) => format!("(NOT {})", inner.sql(!negated)),
        }
    }
}

fn column() -> Sql {
    prop_oneof![
        8 => select(&COLUMNS[..]).prop_map(str::to_owned),
        1 => Just("missing".to_owned()),
    ]
    .boxed()
}

fn of_request() -> Sql {
    let function = prop_oneof![
        Just("auth.user_id()".to_owned()),
        Just("auth.parameter('$.p0.0')".to_owned()),
        select(&["p0", "p1", "list", "missing", "$.list.0", "$.p0.k", "$.p0.0", "$.list.00", "$"][..])
            .prop_map(|name| format!("auth.parameter('{name}')")),
        select(&["p0", "list"][..]).prop_map(|name| format!("connection.parameter('{name}')")),
        select(&["p0", "list"][..]).prop_map(|name| format!("subscription.parameter('{name}')")),
        select(&["auth.parameters()", "connection.parameters()", "subscription.parameters()"][..])
            .prop_map(str::to_owned),
    ];
    function.boxed()
}

/// A value over these leaves.
fn value(leaf: Sql, usual: &'static str) -> Sql {
    let leaf = prop_oneof![4 => leaf, 1 => values::literal()];
    leaf.prop_recursive(2, 6, 3, move |inner| {
        let json = || list(usual, inner.clone());
        let one = || inner.clone();
        let two = || (inner.clone(), inner.clone());
        let key = select(&["'k'", "'a'", "'$.l.0'", "'$'", "'0'", "0", "1"][..]);
        let calls = select(&["upper", "lower", "length", "typeof", "hex"][..]);
        let types = select(&["text", "integer", "real", "numeric", "blob"][..]);
        prop_oneof![
            3 => (calls, one()).prop_map(|(name, x)| format!("{name}({x})")),
            1 => (select(&["json_array_length", "json_keys"][..]), json()).prop_map(|(name, x)| format!("{name}({x})")),
            1 => (json(), key.clone()).prop_map(|(x, key)| format!("json_array_length({x}, {key})")),
            1 => (select(&["instr", "ifnull"][..]), two())
                .prop_map(|(name, (x, y))| format!("{name}({x}, {y})")),
            1 => (one(), -4i64..5, proptest::option::of(-3i64..4)).prop_map(|(x, start, length)| match length {
                Some(length) => format!("substring({x}, {start}, {length})"),
                None => format!("substring({x}, {start})"),
            }),
            2 => (select(&["+", "-", "*", "/", "||"][..]), two()).prop_map(|(o, (x, y))| format!("({x} {o} {y})")),
            2 => (one(), types).prop_map(|(x, to)| format!("CAST({x} AS {to})")),
            2 => (json(), select(&["->", "->>"][..]), key).prop_map(|(x, arrow, key)| format!("({x} {arrow} {key})")),
            1 => (json(), select(&["$.k", "$.l.1", "$", "$.a", "k"][..])).prop_map(|(x, path)| format!("json_extract({x}, '{path}')")),
            1 => (one(), two()).prop_map(|(c, (x, y))| format!("iif({c}, {x}, {y})")),
            1 => (one(), two(), proptest::option::of(one())).prop_map(|(v, (w, x), y)| match y {
                Some(y) => format!("CASE {v} WHEN {w} THEN {x} ELSE {y} END"),
                None => format!("CASE {v} WHEN {w} THEN {x} END"),
            }),
            1 => (two(), two()).prop_map(|((c, x), (d, y))| format!("CASE WHEN {c} THEN {x} WHEN {d} THEN {y} END")),
            1 => test(inner.clone(), usual),
        ]
    })
    .boxed()
}

/// A comparison over these values.
fn test(value: Sql, usual: &'static str) -> Sql {
    let one = || value.clone();
    let two = || (value.clone(), value.clone());
    let not = || select(&["", "NOT "][..]);
    prop_oneof![
        5 => (select(&["=", "!=", "<", ">", "<=", ">="][..]), two()).prop_map(|(o, (x, y))| format!("({x} {o} {y})")),
        2 => (one(), not(), select(&["NULL", "TRUE", "FALSE"][..])).prop_map(|(x, not, what)| format!("({x} IS {not}{what})")),
        1 => (one(), not(), two()).prop_map(|(x, not, (y, z))| format!("({x} {not}BETWEEN {y} AND {z})")),
        2 => (one(), not(), list(usual, one())).prop_map(|(x, not, y)| format!("({x} {not}IN {y})")),
        2 => (one(), not(), proptest::collection::vec(one(), 0..4))
            .prop_map(|(x, not, members)| format!("({x} {not}IN ARRAY[{}])", members.join(", "))),
        1 => (list(usual, one()), list("'[\"a\",1]'", one())).prop_map(|(x, y)| format!("({x} && {y})")),
        2 => one().prop_map(|x| format!("({x})")),
    ]
    .boxed()
}

/// A condition of one side.
fn plain(leaf: Sql, usual: &'static str) -> Sql {
    let small = (leaf.clone(), values::literal(), select(&["=", "!=", "<="][..]))
        .prop_map(|(x, y, operator)| format!("({x} {operator} {y})"));
    let tests = prop_oneof![3 => small, 3 => test(value(leaf, usual), usual)];
    tests
        .prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 2..4)
                    .prop_map(|members| format!("({})", members.join(" AND "))),
                proptest::collection::vec(inner.clone(), 2..4)
                    .prop_map(|members| format!("({})", members.join(" OR "))),
                inner.prop_map(|inner| format!("(NOT {inner})")),
            ]
        })
        .boxed()
}

/// Mostly what is a list.
fn list(usual: &'static str, value: Sql) -> Sql {
    prop_oneof![6 => Just(usual.to_owned()), 1 => value].boxed()
}

/// Mostly the bare leaf, so that values meet.
fn side(leaf: Sql, usual: &'static str) -> Sql {
    prop_oneof![4 => leaf.clone(), 1 => value(leaf, usual)].boxed()
}

fn condition() -> impl Strategy<Value = Condition> {
    let (row, request) = (|| side(column(), ROW_LIST), || side(of_request(), REQUEST_LIST));
    let sides = || (row(), request(), any::<bool>());
    let found = prop_oneof![
        4 => sides().prop_map(|(x, y, turned)| if turned { format!("({y} = {x})") } else { format!("({x} = {y})") }),
        1 => (row(), list(REQUEST_LIST, request())).prop_map(|(x, y)| format!("({x} IN {y})")),
        1 => (request(), list(ROW_LIST, row())).prop_map(|(y, x)| format!("({y} IN {x})")),
        1 => (list(ROW_LIST, row()), list(REQUEST_LIST, request()), any::<bool>())
            .prop_map(|(x, y, turned)| if turned { format!("({y} && {x})") } else { format!("({x} && {y})") }),
    ];
    // Two of its elements, or one, may be what two conditions ask for.
    let of_one_list =
        (select(&["auth.user_id()", "'a'"][..]), select(&["auth.parameter('p0')", "connection.parameter('p0')"][..]))
            .prop_map(|(one, other)| {
                let found = [one, other].map(|needle| format!("({needle} IN {ROW_LIST})"));
                Condition::All(found.map(Condition::Match).to_vec())
            });
    let leaf = prop_oneof![
        1 => of_one_list,
        2 => plain(column(), ROW_LIST).prop_map(Condition::Plain),
        1 => plain(of_request(), REQUEST_LIST).prop_map(Condition::Plain),
        5 => found.prop_map(Condition::Match),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            2 => proptest::collection::vec(inner.clone(), 2..4).prop_map(Condition::All),
            2 => proptest::collection::vec(inner.clone(), 2..4).prop_map(Condition::Any),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn columns() -> Sql {
    let output = || value(column(), ROW_LIST);
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => Just("id, a".to_owned()),
        1 => Just("b AS id, missing, list".to_owned()),
        1 => output().prop_map(|x| format!("*, {x} AS x")),
        1 => output().prop_map(|x| format!("*, {x} AS a")),
        1 => output().prop_map(|x| format!("{x} AS a, *")),
        1 => output().prop_map(|x| format!("id, {x} AS x, a AS x")),
        1 => output().prop_map(|x| format!("{x} AS id, a")),
    ]
    .boxed()
}

fn query() -> Sql {
    let table = select(&["t1", "t1", "t2", "\"t%\"", "t1 AS x", "public.t1", "other.t1"][..]);
    (columns(), table, proptest::option::weighted(0.95, condition()))
        .prop_map(|(columns, table, condition)| match condition {
            Some(condition) => format!("SELECT {columns} FROM {table} WHERE {}", condition.sql(false)),
            None => format!("SELECT {columns} FROM {table}"),
        })
        .boxed()
}

/// Queries that compare different columns with the same values of the request, and so share their buckets.
fn siblings() -> impl Strategy<Value = Vec<String>> {
    let sides = (select(&COLUMNS[..]), select(&COLUMNS[..]), columns(), any::<bool>());
    let query = sides.prop_map(|(one, other, columns, turned)| {
        let [one, other] = [format!("{one} = auth.parameter('p0')"), format!("{other} = auth.user_id()")];
        let [first, second] = if turned { [&other, &one] } else { [&one, &other] };
        format!("SELECT {columns} FROM t1 WHERE {first} AND {second}")
    });
    proptest::collection::vec(query, 2..4)
}

/// The text of a config with the streams `s0`, `s1`, ….
pub(crate) fn config() -> impl Strategy<Value = String> {
    let queries = prop_oneof![7 => proptest::collection::vec(query(), 1..3), 1 => siblings()];
    let stream = (proptest::bool::weighted(0.7), queries);
    proptest::collection::vec(stream, 1..3).prop_map(|streams| {
        let mut text = String::from("config: { edition: 3 }\nstreams:\n");
        for (number, (auto_subscribe, queries)) in streams.iter().enumerate() {
            text.push_str(&format!("  s{number}:\n    auto_subscribe: {auto_subscribe}\n    queries:\n"));
            for query in queries {
                text.push_str(&format!("      - {}\n", json!(query)));
            }
        }
        text
    })
}
