//! A sync stream as the body of an answer: a task of its own runs the session, so that a client that does not read holds
//! up nobody but itself.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use syncline_core::{Error, Result};
use tokio::sync::{mpsc, watch};

/// Pieces between the session and the socket, beside what the socket buffers.
const PIECES: usize = 1;

/// The body of this stream. It is cut if the client takes nothing for `patience`: it ends with an error then, so that the
/// client does not take the end for an orderly one.
pub(super) fn stream_body(mut lines: BoxStream<'static, Result<Bytes>>, patience: Duration) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes>>(PIECES);
    let (cut, was_cut) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                // The client has gone; without this an idle stream would be noticed at its next sign of life.
                () = sender.closed() => return,
            };
            let Some(line) = line else { return };
            if let Err(error) = &line {
                tracing::warn!(%error, "a sync stream failed");
            }
            let failed = line.is_err();
            match tokio::time::timeout(patience, sender.send(line)).await {
                Ok(Ok(())) if !failed => {}
                Ok(_) => return,
                Err(_) => {
                    tracing::info!(?patience, "a client reads nothing; its stream is cut");
                    cut.send_replace(true);
                    return;
                }
            }
        }
    });
    let pieces = stream::unfold((receiver, was_cut), |(mut receiver, was_cut)| async move {
        let piece = match receiver.recv().await {
            Some(piece) => piece,
            None if *was_cut.borrow() => Err(Error::unavailable("the client read nothing for too long")),
            None => return None,
        };
        Some((piece, (receiver, was_cut)))
    });
    // A compressing layer polls a body after its end.
    Body::from_stream(pieces.fuse())
}
