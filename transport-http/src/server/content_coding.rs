//! The compression of a stream: which coding a client gets, and an encoder that keeps next to nothing between two pieces.
//!
//! A compressor holds some hundred kilobytes. A stream may be open for days and say a line a minute, so a gzip stream
//! borrows one for each piece and gives it back: every piece is compressed by itself and flushed, which DEFLATE allows
//! anywhere in a stream (RFC 1951 section 3.2.4, an empty stored block aligns to a byte). It also keeps one row from being
//! guessed by the size of another. Zstandard cannot do that within a frame, and browsers stop at the end of the first frame;
//! so such a stream keeps its compressor, with a small window, and gzip is preferred where a client likes both equally.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use futures::stream::{self, BoxStream, StreamExt};
use syncline_core::{Error, Result};

/// Bytes that are compressed in one go; a larger piece lets others run in between.
const SLICE: usize = 128 << 10;
/// Rows are full of repeated names: higher levels cost several times as much and save a few per cent.
const GZIP_LEVEL: Compression = Compression::new(3);
/// Compressors that wait for their next piece. More may be at work; those beyond are dropped.
const SPARE: usize = 8;
/// RFC 1952 section 2.3: DEFLATE, no flags, no time, no extra flags, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of a DEFLATE stream: final, fixed codes, nothing in it.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];
/// 64 KiB: about 200 KiB of memory per stream, instead of several megabytes.
const ZSTD_WINDOW_LOG: u32 = 16;
const ZSTD_LEVEL: i32 = 1;

static SPARES: Mutex<Vec<Compress>> = Mutex::new(Vec::new());

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentCoding {
    Gzip,
    Zstd,
}

impl ContentCoding {
    /// What the client likes best among those that there are; gzip if it likes both equally. `None` to send plainly.
    pub(super) fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let (mut gzip, mut zstd, mut any) = (None, None, None);
        for value in headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
            for coding in value.split(',') {
                let mut parts = coding.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default().to_ascii_lowercase();
                let quality =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0_f32, |q| q.parse().unwrap_or(0.0));
                match &*name {
                    "gzip" | "x-gzip" => gzip = Some(quality),
                    "zstd" => zstd = Some(quality),
                    "*" => any = Some(quality),
                    _ => {}
                }
            }
        }
        let quality = |named: Option<f32>| named.or(any).unwrap_or(0.0);
        let (gzip, zstd) = (quality(gzip), quality(zstd));
        if gzip > 0.0 && gzip >= zstd {
            Some(Self::Gzip)
        } else if zstd > 0.0 {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// Its name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses a stream. Whatever the stream yields can be decoded as soon as it is sent; an error ends it without the
    /// mark of an orderly end.
    pub(super) fn compress(self, pieces: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
        let compressing = Compressing { pieces, encoder: Some(Encoder::new(self)), rest: Bytes::new() };
        stream::unfold(compressing, |mut compressing| async move {
            let piece = compressing.next().await?;
            Some((piece, compressing))
        })
        .boxed()
    }
}

struct Compressing {
    pieces: BoxStream<'static, Result<Bytes>>,
    /// `None` after the end.
    encoder: Option<Encoder>,
    /// What of the last piece is still to be compressed.
    rest: Bytes,
}

impl Compressing {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            if !self.rest.is_empty() {
                let slice = self.rest.split_to(self.rest.len().min(SLICE));
                return Some(encoder.encode(&slice));
            }
            match self.pieces.next().await {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => {
                    self.encoder = None;
                    return Some(Err(error));
                }
                None => return self.encoder.take().map(Encoder::finish),
            }
        }
    }
}

enum Encoder {
    Gzip { begun: bool, sum: Crc },
    Zstd(Result<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    fn new(coding: ContentCoding) -> Self {
        match coding {
            ContentCoding::Gzip => Self::Gzip { begun: false, sum: Crc::new() },
            ContentCoding::Zstd => Self::Zstd(zstd_encoder().map_err(|error| failed(&error))),
        }
    }

    fn encode(&mut self, piece: &[u8]) -> Result<Bytes> {
        match self {
            Self::Gzip { begun, sum } => {
                let mut output = Vec::with_capacity(64 + piece.len() / 2);
                if !std::mem::replace(begun, true) {
                    output.extend_from_slice(&GZIP_HEADER);
                }
                sum.update(piece);
                deflate(piece, &mut output)?;
                Ok(output.into())
            }
            Self::Zstd(Ok(encoder)) => {
                encoder.write_all(piece).and_then(|()| encoder.flush()).map_err(|error| failed(&error))?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Zstd(Err(error)) => Err(error.clone()),
        }
    }

    /// The mark of an orderly end.
    fn finish(self) -> Result<Bytes> {
        match self {
            Self::Gzip { begun, sum } => {
                let mut output = Vec::with_capacity(32);
                if !begun {
                    output.extend_from_slice(&GZIP_HEADER);
                }
                output.extend_from_slice(&LAST_BLOCK);
                output.extend_from_slice(&sum.sum().to_le_bytes());
                // The length modulo 2³², which is what `amount` counts.
                output.extend_from_slice(&sum.amount().to_le_bytes());
                Ok(output.into())
            }
            Self::Zstd(Ok(encoder)) => Ok(encoder.finish().map_err(|error| failed(&error))?.into()),
            Self::Zstd(Err(error)) => Err(error),
        }
    }
}

/// Blocks of DEFLATE that refer to nothing before, ending at a byte.
fn deflate(piece: &[u8], output: &mut Vec<u8>) -> Result<()> {
    let spare = SPARES.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut compressor = spare.unwrap_or_else(|| Compress::new(GZIP_LEVEL, false));
    loop {
        let done = usize::try_from(compressor.total_in()).unwrap_or(usize::MAX);
        output.reserve(1024);
        let status = compressor
            .compress_vec(piece.get(done..).unwrap_or_default(), output, FlushCompress::Sync)
            .map_err(|error| failed(&error))?;
        // A flush is complete when it leaves room in the output.
        if compressor.total_in() == piece.len() as u64 && output.len() < output.capacity() {
            break;
        }
        if status == Status::StreamEnd {
            return Err(Error::internal("a compressor ended a stream that goes on"));
        }
    }
    compressor.reset();
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    if spares.len() < SPARE {
        spares.push(compressor);
    }
    Ok(())
}

fn zstd_encoder() -> std::io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.window_log(ZSTD_WINDOW_LOG)?;
    Ok(encoder)
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::internal(format!("a stream could not be compressed: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures::executor::block_on;

    use super::*;

    fn chosen(accept: &str) -> Option<ContentCoding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().expect("a header value"));
        ContentCoding::negotiate(&headers)
    }

    #[test]
    fn the_client_chooses_and_gzip_is_preferred_among_equals() {
        assert_eq!(ContentCoding::negotiate(&HeaderMap::new()), None);
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some(ContentCoding::Gzip)),
            ("gzip;q=0.5, zstd", Some(ContentCoding::Zstd)),
            ("zstd", Some(ContentCoding::Zstd)),
            ("GZIP", Some(ContentCoding::Gzip)),
            ("*", Some(ContentCoding::Gzip)),
            ("*, gzip;q=0", Some(ContentCoding::Zstd)),
            ("gzip;q=0", None),
            ("br, deflate", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(chosen(accept), coding, "{accept:?}");
        }
    }

    fn pieces() -> Vec<Bytes> {
        let large: Vec<u8> = (0..400_000_u32).flat_map(|n| (n / 7).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        vec![Bytes::from_static(b"{\"checkpoint\":1}\n"), large.into(), Bytes::new(), Bytes::from_static(b"the end\n")]
    }

    fn decode(coding: ContentCoding, compressed: &[u8], text: &mut Vec<u8>) -> std::io::Result<usize> {
        match coding {
            // One member: what follows it is left alone by browsers.
            ContentCoding::Gzip => flate2::bufread::GzDecoder::new(compressed).read_to_end(text),
            ContentCoding::Zstd => {
                zstd::stream::read::Decoder::with_buffer(compressed)?.single_frame().read_to_end(text)
            }
        }
    }

    #[test]
    fn a_stream_is_one_member_that_can_be_decoded_as_far_as_it_was_sent() {
        for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
            let sent: Vec<Bytes> = block_on(
                coding
                    .compress(stream::iter(pieces().into_iter().map(Ok)).boxed())
                    .map(|piece| piece.expect("bytes"))
                    .collect(),
            );
            let whole = sent.concat();
            let mut text = Vec::new();
            decode(coding, &whole, &mut text).unwrap_or_else(|error| panic!("{coding:?}: {error}"));
            assert!(text == pieces().concat(), "{coding:?}");

            // Without its end it is an error, but only after all that was sent.
            let unfinished = sent[..sent.len() - 1].concat();
            let mut text = Vec::new();
            assert!(decode(coding, &unfinished, &mut text).is_err(), "{coding:?}");
            assert!(text == pieces().concat(), "{coding:?}");
        }
    }

    #[test]
    fn an_empty_stream_is_valid_and_a_failed_one_has_no_end() {
        for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
            let empty: Vec<_> = block_on(coding.compress(stream::empty().boxed()).collect());
            let empty: Vec<u8> = empty.into_iter().flat_map(|piece| piece.expect("bytes")).collect();
            let mut text = Vec::new();
            decode(coding, &empty, &mut text).unwrap_or_else(|error| panic!("{coding:?}: {error}"));
            assert!(text.is_empty());

            let failing = stream::iter([Ok(Bytes::from_static(b"x")), Err(Error::unavailable("gone"))]).boxed();
            let sent: Vec<_> = block_on(coding.compress(failing).collect());
            assert_eq!(sent.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false], "{coding:?}");
        }
    }
}
