//! Made-up streams of several tables: joins, subqueries and chains of them, named queries, `json_each`.

use serde_json::json;

use super::dice::Dice;

const TABLES: [&str; 3] = ["t1", "t2", "t3"];
const COLUMNS: [&str; 4] = ["id", "a", "b", "c"];
const LITERALS: [&str; 5] = ["'a'", "'b'", "1", "NULL", "0"];

/// What a condition may name.
#[derive(Debug, Clone)]
struct Set {
    name: String,
    columns: Vec<String>,
    /// The column with a list.
    list: Option<String>,
}

impl Set {
    fn table(name: &str) -> Self {
        Self { name: name.into(), columns: COLUMNS.map(str::to_owned).to_vec(), list: Some("list".into()) }
    }

    fn column(&self, dice: &mut Dice<'_>) -> String {
        let column = &self.columns[dice.roll(self.columns.len())];
        format!("{}.{column}", self.name)
    }
}

/// A named query: its name and its columns.
type Named = (String, Vec<String>);

struct Maker<'d, 'c> {
    dice: &'d mut Dice<'c>,
    named: Vec<Named>,
}

fn request(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&[
        "auth.user_id()",
        "auth.parameter('p0')",
        "connection.parameter('p0')",
        "subscription.parameter('p0')",
        "auth.parameter('p1')",
        "auth.parameter('missing')",
    ])
}

fn request_list(dice: &mut Dice<'_>) -> &'static str {
    dice.one_of(&["auth.parameter('list')", "connection.parameter('list')", "subscription.parameter('list')"])
}

impl Maker<'_, '_> {
    fn set<'s>(&mut self, sets: &'s [Set]) -> &'s Set {
        &sets[self.dice.roll(sets.len())]
    }

    /// A condition on one set alone, which may be negated.
    fn plain(&mut self, set: &Set, depth: usize) -> String {
        let column = set.column(self.dice);
        match self.dice.roll(if depth > 0 { 8 } else { 5 }) {
            0 => format!("{column} = {}", self.dice.one_of(&LITERALS)),
            1 => format!("{column} IS NOT NULL"),
            2 => format!("{column} != {}", self.dice.one_of(&LITERALS)),
            3 => format!("{column} IN ARRAY['a', 1, NULL]"),
            // Columns of a subquery may be of two tables.
            4 if set.list.is_some() => format!("{column} < {}", set.column(self.dice)),
            4 => format!("{column} IS NULL"),
            5 => format!("NOT ({})", self.plain(set, depth - 1)),
            6 => format!("({} AND {})", self.plain(set, depth - 1), self.plain(set, depth - 1)),
            _ => format!("({} OR {})", self.plain(set, depth - 1), self.plain(set, depth - 1)),
        }
    }

    /// A condition on the request alone.
    fn of_request(&mut self) -> String {
        let value = request(self.dice);
        match self.dice.roll(4) {
            0 => format!("{value} = {}", self.dice.one_of(&LITERALS)),
            1 => format!("{} IN {}", self.dice.one_of(&LITERALS), request_list(self.dice)),
            2 => format!("NOT ({value} = {})", self.dice.one_of(&LITERALS)),
            _ => format!("{value} IS NOT NULL"),
        }
    }

    /// A value of a row, sometimes computed.
    fn value(&mut self, set: &Set) -> String {
        let column = set.column(self.dice);
        match self.dice.roll(6) {
            4 => format!("lower({column})"),
            5 => format!("({column} || '')"),
            _ => column,
        }
    }

    /// `(SELECT …)` with one column, or a named query.
    fn query(&mut self, around: &[Set], depth: usize) -> String {
        let single: Vec<_> = self.named.iter().filter(|(_, columns)| columns.len() == 1).cloned().collect();
        match self.dice.roll(5) {
            3 if !single.is_empty() => single[self.dice.roll(single.len())].0.clone(),
            4 if !self.named.is_empty() => {
                let (name, columns) = self.named[self.dice.roll(self.named.len())].clone();
                let (alias, columns) = (self.dice.name("s"), columns);
                let set = Set { name: alias.clone(), columns, list: None };
                let column = set.column(self.dice);
                let condition = self.condition(&[set], depth.saturating_sub(1));
                format!("(SELECT {column} FROM {name} AS {alias} WHERE {condition})")
            }
            kind => {
                let (from, mut sets, joined) = self.from(depth.saturating_sub(1));
                let set = sets[self.dice.roll(sets.len())].clone();
                let column = self.value(&set);
                // A query inside may look at what is around it.
                if kind == 2 {
                    sets.extend(around.iter().cloned());
                }
                let condition = self.condition(&sets, depth.saturating_sub(1));
                let joined = joined.map(|joined| format!("{joined} AND ")).unwrap_or_default();
                format!("(SELECT {column} FROM {from} WHERE {joined}{condition})")
            }
        }
    }

    /// A condition that holds of some rows and some requests.
    fn condition(&mut self, sets: &[Set], depth: usize) -> String {
        let set = self.set(sets).clone();
        match self.dice.roll(if depth > 0 { 16 } else { 8 }) {
            0 | 1 => format!("{} = {}", self.value(&set), request(self.dice)),
            2 => self.plain(&set, 2),
            3 => format!("{} IN {}", self.value(&set), request_list(self.dice)),
            4 => match &set.list {
                Some(list) => format!("{} IN {}.{list}", request(self.dice), set.name),
                None => self.plain(&set, 1),
            },
            5 => match &set.list {
                Some(list) => format!("{}.{list} && {}", set.name, request_list(self.dice)),
                None => self.of_request(),
            },
            6 => {
                let other = self.set(sets).clone();
                if other.name == set.name {
                    self.of_request()
                } else {
                    format!("{} = {}", self.value(&set), self.value(&other))
                }
            }
            7 => self.of_request(),
            8 | 9 => format!("{} IN {}", self.value(&set), self.query(sets, depth)),
            10 => format!("{} IN {}", request(self.dice), self.query(sets, depth)),
            11 => match (&set.list, self.query(sets, depth)) {
                (Some(list), query) if query.starts_with('(') => format!("{}.{list} && {query}", set.name),
                (_, query) => format!("{} IN {query}", self.value(&set)),
            },
            12 | 13 => format!("({} AND {})", self.condition(sets, depth - 1), self.condition(sets, depth - 1)),
            14 => format!("({} OR {})", self.condition(sets, depth - 1), self.condition(sets, depth - 1)),
            _ => format!("NOT ({})", self.plain(&set, 2)),
        }
    }

    /// FROM, the sets in it, whose first is a table, and a condition that joins them.
    fn from(&mut self, depth: usize) -> (String, Vec<Set>, Option<String>) {
        let table = self.dice.one_of(&TABLES);
        let first = Set::table(&self.dice.name("x"));
        let (mut sets, name) = (vec![first.clone()], first.name.clone());
        let mut from = format!("{table} AS {name}");
        let mut joined = None;
        match self.dice.roll(if depth > 0 { 9 } else { 3 }) {
            kind @ 3..=5 => {
                let other = Set::table(&self.dice.name("x"));
                let table = self.dice.one_of(&["t2", "t3", "t1"]);
                let mut on = format!("{} = {}", first.column(self.dice), other.column(self.dice));
                if kind == 4 {
                    on = format!("{on} AND {} = {}", first.column(self.dice), other.column(self.dice));
                }
                from = format!("{from} JOIN {table} AS {} ON {on}", other.name);
                sets.push(other.clone());
                if kind == 5 {
                    let third = Set::table(&self.dice.name("x"));
                    let table = self.dice.one_of(&["t3", "t2", "t1"]);
                    let with = self.set(&sets).clone();
                    let on = format!("{} = {}", third.column(self.dice), with.column(self.dice));
                    from = format!("{from} JOIN {table} AS {} ON {on}", third.name);
                    sets.push(third);
                }
            }
            6 => {
                let each = Set { name: self.dice.name("e"), columns: vec!["value".into()], list: None };
                from = format!("{from}, json_each({name}.list) AS {}", each.name);
                joined = Some(format!("{}.value = {}", each.name, request(self.dice)));
                sets.push(each);
            }
            7 => {
                let each = Set { name: self.dice.name("e"), columns: vec!["value".into()], list: None };
                from = format!("{from}, json_each({}) AS {}", request_list(self.dice), each.name);
                joined = Some(format!("{} = {}.value", first.column(self.dice), each.name));
            }
            8 => {
                let columns = vec!["u".to_owned(), "v".to_owned()];
                let derived = Set { name: self.dice.name("d"), columns, list: None };
                let (inner, sets_inside, joined_inside) = self.from(depth - 1);
                let one = sets_inside[0].column(self.dice);
                let last = sets_inside[self.dice.roll(sets_inside.len())].clone();
                let other = last.column(self.dice);
                let condition = self.condition(&sets_inside, depth - 1);
                let joined_inside = joined_inside.map(|joined| format!("{joined} AND ")).unwrap_or_default();
                let mut query = format!(
                    "(SELECT {one} AS u, {other} AS v FROM {inner} WHERE {joined_inside}{condition}) AS {}",
                    derived.name
                );
                if !self.named.is_empty() && self.dice.rarely(2) {
                    let two = self.named.iter().find(|(_, columns)| columns.len() == 2);
                    query = two.map_or(query, |(name, _)| format!("{name} AS {}", derived.name));
                }
                from = format!("{from} JOIN {query} ON {} = {}", first.column(self.dice), derived.column(self.dice));
                sets.push(derived);
            }
            _ => {}
        }
        (from, sets, joined)
    }

    fn query_of_stream(&mut self) -> String {
        let (mut from, sets, joined) = self.from(2);
        let name = sets[0].name.clone();
        let mut columns = match self.dice.roll(4) {
            1 => format!("{name}.id, {name}.a"),
            2 => format!("{name}.*, upper({name}.b) AS x"),
            3 => format!("{name}.b AS id, {name}.list"),
            _ => format!("{name}.*"),
        };
        let mut sets = sets;
        if sets.len() == 1 && self.dice.rarely(8) {
            let derived = self.dice.name("d");
            let condition = self.condition(&sets, 1);
            let joined = joined.as_ref().map(|joined| format!("{joined} AND ")).unwrap_or_default();
            from = format!("(SELECT {name}.id, {name}.a AS u FROM {from} WHERE {joined}{condition}) AS {derived}");
            columns = self.dice.one_of(&["*", "u AS id, id AS w"]).to_owned();
            sets = vec![Set { name: derived, columns: vec!["id".into(), "u".into()], list: None }];
            return format!("SELECT {columns} FROM {from} WHERE {}", self.condition(&sets, 2));
        }
        let joined = joined.map(|joined| format!("{joined} AND ")).unwrap_or_default();
        let condition = self.condition(&sets, 3);
        format!("SELECT {columns} FROM {from} WHERE {joined}{condition}")
    }

    /// A `with` block.
    fn with(&mut self, count: usize) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut named = Vec::new();
        // One cannot use another.
        let known = std::mem::take(&mut self.named);
        for _ in 0..count {
            let name = self.dice.name("n");
            let (from, sets, joined) = self.from(1);
            let joined = joined.map(|joined| format!("{joined} AND ")).unwrap_or_default();
            let condition = self.condition(&sets, 1);
            let (columns, sql) = if self.dice.rarely(2) {
                (vec!["u".to_owned()], format!("{} AS u", sets[0].column(self.dice)))
            } else {
                let columns = vec!["u".to_owned(), "v".to_owned()];
                (columns, format!("{} AS u, {} AS v", sets[0].column(self.dice), sets[0].column(self.dice)))
            };
            found.push((name.clone(), format!("SELECT {sql} FROM {from} WHERE {joined}{condition}")));
            named.push((name, columns));
        }
        self.named = [known, named].concat();
        found
    }
}

/// A config with streams `s0`, `s1`.
pub(crate) fn config(choices: &[u8]) -> String {
    let mut dice = Dice::new(choices);
    let mut maker = Maker { dice: &mut dice, named: Vec::new() };
    let mut text = String::from("config: { edition: 3 }\n");
    let block = |queries: &[(String, String)], indent: &str| {
        let lines = queries.iter().map(|(name, sql)| format!("{indent}  {name}: {}\n", json!(sql)));
        if queries.is_empty() { String::new() } else { format!("{indent}with:\n{}", lines.collect::<String>()) }
    };
    let count = maker.dice.roll(2);
    text.push_str(&block(&maker.with(count), ""));
    text.push_str("streams:\n");
    let global = maker.named.clone();
    for number in 0..=maker.dice.roll(2) {
        maker.named.clone_from(&global);
        let auto_subscribe = !maker.dice.rarely(4);
        let count = maker.dice.roll(3).min(1);
        let with = block(&maker.with(count), "    ");
        let priority = if maker.dice.rarely(4) { "    priority: 1\n" } else { "" };
        text.push_str(&format!("  s{number}:\n    auto_subscribe: {auto_subscribe}\n{priority}{with}    queries:\n"));
        for _ in 0..=maker.dice.roll(2) {
            text.push_str(&format!("      - {}\n", json!(maker.query_of_stream())));
        }
    }
    text
}
