//! JSON with its keys in their order and its integers exact.

use std::iter::Peekable;
use std::str::Chars;

use super::text::{json_string, json_value};
use crate::value::Value;

/// Arrays and objects inside each other.
const DEPTH: usize = 127;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(i128),
    Real(f64),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// How numbers become values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Exact,
    /// As JavaScript reads them, except for integers that it would change.
    Doubles,
}

impl Json {
    /// None if it is not JSON, or if a key has two values.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text.chars().peekable(), depth: 0 };
        let json = reader.value()?;
        reader.blanks();
        reader.rest.next().is_none().then_some(json)
    }

    pub(super) fn of_map(map: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self::Object(map.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect())
    }

    fn of(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(yes) => Self::Bool(*yes),
            serde_json::Value::Number(number) => number_of(&number.to_string()).unwrap_or(Self::Null),
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Array(elements) => Self::Array(elements.iter().map(Self::of).collect()),
            serde_json::Value::Object(map) => Self::of_map(map),
        }
    }

    pub(super) fn value(&self, numbers: Numbers) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(yes) => Value::Integer(i64::from(*yes)),
            Self::Integer(integer) => {
                let as_double = numbers == Numbers::Doubles && integer.abs() <= 1 << 53;
                match i64::try_from(*integer) {
                    Ok(small) if !as_double => Value::Integer(small),
                    _ => Value::Real(*integer as f64),
                }
            }
            Self::Real(real) => Value::Real(*real),
            Self::Text(text) => Value::text(text.as_str()),
            Self::Array(_) | Self::Object(_) => Value::text(self.text(numbers)),
        }
    }

    pub(super) fn text(&self, numbers: Numbers) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(yes) => yes.to_string(),
            Self::Integer(integer) if numbers == Numbers::Exact => integer.to_string(),
            Self::Integer(_) | Self::Real(_) => json_value(&self.value(numbers)),
            Self::Text(text) => json_string(text),
            Self::Array(elements) => {
                let elements: Vec<_> = elements.iter().map(|element| element.text(numbers)).collect();
                format!("[{}]", elements.join(","))
            }
            Self::Object(members) => {
                let member = |(key, member): &(String, Self)| format!("{}:{}", json_string(key), member.text(numbers));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// What stands under one key, or under a path of keys that begins with `$`.
    pub(super) fn at(&self, path: &str) -> Option<Self> {
        if !path.starts_with('$') {
            return self.step(path);
        }
        let mut found = self.clone();
        for key in path.split('.').skip(1) {
            found = found.step(key)?;
        }
        Some(found)
    }

    /// What an object has under this very key.
    pub(super) fn at_key(&self, key: &str) -> Option<Self> {
        self.step(key)
    }

    fn step(&self, key: &str) -> Option<Self> {
        let index = || key.parse::<usize>().ok().filter(|index| index.to_string() == key);
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, found)| found.clone()),
            Self::Array(elements) => elements.get(index()?).cloned(),
            Self::Text(text) => {
                let units: Vec<u16> = text.encode_utf16().collect();
                Some(Self::Text(String::from_utf16_lossy(&[*units.get(index()?)?])))
            }
            _ => None,
        }
    }
}

/// Integers as far as 64 bits with or without a sign reach; the rest are reals, and infinite ones are none.
fn number_of(text: &str) -> Option<Json> {
    if text != "-0" && !text.contains(['.', 'e', 'E']) {
        let integer: Option<i128> = text.parse().ok();
        if let Some(integer) = integer.filter(|i| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(i)) {
            return Some(Json::Integer(integer));
        }
    }
    text.parse().ok().filter(|real: &f64| real.is_finite()).map(Json::Real)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r')).is_some() {}
    }

    fn eat(&mut self, wanted: char) -> Option<()> {
        self.rest.next_if_eq(&wanted).map(|_| ())
    }

    fn word(&mut self, word: &str, json: Json) -> Option<Json> {
        word.chars().try_for_each(|c| self.eat(c)).map(|()| json)
    }

    fn value(&mut self) -> Option<Json> {
        self.blanks();
        match self.rest.peek()? {
            'n' => self.word("null", Json::Null),
            't' => self.word("true", Json::Bool(true)),
            'f' => self.word("false", Json::Bool(false)),
            '"' => self.string().map(Json::Text),
            '[' | '{' => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return None;
                }
                let nested = if self.eat('[').is_some() { self.array() } else { self.object() };
                self.depth -= 1;
                nested
            }
            _ => self.number(),
        }
    }

    fn array(&mut self) -> Option<Json> {
        let mut elements = Vec::new();
        self.blanks();
        if self.eat(']').is_some() {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            self.blanks();
            if self.eat(']').is_some() {
                return Some(Json::Array(elements));
            }
            self.eat(',')?;
        }
    }

    fn object(&mut self) -> Option<Json> {
        let mut members: Vec<(String, Json)> = Vec::new();
        self.eat('{')?;
        self.blanks();
        if self.eat('}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.blanks();
            let key = self.string()?;
            self.blanks();
            self.eat(':')?;
            let value = self.value()?;
            match members.iter().find(|(known, _)| *known == key) {
                Some((_, earlier)) if *earlier != value => return None,
                Some(_) => {}
                None => members.push((key, value)),
            }
            self.blanks();
            if self.eat('}').is_some() {
                return Some(Json::Object(members));
            }
            self.eat(',')?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let mut text = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E')) {
            text.push(c);
        }
        // Rust reads more than JSON allows: signs, zeros in front, points without digits.
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let (whole, rest) = unsigned.split_at(unsigned.bytes().take_while(u8::is_ascii_digit).count());
        let fraction = rest.strip_prefix('.');
        let bad = whole.is_empty()
            || (whole.len() > 1 && whole.starts_with('0'))
            || fraction.is_some_and(|fraction| !fraction.starts_with(|c: char| c.is_ascii_digit()));
        if bad { None } else { number_of(&text) }
    }

    fn string(&mut self) -> Option<String> {
        self.eat('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                c if c < ' ' => return None,
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.rest.next()? {
            c @ ('"' | '\\' | '/') => c,
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xe000).contains(&unit) {
                    return char::from_u32(unit.into());
                }
                self.eat('\\')?;
                self.eat('u')?;
                let second = self.unit()?;
                char::decode_utf16([unit, second]).next()?.ok()?
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let mut digits = String::new();
        for _ in 0..4 {
            digits.push(self.rest.next_if(char::is_ascii_hexdigit)?);
        }
        u16::from_str_radix(&digits, 16).ok()
    }
}
