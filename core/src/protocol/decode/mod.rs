//! Decoder: bytes as they arrive, cut anywhere, into lines as a client reads them.

mod bson;
mod bson_reader;
mod compact;
mod ndjson;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::protocol::{ClientLine, Framing};

/// Cuts a stream of bytes into lines and reads them.
///
/// Texts of operations are slices of the bytes that were pushed, as far as they hold no escapes: they keep those bytes
/// alive, so what is stored for long is to be copied. Names in checkpoints are copies.
///
/// # Errors
/// `Protocol` for anything that is no line. The stream cannot be read further then: every later call fails alike.
#[derive(Debug)]
pub struct LineDecoder {
    framing: Framing,
    max_line_bytes: usize,
    /// The beginning of a line whose end has not arrived.
    partial: BytesMut,
    /// What was pushed and not looked at.
    waiting: VecDeque<Bytes>,
    failed: Option<Error>,
}

impl LineDecoder {
    /// A limit that holds every line of the official service: rows have up to 15 MiB, and escapes may double them.
    pub const DEFAULT_LIMIT: usize = 64 << 20;

    /// A decoder of an empty stream. A line of more than `max_line_bytes` is an error, before it is held in memory.
    pub fn new(framing: Framing, max_line_bytes: usize) -> Self {
        Self { framing, max_line_bytes, partial: BytesMut::new(), waiting: VecDeque::new(), failed: None }
    }

    /// Takes bytes that follow those of the last call. Read all lines with [`next`](Self::next) before the next push:
    /// what is pushed is kept until then.
    pub fn push(&mut self, bytes: Bytes) {
        if self.failed.is_none() && !bytes.is_empty() {
            self.waiting.push_back(bytes);
        }
    }

    /// The next line that has arrived as a whole.
    ///
    /// # Errors
    /// `Protocol` if it is too long, or no line.
    #[allow(clippy::should_implement_trait, reason = "an iterator would end, while more may be pushed here")]
    pub fn next(&mut self) -> Result<Option<ClientLine>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.read_line().inspect_err(|error| self.fail(error))
    }

    /// Ends the stream: the last line, if it lacked only its newline.
    ///
    /// # Errors
    /// `Protocol` if the stream ended inside a line.
    pub fn finish(&mut self) -> Result<Option<ClientLine>> {
        if let Some(line) = self.next()? {
            return Ok(Some(line));
        }
        let line = self.partial.split().freeze();
        let whole = match self.framing {
            Framing::Bson | Framing::Compact if line.is_empty() => Ok(None),
            Framing::Bson => Err(Error::protocol("the stream ended inside a document")),
            Framing::Compact => Err(Error::protocol("the stream ended inside a line")),
            Framing::Ndjson | Framing::NdjsonNested if is_blank(&line) => Ok(None),
            Framing::Ndjson | Framing::NdjsonNested => {
                ndjson::read(line).map(Some).map_err(|error| error.context("the stream ended inside a line"))
            }
        };
        whole.inspect_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: &Error) {
        self.failed = Some(error.clone());
        self.partial = BytesMut::new();
        self.waiting = VecDeque::new();
    }

    fn read_line(&mut self) -> Result<Option<ClientLine>> {
        loop {
            let line = match self.framing {
                Framing::Bson | Framing::Compact => self.cut_document()?,
                Framing::Ndjson | Framing::NdjsonNested => self.cut_text()?,
            };
            return match (line, self.framing) {
                (None, _) => Ok(None),
                (Some(line), Framing::Bson) => bson::read(&line).map(Some),
                (Some(line), Framing::Compact) => compact::read(&line).map(Some),
                (Some(line), _) if is_blank(&line) => continue,
                (Some(line), _) => ndjson::read(line).map(Some),
            };
        }
    }

    /// The next text that ends with a newline.
    fn cut_text(&mut self) -> Result<Option<Bytes>> {
        while let Some(mut bytes) = self.waiting.pop_front() {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.keep(&bytes)?;
                continue;
            };
            let line = bytes.split_to(end + 1);
            if !bytes.is_empty() {
                self.waiting.push_front(bytes);
            }
            return self.complete(line).map(Some);
        }
        Ok(None)
    }

    /// The next document, or compact line: it begins with its own length.
    fn cut_document(&mut self) -> Result<Option<Bytes>> {
        while let Some(mut bytes) = self.waiting.pop_front() {
            let mut start = [0; 4];
            let known = self.partial.len().min(4);
            start[..known].copy_from_slice(&self.partial[..known]);
            let missing = (4 - known).min(bytes.len());
            start[known..known + missing].copy_from_slice(&bytes[..missing]);
            if known + missing < 4 {
                self.keep(&bytes)?;
                continue;
            }
            let length = usize::try_from(i32::from_le_bytes(start))
                .ok()
                .filter(|length| *length >= bson_reader::SHORTEST)
                .ok_or_else(|| Error::protocol("a line states an impossible length"))?;
            if length > self.max_line_bytes {
                return Err(self.too_long());
            }
            let missing = length - self.partial.len();
            if bytes.len() < missing {
                self.keep(&bytes)?;
                continue;
            }
            let document = bytes.split_to(missing);
            if !bytes.is_empty() {
                self.waiting.push_front(bytes);
            }
            return self.complete(document).map(Some);
        }
        Ok(None)
    }

    /// Puts bytes to the beginning of a line.
    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if self.partial.len() + bytes.len() > self.max_line_bytes {
            return Err(self.too_long());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// The line that ends with these bytes: themselves, unless it began in earlier ones.
    fn complete(&mut self, bytes: Bytes) -> Result<Bytes> {
        if self.partial.is_empty() && bytes.len() <= self.max_line_bytes {
            return Ok(bytes);
        }
        self.keep(&bytes)?;
        Ok(self.partial.split().freeze())
    }

    fn too_long(&self) -> Error {
        Error::protocol(format!(
            "a line of the stream is longer than {} bytes: a row is too large for this client, unless \
             `ClientLimits::line_bytes` is raised",
            self.max_line_bytes
        ))
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// The checksum that a whole number states, signed or unsigned.
fn checksum(number: i64) -> Option<Checksum> {
    (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&number).then(|| Checksum::from_wire(number))
}

/// The whole number that a double is.
fn whole(number: f64) -> Option<i64> {
    // All that is looked for fits 33 bits, far inside the range where every whole double is exact.
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}
