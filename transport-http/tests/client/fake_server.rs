//! A server that answers with exactly the bytes that a test gives it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a server does after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends this in one piece.
    Send(Vec<u8>),
    /// Says and closes nothing until the client goes away.
    Hang,
}

/// One request as it came: its head, and its body.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    /// The value of a header, whatever its name's case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A server that does the same for each connection. It ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) endpoint: String,
    requests: UnboundedReceiver<Received>,
}

impl FakeServer {
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(answer(stream, steps.clone(), sender.clone()));
            }
        });
        Self { endpoint, requests }
    }

    /// The next request that came.
    pub(crate) async fn request(&mut self) -> Received {
        tokio::time::timeout(Duration::from_secs(20), self.requests.recv()).await.unwrap().unwrap()
    }
}

/// Reads one request and answers it. A client that goes away meanwhile is part of some tests.
pub(crate) async fn answer<S>(mut stream: S, steps: Vec<Step>, requests: UnboundedSender<Received>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let mut request = Received { head: String::from_utf8(bytes[..head_end].to_vec()).unwrap(), body: String::new() };
    let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return;
        }
    }
    request.body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
    if requests.send(request).is_err() {
        return;
    }
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Step::Hang => while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {},
        }
    }
}

/// An answer whose body has its length in the head.
pub(crate) fn plain(status: &str, content_type: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}");
    vec![Step::Send(head.into_bytes())]
}

/// The head of a stream.
pub(crate) fn stream_head(headers: &str) -> Step {
    Step::Send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{headers}\r\n").into_bytes())
}

/// One piece of a stream.
pub(crate) fn piece(bytes: &[u8]) -> Step {
    let mut piece = format!("{:x}\r\n", bytes.len()).into_bytes();
    piece.extend_from_slice(bytes);
    piece.extend_from_slice(b"\r\n");
    Step::Send(piece)
}

/// The end of a stream.
pub(crate) fn end() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}
