//! The messages of the `pgoutput` plugin, protocol version 1. Pure: bytes in, messages out, never a panic.

mod message;
mod reader;

#[cfg(test)]
pub(crate) use message::RelationColumn;
pub(crate) use message::{Column, Message, OldRow, Relation, Tuple, decode};
pub(crate) use reader::DecodeError;
