//! What must be right before replication can begin. Each complaint says how to mend it.

mod findings;
mod occasion;
mod server;
mod tables;

pub(crate) use findings::Findings;
pub(crate) use occasion::Occasion;
pub(crate) use server::{Server, check_free_slot, check_server};
pub(crate) use tables::check_tables;
