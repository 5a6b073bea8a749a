//! Payloads that come in several frames.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::{Frame, FrameError, MAX_31, Payload};

/// Puts the fragments of payloads together, within a limit for all of them.
///
/// A first frame of its own type is followed by PAYLOAD frames: first all metadata, then all data. Frames of other streams
/// may come between.
#[derive(Debug)]
pub struct Reassembly {
    limit: usize,
    max_streams: usize,
    held: usize,
    partial: BTreeMap<u32, Partial>,
}

#[derive(Debug)]
struct Partial {
    /// The first frame, without its payload.
    first: Frame,
    metadata: Option<BytesMut>,
    data: BytesMut,
}

impl Reassembly {
    /// Holds at most so many bytes, of at most so many streams.
    pub fn new(limit: usize, max_streams: usize) -> Self {
        Self { limit, max_streams, held: 0, partial: BTreeMap::new() }
    }

    /// How many payloads have begun and lack their end.
    pub fn open(&self) -> usize {
        self.partial.len()
    }

    /// The bytes of all fragments that wait for their end.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a frame; gives back a whole one: this one, or the one that it was the last part of.
    ///
    /// # Errors
    /// `Malformed` if it cannot stand where it does, `TooLarge` if the limits are exceeded.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Frame>, FrameError> {
        let stream = frame.stream();
        let Some(partial) = self.partial.get_mut(&stream) else {
            return match frame {
                Frame::RequestStream { follows: true, .. } | Frame::Payload { follows: true, .. } => {
                    self.begin(frame).map(|()| None)
                }
                whole => Ok(Some(whole)),
            };
        };
        match frame {
            Frame::Payload { follows, complete, payload, .. } => {
                self.held += payload.len();
                if self.held > self.limit {
                    return Err(FrameError::TooLarge);
                }
                partial.append(payload)?;
                if let Frame::Payload { complete: whole, .. } = &mut partial.first {
                    *whole |= complete;
                }
                if follows {
                    return Ok(None);
                }
                Ok(self.finish(stream))
            }
            // Granted before the request is whole.
            Frame::RequestN { n, .. } if n > 0 && n <= MAX_31 => {
                if let Frame::RequestStream { initial, .. } = &mut partial.first {
                    *initial = initial.saturating_add(n).min(MAX_31);
                }
                Ok(None)
            }
            Frame::Cancel { .. } | Frame::Error { .. } => {
                self.finish(stream);
                Ok(Some(frame))
            }
            _ => Err(FrameError::Malformed("a frame stands amid the fragments of another")),
        }
    }

    fn begin(&mut self, mut frame: Frame) -> Result<(), FrameError> {
        if self.partial.len() >= self.max_streams {
            return Err(FrameError::TooLarge);
        }
        let stream = frame.stream();
        let (Frame::RequestStream { payload, .. } | Frame::Payload { payload, .. }) = &mut frame else { return Ok(()) };
        let payload = std::mem::take(payload);
        self.held += payload.len();
        if self.held > self.limit {
            return Err(FrameError::TooLarge);
        }
        let metadata = payload.metadata.map(|metadata| BytesMut::from(&metadata[..]));
        let data = BytesMut::from(&payload.data[..]);
        self.partial.insert(stream, Partial { first: frame, metadata, data });
        Ok(())
    }

    fn finish(&mut self, stream: u32) -> Option<Frame> {
        let Partial { first, metadata, data } = self.partial.remove(&stream)?;
        let metadata = metadata.map(BytesMut::freeze);
        self.held = self.held.saturating_sub(metadata.as_ref().map_or(0, Bytes::len) + data.len());
        let whole = Payload { metadata, data: data.freeze() };
        Some(match first {
            Frame::RequestStream { stream, initial, .. } => {
                Frame::RequestStream { stream, initial, follows: false, payload: whole }
            }
            Frame::Payload { stream, complete, next, .. } => {
                Frame::Payload { stream, follows: false, complete, next, payload: whole }
            }
            other => other,
        })
    }
}

impl Partial {
    fn append(&mut self, payload: Payload) -> Result<(), FrameError> {
        if let Some(more) = payload.metadata {
            match &mut self.metadata {
                Some(metadata) if self.data.is_empty() => metadata.extend_from_slice(&more),
                _ => return Err(FrameError::Malformed("metadata follows data")),
            }
        }
        self.data.extend_from_slice(&payload.data);
        Ok(())
    }
}
