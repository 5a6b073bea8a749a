//! Functions over JSON texts.

use super::super::cast;
use super::super::evaluate::Failure;
use super::super::json_tree::{JsonTree, Numbers};
use crate::value::Value;

/// `None` for NULL.
fn parse(value: &Value) -> Result<Option<JsonTree>, Failure> {
    cast::text(value).map(|text| JsonTree::parse(&text)).transpose()
}

fn find(json: &Value, key: &Value) -> Result<Option<JsonTree>, Failure> {
    let Some(tree) = parse(json)? else { return Ok(None) };
    Ok(cast::text(key).and_then(|path| tree.at(&path)))
}

pub(super) fn arrow(json: &Value, key: &Value) -> Result<Value, Failure> {
    Ok(find(json, key)?.map_or(Value::Null, |found| Value::text(found.text(Numbers::Exact))))
}

pub(super) fn arrow_text(json: &Value, key: &Value) -> Result<Value, Failure> {
    Ok(find(json, key)?.map_or(Value::Null, |found| found.value(Numbers::Exact)))
}

pub(super) fn extract(json: &Value, path: &Value) -> Result<Value, Failure> {
    if json.is_null() {
        return Ok(Value::Null);
    }
    if !cast::text(path).is_some_and(|path| path.starts_with('$')) {
        return Err(Failure::new("bad-json-path", "a JSON path must begin with `$`"));
    }
    arrow_text(json, path)
}

pub(super) fn keys(json: &Value) -> Result<Value, Failure> {
    match parse(json)? {
        None => Ok(Value::Null),
        Some(JsonTree::Object(entries)) => {
            let keys = entries.into_iter().map(|(key, _)| JsonTree::Text(key)).collect();
            Ok(Value::text(JsonTree::Array(keys).text(Numbers::Exact)))
        }
        Some(_) => Err(Failure::new("json-keys-not-an-object", "`json_keys` needs a JSON object")),
    }
}

pub(super) fn array_length(json: &Value, path: Option<&Value>) -> Result<Value, Failure> {
    let found = match path {
        None => parse(json)?,
        Some(path) => find(json, path)?,
    };
    Ok(match found {
        None => Value::Null,
        Some(JsonTree::Array(elements)) => Value::Integer(elements.len() as i64),
        Some(_) => Value::Integer(0),
    })
}
