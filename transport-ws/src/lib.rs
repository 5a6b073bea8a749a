//! RSocket over WebSocket for Syncline, as the official SDKs for JavaScript and Kotlin may use it.

pub mod frame;
#[cfg(test)]
mod hex;
