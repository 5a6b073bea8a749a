//! What a config means: the compiled engine against the naive evaluator, over made-up configs, rows, changes and users.
//!
//! `CONFIG_CASES` says how many; `CONFIG_SEED` makes others.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

mod configs;
mod dice;
mod engine;
mod joins;
mod law;
mod old_streams;
mod rules;
mod users;
mod values;
