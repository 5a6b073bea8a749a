//! A client that has its first checkpoint and reads no more: as small as can be, since there are ten thousand of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline_transport_ws::frame::{Frame, MAX_31, Payload, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::DEADLINE;
use crate::occurrences::{COMPLETE, Occurrences};

/// Nothing more comes of a stream that has been silent for so long.
const SILENCE: Duration = Duration::from_millis(100);

const REQUEST: &str =
    r#"{"buckets":[],"include_checksum":true,"raw_data":true,"client_id":"8d0d2b5e-8ea1-4a1c-9e67-2f4c1f6f3c0a"}"#;
const USER_AGENT: &str = "powersync-js/1.40.0 powersync-core/0.4.6 node/24";

/// How it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// An HTTP stream, gzip asked for.
    Http,
    /// RSocket over WebSocket.
    WebSocket,
}

/// A connection with one sync stream.
#[derive(Debug)]
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Opens a stream as the SDKs do, and reads until nothing more comes of its first checkpoint.
    pub(crate) async fn open(address: &str, protocol: Protocol) -> Result<Self> {
        let mut connection = Self(TcpStream::connect(address).await?);
        let opened = async {
            match protocol {
                Protocol::Http => connection.open_http(address).await,
                Protocol::WebSocket => connection.open_websocket(address).await,
            }
        };
        tokio::time::timeout(DEADLINE, opened).await.context("a stream was not opened in time")??;
        Ok(connection)
    }

    async fn open_http(&mut self, address: &str) -> Result<()> {
        let head = format!(
            "POST /sync/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Token anyone\r\ncontent-type: application/json\r\n\
             accept: application/x-ndjson\r\naccept-encoding: gzip\r\nuser-agent: {USER_AGENT}\r\ncontent-length: {}\r\n\r\n",
            REQUEST.len()
        );
        self.0.write_all(format!("{head}{REQUEST}").as_bytes()).await?;
        let mut buffer = vec![0; 4_096];
        let mut received = 0;
        loop {
            match tokio::time::timeout(SILENCE, self.0.read(&mut buffer)).await {
                // What is compressed is not looked into.
                Err(_) if received > 0 => return Ok(()),
                Err(_) => {}
                Ok(count) => {
                    let bytes = &buffer[..count?];
                    ensure!(!bytes.is_empty(), "the connection was closed");
                    ensure!(received > 0 || bytes.starts_with(b"HTTP/1.1 200"), "the stream was refused");
                    received += bytes.len();
                }
            }
        }
    }

    async fn open_websocket(&mut self, address: &str) -> Result<()> {
        let handshake = format!(
            "GET /sync/stream HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nuser-agent: {USER_AGENT}\r\n\r\n"
        );
        self.0.write_all(handshake.as_bytes()).await?;
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer).await?;
        ensure!(answer == *b"HTTP/1.1 101", "the connection was not upgraded");
        let json = "application/json".to_owned();
        let metadata = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let credentials = metadata(r#"{"token":"Token anyone","user_agent":"powersync-js/1.40.0"}"#);
        let setup = Frame::Setup(Setup {
            version: (1, 0),
            keepalive: 20_000,
            lifetime: 300_000,
            resume_token: None,
            lease: false,
            metadata_type: json.clone(),
            data_type: json,
            payload: Payload { metadata: credentials, data: Bytes::new() },
        });
        let payload =
            Payload { metadata: metadata(r#"{"path":"/sync/stream"}"#), data: Bytes::from_static(REQUEST.as_bytes()) };
        let request = Frame::RequestStream { stream: 1, initial: MAX_31, follows: false, payload };
        for frame in [setup, request] {
            self.0.write_all(&message(&frame)?).await?;
        }
        self.checkpoint().await
    }

    /// Reads until a checkpoint is complete; its lines may not be compressed.
    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        let mut buffer = vec![0; 4_096];
        let mut completions = Occurrences::of(COMPLETE);
        let read = async {
            loop {
                let count = self.0.read(&mut buffer).await?;
                ensure!(count > 0, "the connection was closed");
                if completions.count(&buffer[..count]) > 0 {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(DEADLINE, read).await.context("a checkpoint did not come in time")?
    }
}

/// A frame as a WebSocket message of a client, masked with zeros.
fn message(frame: &Frame) -> Result<Vec<u8>> {
    let bytes = frame.encode()?;
    let length = u16::try_from(bytes.len()).context("a frame is too large")?;
    let mut message = vec![0x82, 0x80 | 126];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&bytes);
    Ok(message)
}
