//! Arrays, composites and ranges as JSON.

use syncline_core::json;

use super::mapping::Mapping;

/// The text of one element, with its quotes and escapes undone.
#[derive(Debug, PartialEq, Eq)]
struct Element {
    text: String,
    quoted: bool,
}

/// Walks over the text of a nested value.
#[derive(Debug)]
struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.as_bytes().first().copied()
    }

    /// Passes over this byte, which is ASCII; false if another one stands there.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// An element up to one of the bytes in `ends`, which are ASCII and stay. Inside quotes a doubled quote stands for
    /// one (composites), and a backslash takes the next character as it is (both).
    fn element(&mut self, ends: &[u8]) -> Option<Element> {
        let mut element = Element { text: String::new(), quoted: false };
        let mut inside = false;
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => element.text.push(characters.next()?.1),
                '"' if inside && self.rest.as_bytes().get(at + 1) == Some(&b'"') => {
                    characters.next();
                    element.text.push('"');
                }
                '"' => {
                    inside = !inside;
                    element.quoted = true;
                }
                _ if !inside && u8::try_from(character).is_ok_and(|byte| ends.contains(&byte)) => {
                    self.rest = &self.rest[at..];
                    return Some(element);
                }
                _ => element.text.push(character),
            }
        }
        None
    }
}

/// `{1,NULL,"a b"}`, nested for more dimensions, perhaps with bounds before it (`[0:1]={…}`).
pub(super) fn write_array(element: &Mapping, delimiter: u8, text: &str, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    let text = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut cursor = Cursor { rest: text };
    write_dimension(element, delimiter, &mut cursor, out, depth)?;
    cursor.rest.is_empty().then_some(())
}

fn write_dimension(
    element: &Mapping,
    delimiter: u8,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    if !cursor.take(b'{') {
        return None;
    }
    out.push(b'[');
    if !cursor.take(b'}') {
        loop {
            if cursor.peek() == Some(b'{') {
                write_dimension(element, delimiter, cursor, out, depth)?;
            } else {
                let found = cursor.element(&[delimiter, b'}'])?;
                match (found.quoted, found.text.as_str()) {
                    (false, "NULL") => out.extend_from_slice(b"null"),
                    (false, "") => return None,
                    (_, text) => element.write_json(text, out, depth)?,
                }
            }
            if cursor.take(b'}') {
                break;
            }
            if !cursor.take(delimiter) {
                return None;
            }
            out.push(b',');
        }
    }
    out.push(b']');
    Some(())
}

/// `("a ""b"", c",9,)`: nothing between commas is NULL.
pub(super) fn write_composite(
    members: &[(String, Mapping)],
    text: &str,
    out: &mut Vec<u8>,
    depth: usize,
) -> Option<()> {
    let mut cursor = Cursor { rest: text };
    if !cursor.take(b'(') {
        return None;
    }
    out.push(b'{');
    for (index, (name, mapping)) in members.iter().enumerate() {
        let found = cursor.element(b",)")?;
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, name);
        out.push(b':');
        if found.text.is_empty() && !found.quoted {
            out.extend_from_slice(b"null");
        } else {
            mapping.write_json(&found.text, out, depth)?;
        }
        if !cursor.take(b',') {
            break;
        }
    }
    out.push(b'}');
    (cursor.take(b')') && cursor.rest.is_empty()).then_some(())
}

/// `[1,5)`, `(,5]` or `empty`.
pub(super) fn write_range(bound: &Mapping, text: &str, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    let mut cursor = Cursor { rest: text };
    write_one_range(bound, &mut cursor, out, depth)?;
    cursor.rest.is_empty().then_some(())
}

fn write_one_range(bound: &Mapping, cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    if let Some(rest) = cursor.rest.strip_prefix("empty") {
        cursor.rest = rest;
        json::write_string(out, "empty");
        return Some(());
    }
    let lower_exclusive = cursor.take(b'(');
    if !lower_exclusive && !cursor.take(b'[') {
        return None;
    }
    let lower = cursor.element(b",")?;
    cursor.take(b',');
    let upper = cursor.element(b")]")?;
    let upper_exclusive = cursor.take(b')');
    if !upper_exclusive {
        cursor.take(b']');
    }
    let mut write = |name: &str, element: &Element| {
        out.extend_from_slice(name.as_bytes());
        if element.text.is_empty() && !element.quoted {
            out.extend_from_slice(b"null");
            Some(())
        } else {
            bound.write_json(&element.text, out, depth)
        }
    };
    write("{\"lower\":", &lower)?;
    write(",\"upper\":", &upper)?;
    let flags = format!(
        ",\"lower_exclusive\":{},\"upper_exclusive\":{}}}",
        u8::from(lower_exclusive),
        u8::from(upper_exclusive)
    );
    out.extend_from_slice(flags.as_bytes());
    Some(())
}

/// `{[1,2),[4,5)}`.
pub(super) fn write_multirange(bound: &Mapping, text: &str, out: &mut Vec<u8>, depth: usize) -> Option<()> {
    let mut cursor = Cursor { rest: text };
    if !cursor.take(b'{') {
        return None;
    }
    out.push(b'[');
    if cursor.peek() != Some(b'}') {
        loop {
            write_one_range(bound, &mut cursor, out, depth)?;
            if !cursor.take(b',') {
                break;
            }
            out.push(b',');
        }
    }
    out.push(b']');
    (cursor.take(b'}') && cursor.rest.is_empty()).then_some(())
}
