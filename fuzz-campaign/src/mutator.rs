//! Inputs: the seeds, then mutations of them without end.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::chance::Chance;

/// Inputs are not longer than this: what goes wrong with more goes wrong with less.
const LONGEST: usize = 16 << 10;
/// Changes that are made to one input, at most.
const CHANGES: usize = 8;
/// Numbers at which something overflows, in decimal digits.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "255",
    "256",
    "-2147483648",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "0.5",
];
/// Bytes that mean something in many formats.
const BYTES: [u8; 16] = [0, 1, 2, 0x7f, 0x80, 0xff, b'"', b'\\', b'\n', b' ', b'{', b'[', b'(', b',', b':', b'\''];

/// Makes the inputs of a target.
#[derive(Debug)]
pub(crate) struct Mutator {
    seeds: Vec<Vec<u8>>,
    /// Words of the seeds: the names of the language that the target understands.
    words: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seeds: Vec<Vec<u8>>) -> Self {
        let words: BTreeSet<&[u8]> = seeds.iter().flat_map(|seed| words(seed)).collect();
        let words = words.into_iter().map(<[u8]>::to_vec).collect();
        Self { seeds, words }
    }

    /// The input with this number: always the same.
    pub(crate) fn input(&self, number: u64) -> Vec<u8> {
        if let Some(seed) = usize::try_from(number).ok().and_then(|number| self.seeds.get(number)) {
            return seed.clone();
        }
        let mut chance = Chance::new(number);
        let mut input = self.seed(&mut chance).to_vec();
        // Mostly few changes, so that what is deep in a format is reached.
        let changes = 1 + chance.below(CHANGES).min(chance.below(CHANGES));
        for _ in 0..changes {
            self.change(&mut input, &mut chance);
        }
        input.truncate(LONGEST);
        input
    }

    fn seed(&self, chance: &mut Chance) -> &[u8] {
        if self.seeds.is_empty() { &[] } else { &self.seeds[chance.below(self.seeds.len())] }
    }

    fn change(&self, input: &mut Vec<u8>, chance: &mut Chance) {
        match chance.below(15) {
            0 | 1 => {
                if let Some(byte) = at(input, chance) {
                    *byte ^= 1 << chance.below(8);
                }
            }
            2 => {
                if let Some(byte) = at(input, chance) {
                    *byte = *chance.pick(&BYTES);
                }
            }
            3 => {
                if let Some(byte) = at(input, chance) {
                    *byte = chance.byte();
                }
            }
            4 => {
                let part = part(input, chance, 16);
                input.drain(part);
            }
            5 => {
                let part = part(input, chance, usize::MAX);
                input.drain(part);
            }
            6 => input.truncate(chance.below(input.len() + 1)),
            7 => {
                // Once more, or often: what is nested grows deep by it.
                let copy = input[part(input, chance, 48)].to_vec();
                let times = if chance.below(8) == 0 { 1 + chance.below(2_000) } else { 1 };
                let copies = copy.repeat(times.min(LONGEST / copy.len().max(1)));
                insert(input, &copies, chance);
            }
            8 => {
                let copy = input[part(input, chance, 64)].to_vec();
                replace(input, &copy, chance);
            }
            9 | 10 => {
                if !self.words.is_empty() {
                    let word = chance.pick(&self.words);
                    if chance.below(2) == 0 {
                        insert(input, word, chance)
                    } else {
                        self.replace_word(input, word, chance)
                    }
                }
            }
            11 => {
                let number = chance.pick(&NUMBERS).as_bytes();
                match one_of(input, chance, u8::is_ascii_digit) {
                    Some(digits) => drop(input.splice(digits, number.iter().copied())),
                    None => insert(input, number, chance),
                }
            }
            12 => {
                // A length, a count or an id in binary.
                let number: u32 = *chance.pick(&[0, 1, 5, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
                let bytes = if chance.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let width = *chance.pick(&[1, 2, 4]);
                replace(input, &bytes[..width], chance);
            }
            13 => {
                let bytes: Vec<u8> = (0..1 + chance.below(24)).map(|_| chance.byte()).collect();
                insert(input, &bytes, chance);
            }
            _ => {
                // The beginning of one and the end of another.
                let other = self.seed(chance);
                let (keep, from) = (chance.below(input.len() + 1), chance.below(other.len() + 1));
                input.truncate(keep);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(2 * LONGEST);
    }

    fn replace_word(&self, input: &mut Vec<u8>, word: &[u8], chance: &mut Chance) {
        match one_of(input, chance, is_of_word) {
            Some(place) => drop(input.splice(place, word.iter().copied())),
            None => insert(input, word, chance),
        }
    }
}

fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

fn words(seed: &[u8]) -> impl Iterator<Item = &[u8]> {
    seed.split(|byte| !is_of_word(byte)).filter(|word| (2..=24).contains(&word.len()))
}

/// A run of such bytes, around or after a place that is drawn.
fn one_of(input: &[u8], chance: &mut Chance, is: impl Fn(&u8) -> bool) -> Option<Range<usize>> {
    let from = chance.below(input.len());
    let hit = from + input.get(from..)?.iter().position(&is)?;
    let start = input[..hit].iter().rposition(|byte| !is(byte)).map_or(0, |before| before + 1);
    let end = input[hit..].iter().position(|byte| !is(byte)).map_or(input.len(), |length| hit + length);
    Some(start..end)
}

fn at<'a>(input: &'a mut [u8], chance: &mut Chance) -> Option<&'a mut u8> {
    let place = chance.below(input.len());
    input.get_mut(place)
}

fn part(input: &[u8], chance: &mut Chance, longest: usize) -> Range<usize> {
    let start = chance.below(input.len() + 1);
    let length = chance.below((input.len() - start).min(longest).saturating_add(1));
    start..start + length
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], chance: &mut Chance) {
    let place = chance.below(input.len() + 1);
    input.splice(place..place, bytes.iter().copied());
}

/// Puts bytes over as many others.
fn replace(input: &mut Vec<u8>, bytes: &[u8], chance: &mut Chance) {
    let place = chance.below(input.len() + 1);
    let end = (place + bytes.len()).min(input.len());
    input.splice(place..end, bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_makes_the_same_input_every_time_and_others_differ() {
        let seeds = || vec![b"{\"op_id\":\"12\",\"data\":[1,2]}".to_vec(), b"SELECT * FROM lists".to_vec(), Vec::new()];
        let (one, other) = (Mutator::new(seeds()), Mutator::new(seeds()));
        let inputs: Vec<_> = (0..2_000).map(|number| one.input(number)).collect();
        assert_eq!(inputs[..3], seeds());
        assert!(inputs.iter().zip(0..).all(|(input, number)| *input == other.input(number)));
        let different: BTreeSet<_> = inputs.iter().collect();
        assert!(different.len() > 1_500, "only {} different inputs", different.len());
        assert!(inputs.iter().all(|input| input.len() <= LONGEST));
        assert!(inputs.iter().any(|input| input.len() > 1_000));
    }

    #[test]
    fn without_seeds_there_are_inputs_too() {
        let mutator = Mutator::new(Vec::new());
        assert!((0..100).any(|number| !mutator.input(number).is_empty()));
    }

    #[test]
    fn words_and_numbers_are_found_where_they_stand() {
        let mut chance = Chance::new(1);
        for _ in 0..100 {
            let found = one_of(b"--abc1--", &mut chance, is_of_word);
            assert!(found.is_none() || found == Some(2..6), "{found:?}");
        }
        assert_eq!(one_of(b"--", &mut chance, is_of_word), None);
        assert_eq!(one_of(b"", &mut chance, is_of_word), None);
        assert_eq!(words(b"a SELECT \"op_id\"").collect::<Vec<_>>(), [b"SELECT".as_slice(), b"op_id"]);
    }
}
