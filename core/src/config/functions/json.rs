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
    check_path(json, path)?;
    arrow_text(json, path)
}

fn check_path(json: &Value, path: &Value) -> Result<(), Failure> {
    if json.is_null() || cast::text(path).is_some_and(|path| path.starts_with('$')) {
        return Ok(());
    }
    Err(Failure::new("bad-json-path", "a JSON path must begin with `$`"))
}

/// What stands under a path of edition 1: every dot leads one level down, and a first `$` means nothing.
fn legacy_find(json: &Value, key: &Value) -> Result<Option<JsonTree>, Failure> {
    let tree = match parse(json)? {
        // Other than inside, `null` by itself is nothing.
        None | Some(JsonTree::Null) => return Ok(None),
        Some(tree) => tree,
    };
    Ok(cast::text(key).and_then(|path| {
        let skipped = usize::from(path.starts_with('$'));
        path.split('.').skip(skipped).try_fold(tree, |found, key| found.step(key))
    }))
}

pub(super) fn legacy_arrow(json: &Value, key: &Value) -> Result<Value, Failure> {
    Ok(match legacy_find(json, key)? {
        None | Some(JsonTree::Null) => Value::Null,
        Some(found) => Value::text(found.text(Numbers::Exact)),
    })
}

pub(super) fn legacy_arrow_text(json: &Value, key: &Value) -> Result<Value, Failure> {
    Ok(match legacy_find(json, key)? {
        None => Value::Null,
        Some(JsonTree::Null) => Value::text("null"),
        Some(found) => found.value(Numbers::Exact),
    })
}

pub(super) fn legacy_extract(json: &Value, path: &Value) -> Result<Value, Failure> {
    check_path(json, path)?;
    legacy_arrow_text(json, path)
}

pub(super) fn legacy_array_length(json: &Value, path: Option<&Value>) -> Result<Value, Failure> {
    let found = match path {
        None => parse(json)?,
        Some(path) => legacy_find(json, path)?,
    };
    Ok(length(found))
}

/// 1 for a text that is JSON.
pub(super) fn valid(json: &Value) -> Value {
    Value::Integer(i64::from(matches!(parse(json), Ok(Some(_)))))
}

pub(super) fn keys(json: &Value) -> Result<Value, Failure> {
    match parse(json)? {
        None => Ok(Value::Null),
        Some(JsonTree::Object(entries)) => {
            let mut entries = entries;
            entries.sort_by_key(|(key, _)| host_order(key));
            let keys = entries.into_iter().map(|(key, _)| JsonTree::Text(key)).collect();
            Ok(Value::text(JsonTree::Array(keys).text(Numbers::Exact)))
        }
        Some(_) => Err(Failure::new("json-keys-not-an-object", "`json_keys` needs a JSON object")),
    }
}

/// Keys that are written like indexes come first, by their number, as in the official service's host language.
fn host_order(key: &str) -> u32 {
    let is_index = key == "0" || (!key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit()));
    key.parse().ok().filter(|_| is_index).unwrap_or(u32::MAX)
}

pub(super) fn array_length(json: &Value, path: Option<&Value>) -> Result<Value, Failure> {
    let found = match path {
        None => parse(json)?,
        Some(path) => find(json, path)?,
    };
    Ok(length(found))
}

fn length(found: Option<JsonTree>) -> Value {
    match found {
        None => Value::Null,
        Some(JsonTree::Array(elements)) => Value::Integer(elements.len() as i64),
        Some(_) => Value::Integer(0),
    }
}
