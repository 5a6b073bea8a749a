//! A server for many connections, most of which are sync streams that are idle.
//!
//! hyper keeps two buffers of 8 KiB for as long as a connection is open, and axum a copy of the routes. A sync stream needs
//! neither once its answer has begun: so hyper reads the request and the router answers, and then the connection is taken
//! from both, and sends head and body by itself.

use std::convert::Infallible;
use std::future::{self, Future};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use axum::http::response::Parts;
use axum::http::{HeaderValue, Request, Response, Version};
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tower::ServiceExt;

use super::listener::{Connection, Listener};

/// Marks an answer that may take days, and whose body makes do with what is said here. A layer that loses the mark, and a
/// server that does not know it, do no harm: hyper sends the answer then.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongLived;

/// Serves a router by HTTP/1.1, as `axum::serve` does, for less memory: an idle sync stream keeps a quarter of what it keeps
/// there. Upgrades work as well. Who needs HTTP/2 without TLS takes `axum::serve`, with `into_make_service`: given a router
/// itself, that keeps a copy of the routes for each connection.
///
/// After `stop` no connection is accepted and no request begun; it returns once all connections have ended. Sync streams end
/// by [`SyncService::close`](syncline_core::SyncService::close). If it is dropped, all connections are cut but those that were
/// upgraded.
///
/// ```no_run
/// # async fn example(app: axum::Router, service: syncline_core::SyncService) -> std::io::Result<()> {
/// use syncline_transport_http as http;
///
/// let listener = http::Listener::bind("0.0.0.0:8080").await?;
/// let stop = async move {
///     let _ = tokio::signal::ctrl_c().await;
///     service.close().await; // ends the streams, which would otherwise keep the server open for ever
/// };
/// http::serve(listener, app, stop).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve(mut listener: Listener, app: Router, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    // Makes the routes once, and not for each connection.
    let app = app.with_state(());
    loop {
        tokio::select! {
            (connection, _) = axum::serve::Listener::accept(&mut listener) => {
                connections.spawn(converse(connection, app.clone(), stopped.clone()));
            }
            Some(ended) = connections.join_next() => tell_of(ended),
            () = &mut stop => break,
        }
    }
    drop((listener, stopping, stopped));
    while let Some(ended) = connections.join_next().await {
        tell_of(ended);
    }
}

fn tell_of(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

/// One connection.
async fn converse(connection: Connection, app: Router, stopped: watch::Receiver<()>) {
    let Some((connection, answer)) = exchange(connection, app, stopped).await else { return };
    if let Err(error) = send(connection, answer).await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Requests and answers, until the connection ends or there is an answer that is long-lived.
async fn exchange(
    connection: Connection,
    app: Router,
    mut stopped: watch::Receiver<()>,
) -> Option<(Connection, Response<Body>)> {
    let unsent = connection.unsent();
    let long_lived: Arc<Mutex<Option<Response<Body>>>> = Arc::default();
    let take = || long_lived.lock().unwrap_or_else(PoisonError::into_inner).take();
    let service = service_fn(|request: Request<Incoming>| {
        let (app, long_lived, version) = (app.clone(), Arc::clone(&long_lived), request.version());
        async move {
            let answer = app.oneshot(request.map(Body::new)).await?;
            if version == Version::HTTP_11 && answer.extensions().get::<LongLived>().is_some() {
                *long_lived.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                // From here on hyper is not needed any more.
                return future::pending().await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    // Apart from the task, which lives on without it.
    let mut http = Box::new(http1::Builder::new().serve_connection(TokioIo::new(connection), service).with_upgrades());
    let answer = {
        let mut stopping = pin!(async move { while stopped.changed().await.is_ok() {} });
        let mut told = false;
        future::poll_fn(|context| {
            if !told && stopping.as_mut().poll(context).is_ready() {
                told = true;
                Pin::new(&mut *http).graceful_shutdown();
            }
            match Pin::new(&mut *http).poll(context) {
                Poll::Ready(Ok(())) => Poll::Ready(None),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a connection failed");
                    Poll::Ready(None)
                }
                // The end of an answer before this one may still wait for the client.
                Poll::Pending if unsent.get() => Poll::Pending,
                Poll::Pending => take().map_or(Poll::Pending, |answer| Poll::Ready(Some(answer))),
            }
        })
        .await
    };
    Some((http.into_parts()?.io.into_inner(), answer?))
}

/// Sends an answer; the connection ends with it.
async fn send(mut connection: Connection, answer: Response<Body>) -> io::Result<()> {
    let (parts, mut body) = answer.into_parts();
    connection.write_all(&head(parts)).await?;
    let mut listens = true;
    loop {
        let mut heard = [0];
        let frame = tokio::select! {
            frame = body.frame() => frame,
            count = connection.read(&mut heard), if listens => match count? {
                0 => return Ok(()),
                // It is told that this connection takes no more requests.
                _ => { listens = false; continue }
            },
        };
        // What breaks off without the last chunk is no end.
        let Some(frame) = frame.transpose().map_err(io::Error::other)? else { break };
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            let length = Bytes::from(format!("{:x}\r\n", data.len()));
            connection.write_all_buf(&mut length.chain(data).chain(&b"\r\n"[..])).await?;
        }
    }
    connection.write_all(b"0\r\n\r\n").await?;
    connection.shutdown().await
}

/// The head of an answer whose body comes in chunks.
fn head(mut parts: Parts) -> Vec<u8> {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now()).ok();
    if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
        parts.headers.entry(DATE).or_insert(date);
    }
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut head = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
