//! What a failing input looks like, and its smallest part that still fails.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

/// A fuzz target: it panics if something is wrong.
pub(crate) type Target = fn(&[u8]);

/// So long a smaller input is looked for.
const SHRINKING: Duration = Duration::from_secs(20);

thread_local! {
    /// Where the last panic of this thread was, while it is of no interest to anyone else.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one input. `Err` says where the panic was and what it said.
pub(crate) fn attempt(target: Target, input: &[u8]) -> Result<(), (String, String)> {
    listen();
    HEARD.set(Some(String::new()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    let place = HEARD.take().unwrap_or_default();
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        (place, text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// Makes panics of inputs quiet: a thousand of them are made while one is shrunk.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_quiet = HEARD.with_borrow_mut(|heard| match heard {
                Some(place) => {
                    // The first one: a panic that is caught on the way may be followed by another.
                    if place.is_empty()
                        && let Some(location) = info.location()
                    {
                        *place = format!("{}:{}", location.file(), location.line());
                    }
                    true
                }
                None => false,
            });
            if !is_quiet {
                before(info);
            }
        }));
    });
}

/// The smallest part of an input that is found and still panics at the same place.
pub(crate) fn smallest(target: Target, input: &[u8], place: &str) -> Vec<u8> {
    let began = Instant::now();
    let mut best = input.to_vec();
    let mut size = best.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut left_out = false;
        while at < best.len() {
            if began.elapsed() > SHRINKING {
                return best;
            }
            let mut smaller = best.clone();
            smaller.drain(at..(at + size).min(best.len()));
            if attempt(target, &smaller).is_err_and(|(other, _)| other == place) {
                best = smaller;
                left_out = true;
            } else {
                at += size;
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !left_out {
            break;
        }
    }
    best
}

/// An input in a form to read, in one to paste, and the command that repeats it.
pub(crate) fn describe(target: &str, input: &[u8]) -> String {
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "input of {} bytes: b\"{}\"\nrepeat with: FUZZ_INPUT={hex} cargo nextest run --workspace --all-features -E \
         'test(/targets::{target}$/)'\nonce it is mended, keep it: printf {hex} | xxd -r -p > fuzz/seeds/{target}/regression-…",
        input.len(),
        input.escape_ascii()
    )
}

/// Bytes of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.trim().chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    digits.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).ok().map(|[high, low]| high << 4 | low)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dislikes_ab(input: &[u8]) {
        assert!(!(input.contains(&b'a') && input.contains(&b'b')), "a and b");
        assert!(input.len() < 1_000, "too long");
    }

    #[test]
    fn a_failing_input_is_told_and_shrunk() {
        let input = [b"..a..".repeat(9), b"b".to_vec(), b".".repeat(2_000)].concat();
        let (place, text) = attempt(dislikes_ab, &input).unwrap_err();
        assert!(place.contains("failure.rs:") && text.contains("a and b"), "{place}: {text}");
        assert_eq!(smallest(dislikes_ab, &input, &place), b"ab");
        assert_eq!(attempt(dislikes_ab, b"a"), Ok(()));
        let told = describe("t", b"a\"\n");
        assert!(told.contains(r#"b"a\"\n""#) && told.contains("FUZZ_INPUT=61220a "), "{told}");
    }

    #[test]
    fn digits_are_bytes() {
        assert_eq!(from_hex("00ff7F\n").unwrap(), [0, 255, 127]);
        assert_eq!(from_hex(""), Some(Vec::new()));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
