//! Connections that speak Syncline's own subprotocol.

mod connection;
mod outgoing;
#[cfg(test)]
mod tests;
mod window;

pub(super) use connection::Calls;
