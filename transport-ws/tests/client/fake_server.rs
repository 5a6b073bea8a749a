//! A server that says what a test wants.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use syncline_transport_ws::frame::{ErrorCode, Frame, Payload};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Message, Result};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::LIMIT;

pub(crate) struct FakeServer(TcpListener);

impl FakeServer {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection, its handshake done.
    pub(crate) async fn accept(&self) -> Connection<TcpStream> {
        let (stream, _) = timeout(LIMIT, self.0.accept()).await.expect("a client comes").unwrap();
        Connection::accept(stream).await
    }
}

pub(crate) struct Connection<S> {
    socket: WebSocketStream<S>,
    pub(crate) path: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) async fn accept(stream: S) -> Self {
        let mut path = String::new();
        #[allow(clippy::result_large_err, reason = "the trait of tungstenite has it so")]
        let note = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, note).await.unwrap();
        Self { socket, path }
    }

    pub(crate) async fn hear(&mut self) -> Frame {
        match timeout(LIMIT, self.socket.next()).await.expect("the client says something") {
            Some(Ok(Message::Binary(bytes))) => Frame::decode(bytes).unwrap(),
            other => panic!("{other:?} is no frame"),
        }
    }

    /// Hears SETUP and the request; what is granted at first.
    pub(crate) async fn greeting(&mut self) -> u32 {
        assert!(matches!(self.hear().await, Frame::Setup(_)));
        match self.hear().await {
            Frame::RequestStream { stream: 1, initial, .. } => initial,
            frame => panic!("{frame:?}"),
        }
    }

    pub(crate) async fn say(&mut self, frame: &Frame) {
        self.send(Message::Binary(frame.encode().unwrap())).await.unwrap();
    }

    pub(crate) async fn send(&mut self, message: Message) -> Result<()> {
        self.socket.send(message).await
    }

    /// What is under the WebSocket.
    pub(crate) fn raw(&mut self) -> &mut S {
        self.socket.get_mut()
    }

    /// The client closes in order.
    pub(crate) async fn expect_close(&mut self) {
        let said = timeout(LIMIT, self.socket.next()).await.expect("the client closes");
        assert!(matches!(said, Some(Ok(Message::Close(_)))), "{said:?}");
    }
}

/// A document that holds this number.
pub(crate) fn document(number: u32) -> Bytes {
    let mut bytes = vec![12, 0, 0, 0, 0x10, b'n', 0];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.push(0);
    bytes.into()
}

pub(crate) fn line(number: u32) -> Frame {
    Frame::Payload { stream: 1, follows: false, complete: false, next: true, payload: Payload::of(document(number)) }
}

pub(crate) fn end() -> Frame {
    Frame::Payload { stream: 1, follows: false, complete: true, next: false, payload: Payload::default() }
}

pub(crate) fn error(stream: u32, code: ErrorCode, message: &str) -> Frame {
    Frame::Error { stream, code, message: message.to_owned() }
}
