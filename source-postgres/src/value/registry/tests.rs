//! The cases of type mapping, and what no text may do.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value as Json;
use syncline_core::{SyncConfig, Value};

use super::*;

fn custom(registry: &mut TypeRegistry, types: &Json) {
    for (oid, definition) in types.as_object().unwrap() {
        let number = |name: &str| u32::try_from(definition[name].as_u64().unwrap()).unwrap();
        let kind = match definition["kind"].as_str().unwrap() {
            "domain" => CustomKind::Domain(number("base")),
            "range" => CustomKind::Range(number("inner")),
            "multirange" => CustomKind::Multirange(number("inner")),
            "array" => CustomKind::Array {
                element: number("element"),
                delimiter: definition["delimiter"].as_str().unwrap().as_bytes()[0],
            },
            "composite" => CustomKind::Composite(
                definition["members"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|member| {
                        (member[0].as_str().unwrap().to_owned(), u32::try_from(member[1].as_u64().unwrap()).unwrap())
                    })
                    .collect(),
            ),
            other => panic!("an unknown kind of type: {other}"),
        };
        let name = definition["name"].as_str().unwrap().into();
        registry.custom.insert(oid.parse().unwrap(), Custom { name, kind });
    }
}

fn expected(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::String(text) => text.as_str().into(),
        Json::Object(object) => {
            let (kind, text) = object.iter().next().unwrap();
            match kind.as_str() {
                "int" => Value::Integer(text.as_str().unwrap().parse().unwrap()),
                "real" => Value::Real(text.as_str().unwrap().parse().unwrap()),
                "blob" => {
                    let hex = text.as_str().unwrap();
                    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                    Value::Blob((0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>().into())
                }
                other => panic!("an unknown kind of value: {other}"),
            }
        }
        other => panic!("an odd expectation: {other}"),
    }
}

/// What a config with these options asks for.
fn options(settings: &Json) -> ValueOptions {
    let text = format!("config: {settings}\nbucket_definitions: {{ all: {{ data: [SELECT * FROM t] }} }}");
    *SyncConfig::parse(&text).unwrap_or_else(|problems| panic!("{text}: {problems}")).value_options()
}

#[test]
fn the_recorded_cases_hold_with_all_their_settings() {
    let file: Json = serde_json::from_str(include_str!("../../../tests/data/types.json")).unwrap();
    let (mut passed, mut failed, mut checked) = (0, Vec::new(), 0);
    for case in file["cases"].as_array().unwrap() {
        assert_eq!(case["kind"], "pg-types");
        let mut differences = Vec::new();
        for (name, settings) in case["settings"].as_object().unwrap() {
            let mut registry = TypeRegistry::new(options(settings));
            custom(&mut registry, &case["custom_types"]);
            for value in case["values"].as_array().unwrap() {
                let mut expects = value["expect"].as_array().unwrap().iter();
                let expect =
                    expects.find(|expect| expect["settings"].as_array().unwrap().contains(&name.as_str().into()));
                let expect = expect.unwrap_or_else(|| panic!("{}: nothing is expected with {name}", case["id"]));
                let oid = u32::try_from(value["oid"].as_u64().unwrap()).unwrap();
                let found = match value["text"].as_str() {
                    // It never comes to a mapping.
                    None => Value::Null,
                    Some(text) => registry.mapping(oid).value(text.to_owned().into()).unwrap(),
                };
                let expected = expected(&expect["value"]);
                // NaN equals nothing, so texts are compared.
                if format!("{found:?}") != format!("{expected:?}") {
                    let text = &value["text"];
                    differences.push(format!("{name}: {} {text} is {found:?}, not {expected:?}", value["type"]));
                }
                checked += 1;
            }
        }
        match differences.is_empty() {
            true => passed += 1,
            false => failed.push(format!("{}: {}", case["id"], differences.join("; "))),
        }
    }
    println!("11-types: {passed} passed, {} failed; {checked} values", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(passed, file["cases"].as_array().unwrap().len());
    assert!(checked > 300, "only {checked} values were checked");
}

#[test]
fn without_custom_types_ranges_and_arrays_of_them_stay_as_sent() {
    let registry = TypeRegistry::new(ValueOptions { custom_types: false, ..ValueOptions::default() });
    for (oid, text) in [
        (Type::INT4_RANGE.oid(), "[1,5)"),
        (Type::INT4_RANGE_ARRAY.oid(), r#"{"[1,2)",empty}"#),
        (Type::INT4MULTI_RANGE.oid(), "{[1,2)}"),
        (Type::BOX_ARRAY.oid(), "{(2,2),(1,1)}"),
        (Type::JSON_ARRAY.oid(), "{\u{1}}"),
        (Type::JSON_ARRAY.oid(), r#"{"[1",2}"#),
    ] {
        assert_eq!(registry.mapping(oid).value(text.to_owned().into()).unwrap(), Value::from(text));
    }
}

#[test]
fn nested_values_with_quotes_and_delimiters() {
    for (oid, text, json) in [
        (Type::BOX_ARRAY.oid(), "{(2,2),(1,1);(4,4),(3,3)}", r#"["(2,2),(1,1)","(4,4),(3,3)"]"#),
        (Type::JSONB_ARRAY.oid(), r#"{"{\"a\": [1, null]}",NULL}"#, r#"[{"a": [1, null]},null]"#),
        (Type::JSON_ARRAY.oid(), "{1e999,18446744073709551615.5}", "[1e999,18446744073709551615.5]"),
        (Type::INT4_RANGE.oid(), "(,5]", r#"{"lower":null,"upper":5,"lower_exclusive":1,"upper_exclusive":0}"#),
        (
            Type::INT4_RANGE_ARRAY.oid(),
            r#"{"[1,2)",empty}"#,
            r#"[{"lower":1,"upper":2,"lower_exclusive":0,"upper_exclusive":1},"empty"]"#,
        ),
        (
            Type::TS_RANGE.oid(),
            r#"["2024-01-01 00:00:00",)"#,
            r#"{"lower":"2024-01-01T00:00:00.000000","upper":null,"lower_exclusive":0,"upper_exclusive":1}"#,
        ),
        (Type::INT4MULTI_RANGE.oid(), "{}", "[]"),
    ] {
        let value = TypeRegistry::default().mapping(oid).value(text.to_owned().into()).unwrap();
        assert_eq!(value, Value::from(json), "{text}");
    }
}

#[test]
fn what_is_not_utf8_is_an_error() {
    assert!(Mapping::Text.value(vec![0xFF].into()).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"[{}()\[\],"\\a1N;= ]{0,40}"#, pick in 0usize..7) {
        let oid = [
            Type::INT4_ARRAY.oid(), Type::TEXT_ARRAY.oid(), Type::INT4_RANGE.oid(), Type::INT4MULTI_RANGE.oid(), 20_000,
            Type::BYTEA.oid(), Type::PG_LSN.oid(),
        ][pick];
        let mut registry = TypeRegistry::default();
        let members = vec![("a".to_owned(), 23), ("b".to_owned(), 1009)];
        registry.custom.insert(20_000, Custom { name: "c".into(), kind: CustomKind::Composite(members) });
        let value = registry.mapping(oid).value(text.clone().into()).unwrap();
        let nested = matches!(&value, Value::Text(found) if **found != text);
        if let (true, Value::Text(json)) = (nested && pick < 5, &value) {
            prop_assert!(serde_json::from_str::<Json>(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_type_that_contains_itself_ends(text in ".{0,20}") {
        let mut registry = TypeRegistry::default();
        registry.custom.insert(20_000, Custom { name: "a".into(), kind: CustomKind::Domain(20_001) });
        registry.custom.insert(20_001, Custom { name: "b".into(), kind: CustomKind::Domain(20_000) });
        prop_assert_eq!(registry.mapping(20_000).value(text.clone().into()).unwrap(), Value::from(text));
    }
}
