//! The fuzz targets of this crate: whatever the bytes are, nothing panics, and what each function says holds.
//!
//! `fuzz/` runs them under libFuzzer, the tests below over their seeds and mutations of them on any toolchain.

use bytes::Bytes;

use crate::compact::{ClientFrame, Request, ServerFrame};
use crate::frame::{Frame, Reassembly};

/// What fragments may take together.
const LIMIT: usize = 2_000;

/// Messages, each behind two bytes of its length: a frame that is read is written and read again as it was, and what is put
/// together of fragments stays within its limit.
pub fn rsocket_frames(bytes: &[u8]) {
    let mut reassembly = Reassembly::new(LIMIT, 3);
    let mut rest = bytes;
    while let Some((length, more)) = rest.split_first_chunk() {
        let (message, after) = more.split_at(more.len().min(u16::from_be_bytes(*length).into()));
        rest = after;
        let Ok(frame) = Frame::decode(Bytes::copy_from_slice(message)) else { continue };
        if let Ok(written) = frame.encode() {
            assert_eq!(Frame::decode(written).as_ref(), Ok(&frame), "what was written is read");
        }
        // A frame that breaks the rules ends its connection.
        let Ok(whole) = reassembly.push(frame) else { return };
        if let Some(Frame::RequestStream { follows, .. } | Frame::Payload { follows, .. }) = whole {
            assert!(!follows, "a part is taken for the whole");
        }
        assert!(reassembly.held() <= LIMIT, "{} bytes are held", reassembly.held());
    }
}

/// A message, as a client's and as a server's: what is read is written and read again as it was, and a request that makes sense
/// goes on making the same.
pub fn compact_frames(bytes: &[u8]) {
    if let Ok(frame) = ClientFrame::decode(bytes) {
        let written = frame.encode().expect("what was read can be written");
        assert_eq!(ClientFrame::decode(&written).as_ref(), Ok(&frame), "what was written is read");
        if let ClientFrame::Open { request, .. } = frame
            && let Ok(request) = request.read()
            && let Ok(again) = Request::of(&request)
        {
            assert_eq!(again.read().expect("it was sound"), request);
        }
    }
    if let Ok(frame) = ServerFrame::decode(bytes) {
        let written = frame.encode().expect("what was read can be written");
        assert_eq!(ServerFrame::decode(&written), Ok(frame), "what was written is read");
    }
}

#[cfg(test)]
mod targets {
    #[test]
    fn compact_frames() {
        fuzz_campaign::run("compact_frames", super::compact_frames, 20_000);
    }

    #[test]
    fn rsocket_frames() {
        fuzz_campaign::run("rsocket_frames", super::rsocket_frames, 20_000);
    }
}
