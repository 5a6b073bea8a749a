//! A Syncline server with a config file: the program to start from if none of your own code is to run in it.
//!
//! It replicates one Postgres database into one file and serves sync streams to any PowerSync client. Writes go to an
//! endpoint of your own (see the example `syncline-backend`).
//!
//! ```text
//! syncline-server --config syncline.toml check   # says what is wrong: settings, sync config, database, store, address
//! syncline-server --config syncline.toml check --explain rows.json --user anna   # and which rows a user gets, and why
//! syncline-server --config syncline.toml explain --user anna rows.json   # the latter alone, without a database
//! syncline-server --config syncline.toml         # runs
//! ```
//!
//! `DATABASE_URL`, `SYNCLINE_LISTEN` and `SYNCLINE_HS256_SECRET` override the file, `RUST_LOG` says what is logged (`info` by
//! default). Ctrl-C and SIGTERM end the open streams in an orderly way; clients connect again by themselves. What must be
//! prepared in Postgres is a setting, `wal_level = logical`, and two statements: a publication, and a role that may
//! replicate (`docs/postgres.md`).
//!
//! When replication stops because a person is needed, what is stored is served on, and replication is tried again now and
//! then; without anything stored the program ends.
//!
//! `syncline.toml` and `sync.yaml` beside this program's sources show all settings.

mod check;
mod explain;
mod limits;
mod replication;
mod serve;
mod settings;
mod status_log;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use settings::Settings;

/// Replicates a Postgres database and serves sync streams.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The file with the settings.
    #[arg(long, env = "SYNCLINE_CONFIG", default_value = "syncline.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Runs the server; this is the default.
    Run,
    /// Says what is wrong with the settings, the sync config, the database, the store and the address, and changes nothing.
    Check(check::Manner),
    /// Says for each row of a file whether the sync config gives it to a user, and why; needs neither database nor store.
    Explain(explain::Question),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match (arguments.command.unwrap_or(Command::Run), Settings::read(&arguments.config)) {
        (_, Err(error)) => Err(error),
        (Command::Explain(question), Ok(settings)) => explain::explain(&settings, &question),
        (Command::Check(manner), Ok(settings)) => check::check(&settings, &manner).await,
        (Command::Run, Ok(settings)) => serve::run(&settings).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
