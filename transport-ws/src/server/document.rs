//! What clients send: JSON, or BSON from older SDKs.

use serde_json::{Map, Number, Value};

/// How deep documents may be nested: as deep as `serde_json` reads.
const DEPTH: usize = 127;

/// How metadata and requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Bson,
}

impl Encoding {
    /// The one of this MIME type.
    pub(super) fn of(mime_type: &str) -> Option<Self> {
        let essence = mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*essence {
            "application/json" => Some(Self::Json),
            "application/bson" => Some(Self::Bson),
            _ => None,
        }
    }

    /// Reads a document; an error says what is wrong with it.
    pub(super) fn read(self, bytes: &[u8]) -> Result<Value, String> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
            Self::Bson => bson(bytes).map_err(str::to_owned),
        }
    }
}

type Read<T> = Result<T, &'static str>;

fn bson(bytes: &[u8]) -> Read<Value> {
    let mut rest = bytes;
    let document = document(&mut rest, DEPTH)?;
    if rest.is_empty() { Ok(Value::Object(document.into_iter().collect())) } else { Err("bytes after a document") }
}

/// The elements of a document or an array. What they hold in memory is a small multiple of their bytes.
fn document(rest: &mut &[u8], depth: usize) -> Read<Vec<(String, Value)>> {
    let depth = depth.checked_sub(1).ok_or("documents are nested too deep")?;
    let length = rest.first_chunk::<4>().map(|length| i32::from_le_bytes(*length)).ok_or(CUT)?;
    let length = usize::try_from(length).map_err(|_| "an impossible length")?;
    let [_, _, _, _, elements @ .., 0] = take(rest, length)? else { return Err("a document without its end") };
    let mut elements = elements;
    let mut found = Vec::new();
    while let Some((kind, others)) = elements.split_first() {
        elements = others;
        let end = elements.iter().position(|byte| *byte == 0).ok_or(CUT)?;
        let key = text(take(&mut elements, end)?)?;
        take(&mut elements, 1)?;
        found.push((key, value(*kind, &mut elements, depth)?));
    }
    Ok(found)
}

fn value(kind: u8, rest: &mut &[u8], depth: usize) -> Read<Value> {
    Ok(match kind {
        0x01 => number(f64::from_le_bytes(array(rest)?))?,
        0x02 => {
            let length = usize::try_from(i32::from_le_bytes(array(rest)?)).map_err(|_| "an impossible length")?;
            let [bytes @ .., 0] = take(rest, length)? else { return Err("a text without its end") };
            Value::String(text(bytes)?)
        }
        0x03 => Value::Object(document(rest, depth)?.into_iter().collect::<Map<_, _>>()),
        0x04 => Value::Array(document(rest, depth)?.into_iter().map(|(_, value)| value).collect()),
        0x08 => Value::Bool(array::<1>(rest)? != [0]),
        // Undefined is what JavaScript leaves out of JSON; nothing here tells it from null.
        0x06 | 0x0a => Value::Null,
        0x10 => i32::from_le_bytes(array(rest)?).into(),
        0x12 => i64::from_le_bytes(array(rest)?).into(),
        _ => return Err("a value of a type that JSON does not have"),
    })
}

/// JavaScript has doubles alone, so a whole one is an integer.
fn number(number: f64) -> Read<Value> {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Ok((number as i64).into());
    }
    Number::from_f64(number).map(Value::Number).ok_or("a number that is none")
}

const CUT: &str = "a document is cut off";

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Read<&'a [u8]> {
    let (taken, others) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = others;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Read<[u8; N]> {
    let (taken, others) = rest.split_first_chunk::<N>().ok_or(CUT)?;
    *rest = others;
    Ok(*taken)
}

fn text(bytes: &[u8]) -> Read<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a text is not UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hex::bytes_of;

    #[test]
    fn recorded_documents_are_read() {
        let metadata = "3d00000002746f6b656e0012000000546f6b656e206162632e6465662e6768690002757365725f6167656e74000b00\
                        000073616d706c652f312e300000";
        let expected = json!({ "token": "Token abc.def.ghi", "user_agent": "sample/1.0" });
        assert_eq!(Encoding::Bson.read(&bytes_of(metadata)), Ok(expected));
        let request = "21000000087261775f64617461000102636c69656e745f69640002000000630000";
        assert_eq!(Encoding::Bson.read(&bytes_of(request)), Ok(json!({ "raw_data": true, "client_id": "c" })));
    }

    #[test]
    fn doubles_that_are_whole_are_integers() {
        for (double, expected) in [(3.0, json!(3)), (-1.0, json!(-1)), (0.5, json!(0.5)), (1e300, json!(1e300))] {
            let mut bytes = vec![16, 0, 0, 0, 1, b'n', 0];
            bytes.extend_from_slice(&f64::to_le_bytes(double));
            bytes.push(0);
            assert_eq!(Encoding::Bson.read(&bytes), Ok(json!({ "n": expected })));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            let mut bytes = vec![5, 0, 0, 0, 0];
            for _ in 1..depth {
                let mut outer = i32::try_from(bytes.len() + 8).expect("short").to_le_bytes().to_vec();
                outer.extend_from_slice(&[3, b'a', 0]);
                outer.append(&mut bytes);
                outer.push(0);
                bytes = outer;
            }
            Encoding::Bson.read(&bytes)
        };
        assert!(nested(DEPTH).is_ok());
        assert_eq!(nested(DEPTH + 1), Err("documents are nested too deep".to_owned()));
    }

    #[test]
    fn mime_types_are_known_by_their_essence() {
        assert_eq!(Encoding::of("application/json"), Some(Encoding::Json));
        assert_eq!(Encoding::of("Application/BSON; x=1"), Some(Encoding::Bson));
        assert_eq!(Encoding::of("text/plain"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_document_or_an_error(mut bytes in vec(any::<u8>(), 5..60)) {
            let length = i32::try_from(bytes.len()).expect("short");
            bytes[0..4].copy_from_slice(&length.to_le_bytes());
            *bytes.last_mut().expect("not empty") = 0;
            let _ = Encoding::Bson.read(&bytes);
        }
    }
}
