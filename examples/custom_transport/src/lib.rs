//! A transport of one's own, server and client: lines over a Unix socket, and a connection for each call. The client sends the
//! call as JSON. The answer is a number, or an empty line, the lines of the stream, and an empty line if that has ended well.
//! Whatever fails is a line that begins with `?` if the token was refused, and with `!` otherwise.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Credentials, Error, ErrorKind, LineStream, Result, SyncService, Transport, async_trait};
use syncline_core::{WriteCheckpoint, WriteCheckpointRequest::Next};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::{net::UnixListener, net::UnixStream, time::timeout};

type Socket = BufReader<UnixStream>;
const CALL_BYTES: u64 = 1 << 20;
const LINE_BYTES: u64 = 256 << 20;
/// So long the server waits for a client.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves clients until no connection can be accepted; those that are open live on.
pub async fn serve(listener: UnixListener, service: SyncService) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(converse(BufReader::new(socket), service.clone()));
    }
}

async fn converse(mut socket: Socket, service: SyncService) -> io::Result<()> {
    let mut call = Vec::new();
    timeout(PATIENCE, (&mut socket).take(CALL_BYTES).read_until(b'\n', &mut call)).await??;
    let mut answer = answer(&call, &service).await.unwrap_or_else(|error| stream::iter([Err(error)]).boxed());
    // A client that says more, or nothing more, has gone.
    while let Some(next) = tokio::select! { next = answer.next() => next, _ = socket.read_u8() => None } {
        let mark = |error: &Error| if error.kind() == ErrorKind::Unauthorized { '?' } else { '!' };
        let failure = |error| format!("{}{}\n", mark(&error), error.to_string().replace('\n', " "));
        timeout(PATIENCE, socket.write_all(&next.unwrap_or_else(|error| failure(error).into()))).await??;
    }
    Ok(())
}

async fn answer(call: &[u8], service: &SyncService) -> Result<BoxStream<'static, Result<Bytes>>> {
    let call = serde_json::from_slice::<(String, Option<SyncRequest>, String)>(call);
    let (token, request, client) = call.map_err(|error| Error::invalid("a call is malformed").caused_by(error))?;
    let identity = service.authenticate(&token).await?;
    let Some(request) = request else {
        let number = service.request_write_checkpoint(&identity, Some(&client), Next).await?;
        return Ok(stream::iter([Ok(format!("{number}\n").into())]).boxed());
    };
    let empty = || stream::iter([Ok(Bytes::from_static(b"\n"))]);
    Ok(empty().chain(service.stream(identity, request, Framing::Ndjson)?).chain(empty()).boxed())
}

/// Clients of the server at this path, which may be silent for so long: a stream has a sign of life every 20 s.
#[derive(Debug, Clone)]
pub struct UnixTransport(pub PathBuf, pub Duration);

impl UnixTransport {
    async fn call(&self, token: &str, request: Option<&SyncRequest>, client: &str) -> Result<(Vec<u8>, Socket)> {
        let mut socket = BufReader::new(self.within(UnixStream::connect(&self.0)).await?);
        let call = format!("{}\n", serde_json::json!([token, request, client]));
        self.within(socket.write_all(call.as_bytes())).await?;
        Ok((self.line(&mut socket).await?, socket))
    }

    async fn line(&self, socket: &mut Socket) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.within(socket.take(LINE_BYTES).read_until(b'\n', &mut line)).await?;
        match line.as_slice() {
            [b'?', reason @ ..] => Err(Error::unauthorized(String::from_utf8_lossy(reason).into_owned())),
            [b'!', reason @ ..] => Err(Error::unavailable(String::from_utf8_lossy(reason).into_owned())),
            [.., b'\n'] => Ok(line),
            _ => Err(Error::unavailable("the server has gone in the middle of a line")),
        }
    }

    async fn within<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T> {
        let done = timeout(self.1, work).await.map_err(|_| Error::unavailable("the server is silent"))?;
        done.map_err(|error| Error::unavailable("the connection to the server broke").caused_by(error))
    }
}

#[async_trait]
impl Transport for UnixTransport {
    async fn open(&self, request: &SyncRequest, credentials: &Credentials) -> Result<LineStream> {
        let (first, socket) = self.call(&credentials.token, Some(request), "").await?;
        (first == b"\n").then_some(()).ok_or_else(|| Error::protocol("the server opens no stream"))?;
        let lines = stream::try_unfold((self.clone(), socket), |(transport, mut socket)| async move {
            let line = transport.line(&mut socket).await?;
            Ok((line != b"\n").then(|| (line.into(), (transport, socket))))
        });
        Ok(LineStream { framing: Framing::Ndjson, bytes: lines.boxed() })
    }

    async fn write_checkpoint(&self, client_id: &str, credentials: &Credentials) -> Result<WriteCheckpoint> {
        let (number, _) = self.call(&credentials.token, None, client_id).await?;
        serde_json::from_slice(&number).map_err(|error| Error::protocol("this is no number").caused_by(error))
    }
}
