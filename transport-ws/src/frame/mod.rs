//! The frames of RSocket 1.0, as far as sync streams use them: values and their bytes, and nothing that acts.
//!
//! One binary WebSocket message is one frame, without a length before it. All numbers are big-endian. Reading is total:
//! whatever comes is a frame or a [`FrameError`], and holds no more memory than the bytes that came.

mod decode;
mod encode;
mod reassembly;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
pub use reassembly::Reassembly;

/// The largest stream id, grant and position in time that RSocket has: numbers are 31 bits wide.
pub const MAX_31: u32 = 0x7fff_ffff;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens the connection; the first frame of a client.
    Setup(Setup),
    /// A sign of life.
    Keepalive {
        /// The other side must send it back.
        respond: bool,
        /// Where the sender stands in a stream of bytes that can be resumed; 0 without resumption.
        position: u64,
        /// Comes back with the answer.
        data: Bytes,
    },
    /// Asks for a stream.
    RequestStream {
        /// The stream's id, chosen by the client.
        stream: u32,
        /// How many payloads may be sent before more are granted.
        initial: u32,
        /// More of the payload follows in PAYLOAD frames.
        follows: bool,
        /// What is asked for.
        payload: Payload,
    },
    /// Grants more payloads.
    RequestN {
        /// The stream.
        stream: u32,
        /// How many more.
        n: u32,
    },
    /// Ends a stream from the side that asked for it.
    Cancel {
        /// The stream.
        stream: u32,
    },
    /// An item of a stream, its end, or both.
    Payload {
        /// The stream.
        stream: u32,
        /// More of the payload follows in PAYLOAD frames.
        follows: bool,
        /// The stream has ended.
        complete: bool,
        /// There is an item in it.
        next: bool,
        /// The item.
        payload: Payload,
    },
    /// A stream, or the connection, has failed.
    Error {
        /// The stream, or 0 for the connection.
        stream: u32,
        /// One of the codes of [`ErrorCode`], or another.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
    /// A frame of a type that sync streams do not use.
    Other {
        /// The stream, or 0.
        stream: u32,
        /// The number of its type.
        kind: u8,
        /// It may be ignored.
        ignorable: bool,
    },
}

/// What a client states when it opens a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Major and minor version of RSocket.
    pub version: (u16, u16),
    /// Milliseconds between signs of life.
    pub keepalive: u32,
    /// Milliseconds without one after which the other side is gone.
    pub lifetime: u32,
    /// Resumption is asked for, with this token.
    pub resume_token: Option<Bytes>,
    /// Leases are asked for.
    pub lease: bool,
    /// The MIME type of all metadata.
    pub metadata_type: String,
    /// The MIME type of all requests.
    pub data_type: String,
    /// Credentials.
    pub payload: Payload,
}

/// Metadata and data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// Not there, and empty, are two things.
    pub metadata: Option<Bytes>,
    /// Not there and empty are one.
    pub data: Bytes,
}

impl Payload {
    /// Data alone.
    pub fn of(data: Bytes) -> Self {
        Self { metadata: None, data }
    }

    fn len(&self) -> usize {
        self.metadata.as_ref().map_or(0, Bytes::len) + self.data.len()
    }
}

/// The code of an ERROR frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The SETUP frame makes no sense.
    pub const INVALID_SETUP: Self = Self(0x1);
    /// The SETUP frame asks for what is not there.
    pub const UNSUPPORTED_SETUP: Self = Self(0x2);
    /// The server does not take this client.
    pub const REJECTED_SETUP: Self = Self(0x3);
    /// The connection has failed.
    pub const CONNECTION_ERROR: Self = Self(0x101);
    /// The connection ends in order.
    pub const CONNECTION_CLOSE: Self = Self(0x102);
    /// The stream has failed.
    pub const APPLICATION_ERROR: Self = Self(0x201);
    /// The request was not looked at.
    pub const REJECTED: Self = Self(0x202);
    /// The stream was given up.
    pub const CANCELED: Self = Self(0x203);
    /// The request makes no sense.
    pub const INVALID: Self = Self(0x204);
}

/// Why bytes are no frame, or a value cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// They break the rules of RSocket in this way.
    Malformed(&'static str),
    /// More than the limit.
    TooLarge,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => f.write_str(reason),
            Self::TooLarge => f.write_str("more bytes than the limit allows"),
        }
    }
}

impl std::error::Error for FrameError {}

const SETUP: u8 = 0x01;
const KEEPALIVE: u8 = 0x03;
const REQUEST_RESPONSE: u8 = 0x04;
const REQUEST_CHANNEL: u8 = 0x07;
const REQUEST_STREAM: u8 = 0x06;
const REQUEST_N: u8 = 0x08;
const CANCEL: u8 = 0x09;
const PAYLOAD: u8 = 0x0a;
const ERROR: u8 = 0x0b;

const IGNORE: u16 = 0x200;
const METADATA: u16 = 0x100;
const FOLLOWS: u16 = 0x080;
const RESPOND: u16 = 0x080;
const RESUME: u16 = 0x080;
const COMPLETE: u16 = 0x040;
const LEASE: u16 = 0x040;
const NEXT: u16 = 0x020;

/// Metadata states its length in three bytes.
const MAX_METADATA: usize = 0x00ff_ffff;

impl Frame {
    /// The stream that it belongs to; 0 for the connection.
    pub fn stream(&self) -> u32 {
        match self {
            Self::Setup(_) | Self::Keepalive { .. } => 0,
            Self::RequestStream { stream, .. }
            | Self::RequestN { stream, .. }
            | Self::Cancel { stream }
            | Self::Payload { stream, .. }
            | Self::Error { stream, .. }
            | Self::Other { stream, .. } => *stream,
        }
    }

    /// Whether it asks for something other than a stream: an answer or a channel, to be refused on its own stream.
    pub fn is_other_request(&self) -> bool {
        matches!(self, Self::Other { kind: REQUEST_RESPONSE | REQUEST_CHANNEL, .. })
    }
}
