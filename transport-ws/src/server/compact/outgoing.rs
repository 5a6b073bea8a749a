//! A frame on its way out, compressed at the last moment: until then it shares the bytes that the service counts.

use bytes::Bytes;

use super::super::subprotocol::Outgoing;
use crate::compact::ServerFrame;

/// Less is not worth the time.
const COMPRESSED_FROM: usize = 512;

/// Fast: a server compresses for every client anew.
const LEVEL: i32 = 1;

/// A frame, and whether its lines may be compressed.
#[derive(Debug, PartialEq)]
pub(in super::super) struct Frame {
    pub(super) frame: ServerFrame,
    pub(super) compress: bool,
}

impl Outgoing for Frame {
    fn bytes(&self) -> Result<Bytes, String> {
        let compressed = if self.compress { compressed(&self.frame) } else { None };
        compressed.as_ref().unwrap_or(&self.frame).encode().map_err(|error| error.to_string())
    }
}

/// The frame with its lines compressed, if that makes them shorter. Each frame by itself: it tells nothing of others, and
/// between two of them there is no compressor to keep.
fn compressed(frame: &ServerFrame) -> Option<ServerFrame> {
    let ServerFrame::Lines { call, bytes } = frame else { return None };
    if bytes.len() < COMPRESSED_FROM {
        return None;
    }
    let zstd = match zstd::bulk::compress(bytes, LEVEL) {
        Ok(zstd) if zstd.len() < bytes.len() => zstd,
        Ok(_) => return None,
        Err(error) => {
            tracing::error!(%error, "lines cannot be compressed, and are sent as they are");
            return None;
        }
    };
    Some(ServerFrame::CompressedLines { call: *call, length: u32::try_from(bytes.len()).ok()?, zstd: zstd.into() })
}
