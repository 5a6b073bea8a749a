//! Looking for a text in a stream of bytes, cut anywhere.

/// What every format writes once a checkpoint is complete, and nowhere else in these tables.
pub(crate) const COMPLETE: &[u8] = b"checkpoint_complete";

/// Counts a text in bytes that come in pieces.
pub(crate) struct Occurrences {
    text: &'static [u8],
    /// The end of what came before, too short to hold the text.
    tail: Vec<u8>,
}

impl Occurrences {
    pub(crate) fn of(text: &'static [u8]) -> Self {
        Self { text, tail: Vec::new() }
    }

    /// How often the text ends in this piece.
    pub(crate) fn count(&mut self, piece: &[u8]) -> usize {
        let keep = self.text.len() - 1;
        // The text may begin in what came before: that needs no more than the first bytes of the piece.
        let mut seam = std::mem::take(&mut self.tail);
        seam.extend_from_slice(&piece[..piece.len().min(keep)]);
        let found = self.within(&seam) + self.within(piece);
        if piece.len() >= keep {
            seam.clear();
            seam.extend_from_slice(&piece[piece.len() - keep..]);
        } else {
            seam.drain(..seam.len().saturating_sub(keep));
        }
        self.tail = seam;
        found
    }

    fn within(&self, bytes: &[u8]) -> usize {
        bytes.windows(self.text.len()).filter(|window| *window == self.text).count()
    }
}

#[cfg(test)]
mod tests {
    use super::{COMPLETE, Occurrences};

    #[test]
    fn a_text_is_found_once_however_the_stream_is_cut() {
        let stream = b"{\"checkpoint_complete\":1} checkpoint_complete, checkpoint_complet";
        for size in 1..=stream.len() {
            let mut completions = Occurrences::of(COMPLETE);
            let found: usize = stream.chunks(size).map(|piece| completions.count(piece)).sum();
            assert_eq!(found, 2, "in pieces of {size}");
        }
    }
}
