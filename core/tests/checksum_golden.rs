//! Recorded checksums of the official service.
#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use syncline_core::Checksum;

fn number(json: &Json) -> u32 {
    u32::try_from(json.as_i64().unwrap()).unwrap()
}

#[test]
fn checksums_are_those_of_the_official_service() {
    let vectors: Json = serde_json::from_str(include_str!("data/vectors/checksums.json")).unwrap();
    let mut seen = 0;
    for case in vectors["put"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let sum = Checksum::of_put(text("object_type"), text("object_id"), text("data").as_bytes());
        assert_eq!(sum, Checksum(number(&case["checksum_u32"])), "{case}");
        assert_eq!(i64::from(sum.signed()), case["checksum_i32"].as_i64().unwrap());
        seen += 1;
    }
    for case in vectors["remove"].as_array().unwrap() {
        let sum = Checksum::of_remove(case["subkey"].as_str().unwrap());
        assert_eq!(sum, Checksum(number(&case["checksum_u32"])), "{case}");
        seen += 1;
    }
    for case in vectors["add"].as_array().unwrap() {
        let [a, b] = ["a", "b"].map(|key| Checksum::from_wire(case[key].as_i64().unwrap()));
        assert_eq!(i64::from((a + b).signed()), case["service_result_i32"].as_i64().unwrap(), "{case}");
        seen += 1;
    }
    assert!(seen >= 18, "{seen} cases");
}
