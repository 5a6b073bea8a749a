//! Reading numbers, strings and slices without ever leaving the buffer.

use bytes::Bytes;

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a message ends before its {0}")]
    Short(&'static str),
    #[error("a message has an unknown {0} `{code}`", code = .1.escape_ascii())]
    Unknown(&'static str, u8),
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("a message has {0} bytes too many")]
    Long(usize),
    #[error("{0}")]
    Row(String),
}

/// A position in a message. Slices share the message's buffer.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let chunk = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(DecodeError::Short(what))?;
        self.at += N;
        Ok(*chunk)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// A string up to its zero byte.
    pub(super) fn string(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).ok_or(DecodeError::Short(what))?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| DecodeError::NotUtf8(what))?.to_owned();
        self.at += end + 1;
        Ok(text)
    }

    /// A slice with its length in four bytes before it.
    pub(super) fn slice(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.u32(what)?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|&end| end <= self.bytes.len())
            .ok_or(DecodeError::Short(what))?;
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(slice)
    }

    /// As [`slice`](Self::slice), but only passes over it.
    pub(super) fn skip(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let length = usize::try_from(self.u32(what)?).map_err(|_| DecodeError::Short(what))?;
        self.at = self.at.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(DecodeError::Short(what))?;
        Ok(())
    }

    /// Everything between an earlier position and this one.
    pub(super) fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start.min(self.at)..self.at)
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The message must end here.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len().saturating_sub(self.at) {
            0 => Ok(()),
            more => Err(DecodeError::Long(more)),
        }
    }
}
