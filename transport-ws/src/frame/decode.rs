//! From bytes to a frame.

use bytes::{Buf, Bytes};

use super::{
    CANCEL, COMPLETE, ERROR, ErrorCode, FOLLOWS, Frame, FrameError, IGNORE, KEEPALIVE, LEASE, MAX_31, METADATA, NEXT,
    PAYLOAD, Payload, REQUEST_N, REQUEST_STREAM, RESPOND, RESUME, SETUP, Setup,
};

type Result<T> = std::result::Result<T, FrameError>;

impl Frame {
    /// The frame that these bytes are, all of them. Its payload is a slice of them.
    ///
    /// # Errors
    /// `Malformed` for anything else.
    pub fn decode(mut bytes: Bytes) -> Result<Self> {
        let rest = &mut bytes;
        let stream = u32_of(rest)?;
        if stream > MAX_31 {
            return Err(FrameError::Malformed("a stream id has the reserved bit"));
        }
        let head = u16_of(rest)?;
        let (kind, flags) = ((head >> 10) as u8, head & 0x3ff);
        let has = |flag: u16| flags & flag != 0;
        match kind {
            SETUP | KEEPALIVE if stream != 0 => {
                return Err(FrameError::Malformed("a frame of the connection names a stream"));
            }
            REQUEST_STREAM | REQUEST_N | CANCEL | PAYLOAD if stream == 0 => {
                return Err(FrameError::Malformed("a frame of a stream names none"));
            }
            _ => {}
        }
        Ok(match kind {
            SETUP => Self::Setup(setup(rest, flags)?),
            KEEPALIVE => Self::Keepalive { respond: has(RESPOND), position: u64_of(rest)?, data: std::mem::take(rest) },
            REQUEST_STREAM => Self::RequestStream {
                stream,
                initial: u32_of(rest)?,
                follows: has(FOLLOWS),
                payload: payload(rest, has(METADATA))?,
            },
            REQUEST_N => Self::RequestN { stream, n: u32_of(rest)? },
            CANCEL => Self::Cancel { stream },
            PAYLOAD => Self::Payload {
                stream,
                follows: has(FOLLOWS),
                complete: has(COMPLETE),
                next: has(NEXT),
                payload: payload(rest, has(METADATA))?,
            },
            ERROR => {
                let code = ErrorCode(u32_of(rest)?);
                Self::Error { stream, code, message: String::from_utf8_lossy(rest).into_owned() }
            }
            kind => Self::Other { stream, kind, ignorable: has(IGNORE) },
        })
    }
}

fn setup(rest: &mut Bytes, flags: u16) -> Result<Setup> {
    let version = (u16_of(rest)?, u16_of(rest)?);
    let (keepalive, lifetime) = (u32_of(rest)?, u32_of(rest)?);
    let resume_token = if flags & RESUME == 0 {
        None
    } else {
        let length = u16_of(rest)?;
        Some(take(rest, usize::from(length))?)
    };
    let (metadata_type, data_type) = (mime_type(rest)?, mime_type(rest)?);
    let payload = payload(rest, flags & METADATA != 0)?;
    let lease = flags & LEASE != 0;
    Ok(Setup { version, keepalive, lifetime, resume_token, lease, metadata_type, data_type, payload })
}

fn mime_type(rest: &mut Bytes) -> Result<String> {
    let length = take(rest, 1)?[0];
    let text = take(rest, usize::from(length))?;
    match std::str::from_utf8(&text) {
        Ok(text) if text.is_ascii() => Ok(text.to_owned()),
        _ => Err(FrameError::Malformed("a MIME type is not ASCII")),
    }
}

fn payload(rest: &mut Bytes, has_metadata: bool) -> Result<Payload> {
    let metadata = if has_metadata {
        let length = take(rest, 3)?;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
        Some(take(rest, length as usize)?)
    } else {
        None
    };
    Ok(Payload { metadata, data: std::mem::take(rest) })
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes> {
    if rest.len() < length { Err(FrameError::Malformed("a frame is cut off")) } else { Ok(rest.split_to(length)) }
}

fn u16_of(rest: &mut Bytes) -> Result<u16> {
    Ok(take(rest, 2)?.get_u16())
}

fn u32_of(rest: &mut Bytes) -> Result<u32> {
    Ok(take(rest, 4)?.get_u32())
}

fn u64_of(rest: &mut Bytes) -> Result<u64> {
    Ok(take(rest, 8)?.get_u64())
}
