//! Bucket definitions: the parameter queries say which values `bucket.…` may have for a user, and the data queries are asked
//! with each of them.

use super::super::sql::ast::{ExprKind, Relation, Select, SelectItem};
use super::from::{self, Scope};
use super::interpreter::{self, Environment, Place, Stop};
use super::{Answer, World};
use crate::value::Value;

/// One entry of `bucket_definitions`.
#[derive(Debug)]
pub(super) struct NaiveDefinition {
    /// `None`: one bucket for all, without parameters.
    pub(super) parameters: Option<Vec<Select>>,
    pub(super) data: Vec<Select>,
}

impl NaiveDefinition {
    /// Adds the rows that it shows.
    pub(super) fn answer<'a>(&'a self, world: &World<'a>, answer: &mut Answer) -> Result<(), String> {
        let mut ways = Vec::new();
        match &self.parameters {
            None => ways.push((Vec::new(), true)),
            Some(queries) => {
                for query in queries {
                    assignments(query, world, &mut ways, answer)?;
                }
            }
        }
        for (bucket, certain) in &ways {
            for select in &self.data {
                answer.add(select, &World { bucket, ..*world }, *certain)?;
            }
        }
        Ok(())
    }
}

/// Values of all parameters of a bucket, and whether the user has it for sure.
type Way = (Vec<(String, Value)>, bool);

/// Adds the buckets that a parameter query names.
fn assignments<'a>(
    select: &'a Select,
    world: &World<'a>,
    ways: &mut Vec<Way>,
    answer: &mut Answer,
) -> Result<(), String> {
    let of_table = matches!(select.from.first().map(|item| &item.relation), Some(Relation::Table { .. }));
    if !of_table && fails(select, world)? {
        answer.fails = true;
        return Ok(());
    }
    for (scope, truth) in from::combinations(select, Scope::empty(), world)? {
        let mut bucket = Vec::new();
        let environment = Environment { world, scope: &scope, place: Place::Output };
        for item in &select.columns {
            let Some(name) = name_of(item) else { return Err("a parameter without a name".into()) };
            if name == "_priority" {
                continue;
            }
            match interpreter::value(&item.expr, &environment) {
                Ok(value) => bucket.push((name.to_owned(), value)),
                Err(Stop::Error) => answer.fails = true,
                Err(Stop::Unknown(what)) => return Err(what),
            }
        }
        ways.push((bucket, truth.must_hold()));
    }
    Ok(())
}

/// Whether a query over the request alone cannot be answered, which fails the request.
fn fails<'a>(select: &'a Select, world: &World<'a>) -> Result<bool, String> {
    let start = Scope::empty();
    let mut scopes = vec![start.clone()];
    if let Some(item) = select.from.first()
        && let Relation::Function(call) = &item.relation
        && let [argument] = call.arguments.as_slice()
    {
        let environment = Environment { world, scope: &start, place: Place::Output };
        match interpreter::value(argument, &environment).and_then(|json| interpreter::each(&json)) {
            Err(Stop::Error) => return Ok(true),
            Err(Stop::Unknown(what)) => return Err(what),
            Ok(_) => scopes = from::rows_before(item, &start, world)?,
        }
    }
    for scope in &scopes {
        let environment = Environment { world, scope, place: Place::Condition };
        match select.condition.as_ref().map(|condition| interpreter::value(condition, &environment)) {
            Some(Err(Stop::Error)) => return Ok(true),
            Some(Err(Stop::Unknown(what))) => return Err(what),
            Some(Ok(_)) | None => {}
        }
    }
    Ok(false)
}

fn name_of(item: &SelectItem) -> Option<&str> {
    match (&item.alias, &item.expr.kind) {
        (Some(alias), _) => Some(&alias.text),
        (None, ExprKind::Column { name, .. }) => Some(&name.text),
        (None, _) => None,
    }
}
