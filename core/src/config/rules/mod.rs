//! Bucket definitions, the language of editions 1 and 2, and the clauses that events and streams of edition 2 share with it.
//!
//! They come to the same plan as streams. A definition is a stream that is always on: its data queries are row evaluators, whose
//! keys are the parameters of its buckets, and its parameter queries are queriers.

mod clause;
mod clause_resolver;
mod data_query;
mod event;
mod parameter_query;
mod references;
mod table_query;

use std::sync::Arc;

use super::diagnostic::Report;
use super::outline::DefinitionOutline;
use super::places::Places;
use super::plan::{KeyValue, RowEvaluator, Wanted};
use super::planner::Planner;
use super::scalar::Scalar;
use crate::bucket::BucketPriority;

pub(super) use clause::{Class, Clause};
pub(super) use clause_resolver::{ClauseResolver, Kind, row_list};
pub(super) use event::compile as compile_event;
pub(super) use parameter_query::is_token;
pub(super) use table_query::{select_list, single_table};

use parameter_query::{ParameterQuery, Way};

/// The parameters of a bucket, in their order.
type Names = Vec<Arc<str>>;

/// What the queries of a definition are compiled with.
struct Context<'a, 't> {
    name: Arc<str>,
    fixed_json: bool,
    accept_dangerous: bool,
    planner: &'a mut Planner,
    places: &'a mut Places<'t>,
}

/// Compiles a bucket definition into the plan.
pub(super) fn compile(
    definition: &DefinitionOutline,
    fixed_json: bool,
    planner: &mut Planner,
    places: &mut Places<'_>,
    report: &mut Report,
) {
    let name: Arc<str> = definition.name.text().into();
    let accept_dangerous = definition.accept_dangerous;
    let mut context = Context { name: Arc::clone(&name), fixed_json, accept_dangerous, planner, places };
    let mut names = None;
    let mut ways = Vec::new();
    match &definition.parameters {
        None => {
            names = Some(Names::new());
            ways.push(Way { priority: definition.priority, wanted: Wanted::default(), values: Default::default() });
        }
        Some(queries) => {
            for scalar in queries {
                let query = parameter_query::compile(scalar, definition.priority, &mut context, report);
                let Some(ParameterQuery { names: own, ways: more }) = query else { continue };
                match &names {
                    None => names = Some(own),
                    Some(names) => check_names(names, &own, scalar, report),
                }
                ways.extend(more);
            }
        }
    }
    let mut evaluators: Vec<RowEvaluator> = Vec::new();
    for scalar in &definition.data {
        evaluators.extend(data_query::compile(scalar, names.as_ref(), &mut context, report));
    }
    let names = names.unwrap_or_default();
    let queriers = ways.into_iter().filter_map(|way| {
        let values = names.iter().map(|name| Some(vec![way.values.get(name)?.clone()])).collect::<Option<_>>()?;
        Some((way.priority.unwrap_or(BucketPriority::DEFAULT), way.wanted, values))
    });
    let queriers: Vec<(BucketPriority, Wanted, Vec<Vec<KeyValue>>)> = queriers.collect();
    planner.add_bucket_definition(&name, evaluators, queriers);
}

/// All parameter queries of a definition name the same parameters.
fn check_names(names: &Names, own: &Names, scalar: &Scalar, report: &mut Report) {
    let same = names.len() == own.len() && own.iter().all(|name| names.contains(name));
    if !same {
        let message = format!("this query names other parameters than the first, which has {}", list(names));
        report
            .fatal("parameter-queries-differ", scalar.span(), message)
            .help("name the same parameters with AS, in any order");
    }
}

fn list(names: &Names) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
