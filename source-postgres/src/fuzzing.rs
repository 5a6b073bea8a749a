//! The fuzz targets of this crate: whatever the bytes are, nothing panics, and what each function says holds.
//!
//! `fuzz/` runs them under libFuzzer, the tests below over their seeds and mutations of them on any toolchain.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use syncline_core::{TimePrecision, Value, ValueOptions};

use crate::pgoutput::{self, Message, Tuple};
use crate::value::{Mapping, TypeRegistry};

/// Beyond the oids of all built-in types.
const OIDS: u32 = 6_000;
/// A type itself, and what can be made of it.
const KINDS: u32 = 5;

/// A message of the replication stream: what is decoded has columns that can be read, all of them.
pub fn pgoutput(bytes: &[u8]) {
    let read = |tuple: &Tuple| {
        let read = tuple.read(|_| true, |_, _| Ok(()));
        assert!(read.is_ok(), "a row that was decoded can be read");
    };
    match pgoutput::decode(Bytes::copy_from_slice(bytes)) {
        Ok(Message::Insert { new, .. }) => read(&new),
        Ok(Message::Update { old, new, .. }) => {
            read(&new);
            old.iter().for_each(|old| read(&old.tuple));
        }
        Ok(Message::Delete { old, .. }) => read(&old.tuple),
        _ => {}
    }
}

/// The text of a value: only text that is not UTF-8 is refused, and what is nested becomes JSON. The first four bytes
/// choose its type, a built-in one, or an array, a composite, a range or a multirange of it, and how the config maps it.
pub fn postgres_value(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first_chunk() else { return };
    let choice = u32::from_be_bytes(*choice);
    let options = match choice / OIDS / KINDS % 3 {
        0 => ValueOptions::default(),
        1 => ValueOptions { iso8601_timestamps: false, custom_types: false, max_precision: None },
        _ => ValueOptions { max_precision: Some(TimePrecision::Milliseconds), ..ValueOptions::default() },
    };
    let inner = TypeRegistry::new(options).mapping(choice % OIDS);
    let element = || Arc::new(inner.clone());
    let mapping = match choice / OIDS % KINDS {
        1 => Mapping::Array { element: element(), delimiter: b',' },
        2 => Mapping::Composite([("a".to_owned(), inner.clone()), ("b".to_owned(), inner.clone())].into()),
        3 => Mapping::Range(element()),
        4 => Mapping::Multirange(element()),
        _ => inner,
    };
    match mapping.value(Bytes::copy_from_slice(text)) {
        Err(_) => assert!(std::str::from_utf8(text).is_err(), "{mapping:?} is refused"),
        Ok(Value::Text(value)) => {
            let is_nested = matches!(mapping, Mapping::Array { .. } | Mapping::Composite(_) | Mapping::Range(_));
            // What does not parse stays as it was sent.
            if is_nested && value.as_bytes() != text {
                // Numbers may be of any size.
                let read = serde_json::from_str::<IgnoredAny>(&value);
                assert!(read.is_ok(), "{mapping:?} becomes {value}");
            }
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod targets {
    #[test]
    fn pgoutput() {
        fuzz_campaign::run("pgoutput", super::pgoutput, 20_000);
    }

    #[test]
    fn postgres_value() {
        fuzz_campaign::run("postgres_value", super::postgres_value, 20_000);
    }
}
