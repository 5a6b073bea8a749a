//! A connection of our own: start-up, login, and simple queries whose rows stay slices of the buffer they arrived in.
//!
//! Snapshot and stream go through the same connection code with the same pinned settings, so that a value has the same
//! bytes both ways.

mod login;
mod query;
mod socket;
mod tls;

pub(crate) use query::{Connection, Row, Rows, frame_length};
pub(crate) use socket::Socket;

/// What kind of session a connection is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Plain SQL.
    Sql,
    /// A walsender, which speaks SQL too.
    Replication,
}
