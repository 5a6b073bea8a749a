//! A sync stream as the body of an answer: a task of its own runs the session, so that a client that does not read holds
//! up nobody but itself.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::SinkExt;
use futures::channel::{mpsc, oneshot};
use futures::stream::{self, BoxStream, StreamExt};
use syncline_core::{Clock, Error, Result, SystemClock, WallTime};

/// Pieces that wait between the session and the socket until it goes no further; one more may wait then.
const PIECES: usize = 1;

/// A client that reads may take so long for what was sent before its token expired (S7).
const AFTER_EXPIRY: Duration = Duration::from_secs(30);

/// The body of this stream. It is cut if the client takes nothing for `patience`, or not what is left soon after its token
/// has expired: it ends with an error then, so that the client does not take the end for an orderly one.
pub(super) fn stream_body(
    mut lines: BoxStream<'static, Result<Bytes>>,
    patience: Duration,
    expiry: Option<WallTime>,
) -> Body {
    // Those of tokio have room for 32 pieces from the beginning, and most streams are idle.
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes>>(PIECES);
    let (mut cut, was_cut) = oneshot::channel();
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                // The client has gone; without this an idle stream would be noticed at its next sign of life.
                () = cut.cancellation() => return,
            };
            let Some(line) = line else { return };
            if let Err(error) = &line {
                tracing::warn!(%error, "a sync stream failed");
            }
            let failed = line.is_err();
            let patience = patience_at(SystemClock.wall(), patience, expiry);
            match tokio::time::timeout(patience, sender.send(line)).await {
                Ok(Ok(())) if !failed => {}
                Ok(_) => return,
                Err(_) => {
                    tracing::info!(?patience, "a client reads nothing; its stream is cut");
                    // If the client has gone as well, there is nobody to tell.
                    let _ = cut.send(());
                    return;
                }
            }
        }
    });
    let pieces = stream::unfold((receiver, was_cut), |(mut receiver, mut was_cut)| async move {
        let piece = match receiver.next().await {
            Some(piece) => piece,
            None if was_cut.try_recv() == Ok(Some(())) => {
                Err(Error::unavailable("the client read nothing for too long"))
            }
            None => return None,
        };
        Some((piece, (receiver, was_cut)))
    });
    // A compressing layer polls a body after its end.
    Body::from_stream(pieces.fuse())
}

/// How long a client may take for one piece.
fn patience_at(now: WallTime, patience: Duration, expiry: Option<WallTime>) -> Duration {
    let Some(expiry) = expiry else { return patience };
    let end = expiry.0.saturating_add_unsigned(AFTER_EXPIRY.as_millis() as u64);
    patience.min(Duration::from_millis(u64::try_from(end.saturating_sub(now.0)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_soon_after_the_token() {
        let minute = Duration::from_secs(60);
        let at = |now: i64, expiry| patience_at(WallTime(now), minute, expiry).as_secs();
        assert_eq!(at(0, None), 60);
        assert_eq!(at(0, Some(WallTime(90_000))), 60);
        assert_eq!(at(0, Some(WallTime(10_000))), 40);
        assert_eq!(at(30_000, Some(WallTime(10_000))), 10);
        assert_eq!(at(90_000, Some(WallTime(10_000))), 0);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_stream_soon_after_its_token() {
        let (open, closed) = tokio::sync::oneshot::channel::<()>();
        let pieces = stream::unfold(open, |open| async { Some((Ok(Bytes::from_static(b"{}\n")), open)) });
        let expiry = WallTime(SystemClock.wall().0 - 29_900);
        let body = stream_body(pieces.boxed(), Duration::from_secs(3_600), Some(expiry));
        let gone = tokio::time::timeout(Duration::from_secs(20), closed).await;
        assert!(gone.is_ok(), "the stream is dropped");
        drop(body);
    }
}
