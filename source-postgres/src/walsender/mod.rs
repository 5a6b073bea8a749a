//! The replication connection: its commands, and the stream that follows them.

mod commands;
mod reader;

pub(crate) use commands::{Identity, create_slot, identify, start, timeline_switch};
pub(crate) use reader::{POSTGRES_EPOCH_MICROS, WalFrame, WalFrames, WalStream};
