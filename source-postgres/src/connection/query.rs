//! A logged-in connection and its simple queries.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::login::{server_error, unexpected};
use super::socket::Socket;
use super::{Session, login};
use crate::config::PostgresConfig;
use crate::error::{ConnectError, PgError};
use crate::preflight::Occasion;

/// How long the server may be silent while it sends rows.
pub(crate) const ROW_SILENCE: Duration = Duration::from_secs(300);

/// A value may have 1 GB in Postgres, and a message a little more.
const MAX_FRAME: usize = 0x7FFF_FFFF;

/// How much is read at once.
const READ: usize = 256 * 1024;

/// One message of the server.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A logged-in connection. One request at a time; after an interrupted one it is [broken](Self::is_idle).
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    input: BytesMut,
    idle: bool,
}

/// One row: a value per column, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) Vec<Option<Bytes>>);

/// The whole answer to a small query.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    names: Vec<String>,
    rows: Vec<Vec<Option<ByteString>>>,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A value by the name of its column; `None` for NULL and for a column that this server does not have.
    pub(crate) fn get(&self, row: usize, name: &str) -> Option<&str> {
        let column = self.names.iter().position(|column| column == name)?;
        self.rows.get(row)?.get(column)?.as_deref()
    }

    /// A value that must be there.
    pub(crate) fn text(&self, row: usize, name: &str) -> Result<&str, PgError> {
        self.get(row, name).ok_or_else(|| PgError::Protocol(format!("a query returned no `{name}`")))
    }

    /// A value that must be there and parse.
    pub(crate) fn parse<T: std::str::FromStr>(&self, row: usize, name: &str) -> Result<T, PgError> {
        let text = self.text(row, name)?;
        text.parse().map_err(|_| PgError::Protocol(format!("a query returned `{text}` as `{name}`")))
    }

    /// A boolean; NULL is false.
    pub(crate) fn is_true(&self, row: usize, name: &str) -> bool {
        self.get(row, name) == Some("t")
    }
}

impl Connection {
    /// Connects and logs in, within `connect_timeout`. The occasion says whether what hinders it may pass by itself.
    pub(crate) async fn open(
        config: &PostgresConfig,
        session: Session,
        application_name: &str,
        occasion: Occasion,
    ) -> Result<Self, PgError> {
        let limit = config.connect_timeout;
        timeout(limit, async {
            let socket = Socket::open(config).await?;
            let mut connection = Self { socket, input: BytesMut::with_capacity(8 * 1024), idle: false };
            let version = login::log_in(&mut connection, config, session, application_name).await?;
            connection.idle = true;
            if let Some(sql) = login::limits(version) {
                connection.query(sql, limit).await?;
            }
            Ok(connection)
        })
        .await
        .unwrap_or(Err(PgError::Timeout(limit)))
        .map_err(|cause| PgError::Connect(Box::new(ConnectError { address: config.address(), cause, occasion })))
    }

    /// Whether a new request may be made; an interrupted one makes a connection useless.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle
    }

    pub(super) fn is_private(&self) -> bool {
        self.socket.is_private()
    }

    pub(super) fn channel_binding(&self) -> Option<Vec<u8>> {
        self.socket.channel_binding()
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await?;
        Ok(())
    }

    /// Runs one statement and collects its rows, within `limit`.
    pub(crate) async fn query(&mut self, sql: &str, limit: Duration) -> Result<Rows, PgError> {
        timeout(limit, async {
            self.begin(sql).await?;
            let mut rows = Rows::default();
            loop {
                let frame = self.frame().await?;
                match frame.tag {
                    b'T' => rows.names = column_names(&frame.body)?,
                    b'D' => {
                        let mut texts = Vec::new();
                        for value in parse_row(&frame.body)?.0 {
                            let text = value.map(ByteString::try_from).transpose();
                            texts.push(text.map_err(|_| PgError::Protocol("a query returned invalid UTF-8".into()))?);
                        }
                        rows.rows.push(texts);
                    }
                    tag => {
                        if self.end(tag, &frame).await? {
                            return Ok(rows);
                        }
                    }
                }
            }
        })
        .await
        .unwrap_or(Err(PgError::Timeout(limit)))
    }

    /// Sends a statement whose rows are then taken with [`rows`](Self::rows).
    pub(crate) async fn begin(&mut self, sql: &str) -> Result<(), PgError> {
        if !self.idle {
            return Err(PgError::Io(io::Error::other("an earlier request on the connection was interrupted")));
        }
        self.idle = false;
        let mut packet = BytesMut::new();
        frontend::query(sql, &mut packet)?;
        self.send(&packet).await
    }

    /// Takes rows as they arrive, all that are there; `None` when the statement has ended.
    pub(crate) async fn rows(&mut self) -> Result<Option<Vec<Row>>, PgError> {
        let mut rows = Vec::new();
        if self.idle {
            return Ok(None);
        }
        loop {
            let frame = match self.buffered()? {
                Some(frame) => frame,
                None if !rows.is_empty() => return Ok(Some(rows)),
                None => {
                    self.fill().await?;
                    continue;
                }
            };
            match frame.tag {
                b'D' => rows.push(parse_row(&frame.body)?),
                b'T' => {}
                tag => {
                    if self.end(tag, &frame).await? {
                        return Ok((!rows.is_empty()).then_some(rows));
                    }
                }
            }
        }
    }

    /// Deals with a message that is not a row; true at the end of the statement.
    async fn end(&mut self, tag: u8, frame: &Frame) -> Result<bool, PgError> {
        match tag {
            b'Z' => {
                self.idle = true;
                Ok(true)
            }
            b'C' | b'I' | b'N' | b'S' => Ok(false),
            b'E' => {
                let error = server_error(frame);
                // The server is ready again after an error of a statement, and gone after a fatal one.
                loop {
                    match self.frame().await {
                        Ok(frame) if frame.tag == b'Z' => {
                            self.idle = true;
                            return Err(error);
                        }
                        Ok(_) => {}
                        Err(_) => return Err(error),
                    }
                }
            }
            tag => Err(unexpected(tag, "in answer to a query")),
        }
    }

    /// Sends START_REPLICATION, waits until the stream begins, and gives away what it is made of.
    pub(crate) async fn into_stream(mut self, sql: &str, limit: Duration) -> Result<(Socket, BytesMut), PgError> {
        timeout(limit, async {
            self.begin(sql).await?;
            loop {
                let frame = self.frame().await?;
                match frame.tag {
                    b'W' => return Ok(()),
                    b'E' => return Err(server_error(&frame)),
                    b'N' | b'S' => {}
                    tag => return Err(unexpected(tag, "instead of the start of the stream")),
                }
            }
        })
        .await
        .unwrap_or(Err(PgError::Timeout(limit)))?;
        Ok((self.socket, self.input))
    }

    /// The next message, waiting for it.
    pub(super) async fn frame(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The next message, if all of it has arrived.
    fn buffered(&mut self) -> Result<Option<Frame>, PgError> {
        let Some(&[tag, a, b, c, d]) = self.input.first_chunk() else { return Ok(None) };
        let length = frame_length([a, b, c, d])?;
        if self.input.len() <= length {
            self.input.reserve(length + 1 - self.input.len());
            return Ok(None);
        }
        let mut body = self.input.split_to(length + 1).freeze();
        body.advance(5);
        Ok(Some(Frame { tag, body }))
    }

    async fn fill(&mut self) -> Result<(), PgError> {
        if self.input.capacity() - self.input.len() < 16 * 1024 {
            self.input.reserve(READ);
        }
        let read = timeout(ROW_SILENCE, self.socket.read_buf(&mut self.input));
        match read.await.map_err(|_| PgError::Timeout(ROW_SILENCE))?? {
            0 => Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

/// The length of a message without its tag, from the four bytes that state it.
pub(crate) fn frame_length(bytes: [u8; 4]) -> Result<usize, PgError> {
    match usize::try_from(u32::from_be_bytes(bytes)) {
        Ok(length @ 4..=MAX_FRAME) => Ok(length),
        _ => Err(PgError::Protocol(format!("a message claims {} bytes", u32::from_be_bytes(bytes)))),
    }
}

fn short() -> PgError {
    PgError::Protocol("a message is shorter than it claims".into())
}

/// Reads a DataRow; values are slices of its body.
fn parse_row(body: &Bytes) -> Result<Row, PgError> {
    let (count, _) = body.split_first_chunk().ok_or_else(short)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut values = Vec::with_capacity(count);
    let mut at = 2;
    for _ in 0..count {
        let length = body.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(short)?;
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => values.push(None),
            length => {
                let length = usize::try_from(length).map_err(|_| short())?;
                let end = at.checked_add(length).filter(|&end| end <= body.len()).ok_or_else(short)?;
                values.push(Some(body.slice(at..end)));
                at = end;
            }
        }
    }
    Ok(Row(values))
}

/// Reads the names in a RowDescription.
fn column_names(body: &Bytes) -> Result<Vec<String>, PgError> {
    let (count, mut rest) = body.split_first_chunk().ok_or_else(short)?;
    let mut names = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|&byte| byte == 0).ok_or_else(short)?;
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        // Table, column, type, its size and modifier, and the format.
        rest = rest.get(end + 1 + 18..).ok_or_else(short)?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_keeps_null_and_empty_apart() {
        let body = Bytes::from_static(b"\0\x03\xFF\xFF\xFF\xFF\0\0\0\0\0\0\0\x02hi");
        assert_eq!(parse_row(&body).unwrap(), Row(vec![None, Some(Bytes::new()), Some(Bytes::from_static(b"hi"))]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = parse_row(&bytes);
            let _ = column_names(&bytes);
        }
    }
}
