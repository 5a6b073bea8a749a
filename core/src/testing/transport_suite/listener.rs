//! A client that only listens: the lines of one stream.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::stage::ok;
use crate::connector::Credentials;
use crate::error::{Error, Result};
use crate::protocol::{ClientLine, Framing, LineDecoder, SyncRequest};
use crate::testing::deadline::Deadline;
use crate::transport::{LineStream, Transport};

/// How a stream ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// As the server wanted it.
    Clean,
    Failed(Error),
}

/// An open stream.
pub(super) struct Listener {
    pub(super) framing: Framing,
    pieces: BoxStream<'static, Result<Bytes>>,
    decoder: LineDecoder,
    /// Everything that has come.
    pub(super) bytes: Vec<u8>,
    pub(super) end: Option<End>,
}

impl Listener {
    pub(super) async fn open(
        transport: &dyn Transport,
        request: &SyncRequest,
        credentials: &Credentials,
        deadline: Deadline,
    ) -> Self {
        Self::of(ok(deadline.wait("a stream opens", transport.open(request, credentials)).await))
    }

    pub(super) fn of(stream: LineStream) -> Self {
        Self {
            framing: stream.framing,
            pieces: stream.bytes,
            decoder: LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT),
            bytes: Vec::new(),
            end: None,
        }
    }

    /// Takes one piece, without looking for lines in it.
    pub(super) async fn take_piece(&mut self, deadline: Deadline) {
        match deadline.wait("a piece of the stream comes", self.pieces.next()).await {
            Some(Ok(piece)) => {
                self.bytes.extend_from_slice(&piece);
                self.decoder.push(piece);
            }
            Some(Err(error)) => {
                self.end = Some(End::Failed(error));
                let more = deadline.wait("a stream ends after its error", self.pieces.next()).await;
                assert!(more.is_none(), "nothing may come after an error, but {more:?}");
            }
            None => {
                self.end = Some(End::Clean);
                let rest = ok(self.decoder.finish());
                assert!(rest.is_none(), "the stream ended inside a line: {rest:?}");
            }
        }
    }

    /// The next line, or `None` at the end. Signs of life are left out; what differs between framings is made equal.
    pub(super) async fn line(&mut self, deadline: Deadline) -> Option<ClientLine> {
        loop {
            match ok(self.decoder.next()) {
                Some(ClientLine::TokenExpiresIn(left)) if left > 0 => continue,
                Some(ClientLine::Data(mut line)) => {
                    line.size = 0;
                    return Some(ClientLine::Data(line));
                }
                Some(line) => return Some(line),
                None if self.end.is_some() => return None,
                None => self.take_piece(deadline).await,
            }
        }
    }

    /// Lines up to one that completes a checkpoint.
    pub(super) async fn checkpoint(&mut self, deadline: Deadline) -> Vec<ClientLine> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line(deadline).await else {
                panic!("the stream ended before a checkpoint was complete: {:?}", self.end)
            };
            let complete = matches!(line, ClientLine::CheckpointComplete { .. });
            lines.push(line);
            if complete {
                return lines;
            }
        }
    }

    /// Lines up to the end, and how it came.
    pub(super) async fn rest(&mut self, deadline: Deadline) -> (Vec<ClientLine>, End) {
        let mut lines = Vec::new();
        while let Some(line) = self.line(deadline).await {
            lines.push(line);
        }
        let end = self.end.clone().unwrap_or_else(|| panic!("a stream without lines has ended"));
        (lines, end)
    }
}

/// The ids of all rows in these lines, in their order.
pub(super) fn ids(lines: &[ClientLine]) -> Vec<String> {
    let data = lines.iter().filter_map(|line| match line {
        ClientLine::Data(line) => Some(&line.operations),
        _ => None,
    });
    data.flatten().map(|operation| operation.object_id.to_string()).collect()
}

/// Asserts that two clients got the same, with a message that holds no megabytes.
pub(super) fn assert_same(got: &[ClientLine], wanted: &[ClientLine]) {
    let differs = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
    let short = |line: &ClientLine| format!("{line:?}").chars().take(300).collect::<String>();
    if let Some(at) = differs {
        panic!("line {at} is {} instead of {}", short(&got[at]), short(&wanted[at]));
    }
    assert_eq!(got.len(), wanted.len(), "so many lines came");
}
