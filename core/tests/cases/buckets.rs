//! Comparing buckets by what is in them: their definitions may have other names here, and the parameters of streams another
//! order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

/// `(table, id, data)` of a row in a bucket.
pub(crate) type Object = (String, String, String);
/// Why a bucket is there, and its priority.
pub(crate) type Grant = (u64, BTreeSet<String>);

/// Everything that one side says of the buckets of one definition.
#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    /// Row, parameters, object.
    rows: BTreeSet<(String, Vec<String>, Object)>,
    /// By request and parameters.
    grants: BTreeMap<(String, Vec<String>), Grant>,
}

/// What one side says of all buckets, by the names of their definitions.
#[derive(Debug, Default)]
pub(crate) struct Buckets(BTreeMap<String, Content>);

impl Buckets {
    /// A row is in a bucket. Buckets that no request of ours can have are left out.
    pub(crate) fn row(&mut self, row: &str, bucket: &str, object: Object) {
        if let Some((name, parameters)) = split(bucket) {
            self.0.entry(name).or_default().rows.insert((row.to_owned(), parameters, object));
        }
    }

    /// A request may have a bucket.
    pub(crate) fn grant(&mut self, request: &str, bucket: &str, priority: u64, reasons: BTreeSet<String>) {
        if let Some((name, parameters)) = split(bucket) {
            merge(&mut self.0.entry(name).or_default().grants, (request.to_owned(), parameters), (priority, reasons));
        }
    }

    /// `Err` unless each definition that is expected is one of these. Several that hold the same may be one here.
    pub(crate) fn compare(&self, expected: &Self) -> Result<(), String> {
        let names: Vec<_> = expected.0.keys().collect();
        if self.assign(expected, &names, &mut BTreeMap::new()) {
            return Ok(());
        }
        Err(format!("the buckets are {:#?}, expected {:#?}", self.0, expected.0))
    }

    /// Finds a definition for each of `names`, with all that are assigned to one together granting what it grants.
    fn assign<'a>(
        &'a self,
        expected: &Self,
        names: &[&String],
        granted: &mut BTreeMap<&'a String, BTreeMap<(String, Vec<String>), Grant>>,
    ) -> bool {
        let Some((name, rest)) = names.split_first() else {
            return self.0.iter().all(|(own, content)| {
                granted
                    .get(own)
                    .map_or(content.grants.is_empty() && content.rows.is_empty(), |all| *all == content.grants)
            });
        };
        let wanted = &expected.0[*name];
        let count = wanted.rows.iter().map(|(_, parameters, _)| parameters.len());
        let count = count.chain(wanted.grants.keys().map(|(_, parameters)| parameters.len())).max().unwrap_or(0);
        // Parameters of bucket definitions have their order; those of streams have any.
        let orders = if name.contains('|') { permutations(count) } else { vec![(0..count).collect()] };
        for order in orders {
            let arranged = |parameters: &[String]| -> Vec<String> {
                order.iter().filter_map(|at| parameters.get(*at).cloned()).collect()
            };
            let rows: BTreeSet<_> = (wanted.rows.iter())
                .map(|(row, parameters, object)| (row.clone(), arranged(parameters), object.clone()))
                .collect();
            for (own, _) in self.0.iter().filter(|(_, content)| content.rows == rows) {
                let before = granted.get(own).cloned();
                let all = granted.entry(own).or_default();
                for ((request, parameters), grant) in &wanted.grants {
                    merge(all, (request.clone(), arranged(parameters)), grant.clone());
                }
                if self.assign(expected, rest, granted) {
                    return true;
                }
                match before {
                    Some(before) => granted.insert(own, before),
                    None => granted.remove(own),
                };
            }
        }
        false
    }
}

fn merge(all: &mut BTreeMap<(String, Vec<String>), Grant>, key: (String, Vec<String>), (priority, reasons): Grant) {
    let (smallest, known) = all.entry(key).or_insert((priority, BTreeSet::new()));
    *smallest = priority.min(*smallest);
    known.extend(reasons);
}

/// The name of a bucket's definition, and its parameters. `None` if one is NULL: no request is given such a bucket here.
///
/// Elements of lists are values of rows: true is 1, and lists inside of lists are texts.
fn split(bucket: &str) -> Option<(String, Vec<String>)> {
    let (name, parameters) = bucket.split_at(bucket.find('[').unwrap());
    let mut texts = Vec::new();
    for parameter in serde_json::from_str::<Vec<Json>>(parameters).unwrap() {
        texts.push(match parameter {
            Json::Null => return None,
            Json::Bool(truth) => u8::from(truth).to_string(),
            Json::Array(_) | Json::Object(_) => Json::String(parameter.to_string()).to_string(),
            other => other.to_string(),
        });
    }
    Some((name.to_owned(), texts))
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        let longer = |head: &Vec<usize>| {
            let head = head.clone();
            let rest: Vec<usize> = (0..count).filter(|at| !head.contains(at)).collect();
            rest.into_iter().map(move |at| [head.as_slice(), &[at]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}
