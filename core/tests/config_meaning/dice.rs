//! Choices: what is made of them is made again from them, and simpler of fewer.

/// A row of numbers, each of which decides one thing; when they have run out, everything is the first of its choices.
#[derive(Debug)]
pub(crate) struct Dice<'a> {
    left: &'a [u8],
    names: usize,
}

impl<'a> Dice<'a> {
    pub(crate) fn new(choices: &'a [u8]) -> Self {
        Self { left: choices, names: 0 }
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        usize::from(*first) % sides
    }

    pub(crate) fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.roll(texts.len())]
    }

    /// Once in `sides` times.
    pub(crate) fn rarely(&mut self, sides: usize) -> bool {
        self.roll(sides) + 1 == sides
    }

    /// A name that nothing else has.
    pub(crate) fn name(&mut self, start: &str) -> String {
        self.names += 1;
        format!("{start}{}", self.names)
    }
}
