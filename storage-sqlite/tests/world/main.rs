//! The simulated world over the real stores: every schedule of crashes that it tries is tried on SQLite's files, which lose
//! what was not synced.
#![cfg(all(feature = "bucket-store", feature = "database"))]
#![allow(clippy::unwrap_used)]

mod bell;
mod buckets;
mod confirmed_numbers;
mod device;
mod disk_file;
mod screen;
mod seeds;
mod stand_ins;
mod stores;
mod stories;
