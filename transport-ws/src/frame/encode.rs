//! From a frame to bytes.

use bytes::{BufMut, Bytes};

use super::{
    CANCEL, COMPLETE, ERROR, FOLLOWS, Frame, FrameError, IGNORE, KEEPALIVE, LEASE, MAX_METADATA, METADATA, NEXT,
    PAYLOAD, Payload, REQUEST_N, REQUEST_STREAM, RESPOND, RESUME, SETUP, Setup,
};

/// Fixed parts of every frame but SETUP fit in so many bytes.
const HEADER: usize = 17;

impl Frame {
    /// Its bytes. A frame of a type that is not used has no content.
    ///
    /// # Errors
    /// `TooLarge` if a part is larger than its length can state: metadata, a MIME type, a resume token.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let mut out = Vec::with_capacity(HEADER + self.content());
        match self {
            Self::Setup(setup) => put_setup(&mut out, setup)?,
            Self::Keepalive { respond, position, data } => {
                put_head(&mut out, 0, KEEPALIVE, on(*respond, RESPOND));
                out.put_u64(*position);
                out.put_slice(data);
            }
            Self::RequestStream { stream, initial, follows, payload } => {
                put_head(&mut out, *stream, REQUEST_STREAM, on(*follows, FOLLOWS) | metadata_flag(payload));
                out.put_u32(*initial);
                put_payload(&mut out, payload)?;
            }
            Self::RequestN { stream, n } => {
                put_head(&mut out, *stream, REQUEST_N, 0);
                out.put_u32(*n);
            }
            Self::Cancel { stream } => put_head(&mut out, *stream, CANCEL, 0),
            Self::Payload { stream, follows, complete, next, payload } => {
                let flags = on(*follows, FOLLOWS) | on(*complete, COMPLETE) | on(*next, NEXT) | metadata_flag(payload);
                put_head(&mut out, *stream, PAYLOAD, flags);
                put_payload(&mut out, payload)?;
            }
            Self::Error { stream, code, message } => {
                put_head(&mut out, *stream, ERROR, 0);
                out.put_u32(code.0);
                out.put_slice(message.as_bytes());
            }
            Self::Other { stream, kind, ignorable } => put_head(&mut out, *stream, *kind, on(*ignorable, IGNORE)),
        }
        Ok(out.into())
    }

    /// Bytes of variable length in it, so that a large line is not copied twice.
    fn content(&self) -> usize {
        match self {
            Self::Setup(setup) => 64 + setup.payload.len(),
            Self::Keepalive { data, .. } => data.len(),
            Self::RequestStream { payload, .. } | Self::Payload { payload, .. } => payload.len(),
            Self::Error { message, .. } => message.len(),
            Self::RequestN { .. } | Self::Cancel { .. } | Self::Other { .. } => 0,
        }
    }
}

fn on(condition: bool, flag: u16) -> u16 {
    if condition { flag } else { 0 }
}

fn metadata_flag(payload: &Payload) -> u16 {
    on(payload.metadata.is_some(), METADATA)
}

fn put_head(out: &mut Vec<u8>, stream: u32, kind: u8, flags: u16) {
    out.put_u32(stream);
    out.put_u16(u16::from(kind & 0x3f) << 10 | flags);
}

fn put_setup(out: &mut Vec<u8>, setup: &Setup) -> Result<(), FrameError> {
    let flags = on(setup.resume_token.is_some(), RESUME) | on(setup.lease, LEASE) | metadata_flag(&setup.payload);
    put_head(out, 0, SETUP, flags);
    out.put_u16(setup.version.0);
    out.put_u16(setup.version.1);
    out.put_u32(setup.keepalive);
    out.put_u32(setup.lifetime);
    if let Some(token) = &setup.resume_token {
        out.put_u16(u16::try_from(token.len()).map_err(|_| FrameError::TooLarge)?);
        out.put_slice(token);
    }
    for mime_type in [&setup.metadata_type, &setup.data_type] {
        out.put_u8(u8::try_from(mime_type.len()).map_err(|_| FrameError::TooLarge)?);
        out.put_slice(mime_type.as_bytes());
    }
    put_payload(out, &setup.payload)
}

fn put_payload(out: &mut Vec<u8>, payload: &Payload) -> Result<(), FrameError> {
    if let Some(metadata) = &payload.metadata {
        if metadata.len() > MAX_METADATA {
            return Err(FrameError::TooLarge);
        }
        out.put_uint(metadata.len() as u64, 3);
        out.put_slice(metadata);
    }
    out.put_slice(&payload.data);
    Ok(())
}
