//! The frames of Syncline's own subprotocol: values and their bytes, and nothing that acts. `docs/protocol.md` has the rules.
//!
//! One binary WebSocket message is one frame, written by postcard. Reading is total: whatever comes is a frame or an error, and
//! holds a small multiple of the bytes that came at most.

mod request;
#[cfg(test)]
mod tests;

use bytes::Bytes;
pub use request::{Position, Request, Streams, Subscription};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The name of the subprotocol, in `Sec-WebSocket-Protocol`. Another version has another name.
pub const NAME: &str = "syncline.v1";

/// The same, and the server may compress lines.
pub const NAME_WITH_ZSTD: &str = "syncline.v1.zstd";

/// How many bytes of lines a frame has at most, once they are decompressed.
pub const MOST_LINE_BYTES: usize = 64 << 10;

/// How many calls a connection has at once: a server takes so many, and a client makes another connection for more.
pub const MOST_CALLS: usize = 8;

// region: client
/// What a client says. A call is a stream or a question; its number is greater than that of every call before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Opens a stream.
    Open {
        /// The number of the call.
        call: u32,
        /// The token, without a scheme.
        token: String,
        /// How many bytes of lines may be sent before more are granted.
        credit: u64,
        /// What is asked for.
        request: Request,
    },
    /// Asks for a write checkpoint.
    WriteCheckpoint {
        /// The number of the call.
        call: u32,
        /// The token, without a scheme.
        token: String,
        /// The id of the client's database.
        client_id: Option<String>,
    },
    /// Grants a stream more bytes of lines.
    Credit {
        /// The stream.
        call: u32,
        /// How many more; not 0.
        bytes: u64,
    },
    /// Replaces the token of a stream by one of the same identity.
    Token {
        /// The stream.
        call: u32,
        /// The token, without a scheme.
        token: String,
    },
    /// Gives up a call.
    Cancel {
        /// Which one.
        call: u32,
    },
}
// endregion: client

// region: server
/// What a server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The token was accepted, and the stream is open.
    Opened {
        /// The stream.
        call: u32,
    },
    /// The next bytes of a stream's lines, cut anywhere; not none.
    Lines {
        /// The stream.
        call: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// The same, compressed by itself.
    CompressedLines {
        /// The stream.
        call: u32,
        /// How many bytes they are once decompressed. So many count against the credit.
        length: u32,
        /// A frame of Zstandard.
        zstd: Bytes,
    },
    /// The stream has ended in order, after a whole line.
    Ended {
        /// The stream.
        call: u32,
    },
    /// The answer to the question for a write checkpoint.
    WriteCheckpoint {
        /// The call.
        call: u32,
        /// The number.
        number: i64,
    },
    /// The new token of a stream was accepted.
    Renewed {
        /// The stream.
        call: u32,
    },
    /// The call has failed, or was refused. It is over.
    Failed {
        /// The call.
        call: u32,
        /// A `PSYNC_…` code.
        code: String,
        /// What is wrong.
        message: String,
    },
}
// endregion: server

impl ClientFrame {
    /// The frame that these bytes are, all of them.
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        decode(bytes)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// None that is known.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        encode(self, 64)
    }
}

impl ServerFrame {
    /// The frame that these bytes are, all of them.
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        decode(bytes)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// None that is known.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let content = match self {
            Self::Lines { bytes, .. } | Self::CompressedLines { zstd: bytes, .. } => bytes.len(),
            _ => 0,
        };
        encode(self, content + 32)
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// They are no postcard value of a kind that this version has, or are cut off.
    Malformed,
    /// Bytes follow the end of the frame.
    TooLong,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed => f.write_str("a message is no frame of this version"),
            Self::TooLong => f.write_str("bytes follow the end of a frame"),
        }
    }
}

impl std::error::Error for FrameError {}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let (frame, rest) = postcard::take_from_bytes(bytes).map_err(|_| FrameError::Malformed)?;
    if rest.is_empty() { Ok(frame) } else { Err(FrameError::TooLong) }
}

fn encode<T: Serialize>(frame: &T, size: usize) -> Result<Bytes, FrameError> {
    postcard::to_extend(frame, Vec::with_capacity(size)).map(Bytes::from).map_err(|_| FrameError::Malformed)
}
