//! Lines and columns of a text.

/// Finds the line of a place.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
        Self { text, starts }
    }

    /// The line of a byte, from 1, and the byte at which it begins.
    pub(super) fn line(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        (line, self.starts[line - 1])
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(super) fn at(&self, offset: usize) -> (usize, usize) {
        let (line, start) = self.line(offset);
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_characters() {
        let lines = Lines::new("a\nüb\n");
        assert_eq!([0, 1, 2, 4, 6].map(|at| lines.at(at)), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]);
        assert_eq!(lines.at(99).0, 3);
    }
}
