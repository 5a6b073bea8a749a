//! What the stores acknowledge survives a power loss: a process works with the real stores while all that it does to its
//! files is recorded, and from the recording a disk is made that lost its power at some moment, with what must be there and a
//! part of what need not.
//!
//! `POWER_LOSS_CUTS` says at how many moments, `POWER_LOSS_SEED` which ones and what is left then; `POWER_LOSS_VERBOSE` shows
//! figures.
#![cfg(all(target_os = "linux", feature = "bucket-store", feature = "database"))]
#![allow(clippy::unwrap_used)]

mod buckets;
mod chance;
mod device;
mod disk;
mod power;
mod recording;
mod server;
