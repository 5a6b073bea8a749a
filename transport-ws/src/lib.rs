//! The place of a transport over WebSocket: RSocket, as the official SDKs for JavaScript may use it, and a compact protocol
//! between Syncline's own server and client.
//!
//! It is empty so far, and not published. Everything syncs over HTTP streams, by `syncline-transport-http`; the adapter is a
//! crate of its own so that whoever needs no WebSocket compiles none.
