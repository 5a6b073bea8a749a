//! `cargo xtask`: the commands behind the cargo aliases.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{mutations, node, postgres, programs, soak, verify};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that CI checks: format, lints, tests, docs, features, examples, the official SDK.
    Verify,
    /// The long run: many seeds of the simulated world and inputs of the fuzz targets, then kills of real processes.
    Soak(soak::Soak),
    /// Makes mistakes in a copy of the code, and looks whether the checks find them.
    Mutations(mutations::Mutations),
    /// Makes sure that there are programs of a Postgres server, and prints where.
    Postgres,
    /// Makes sure that there are Node and the official SDK for the tests, and prints where Node is.
    Node,
    /// Shows the whole way: Postgres to SQLite and back.
    Demo {
        /// Passed on to the demo.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures, and prints a table.
    Figures {
        /// Passed on to the figures program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Task::Verify => verify::run(),
        Task::Soak(soak) => soak::run(soak),
        Task::Mutations(mutations) => mutations::run(&mutations),
        Task::Postgres => postgres::ensure().map(|directory| println!("{}", directory.display())),
        Task::Node => node::ensure().map(|node| println!("{}", node.program().display())),
        Task::Demo { arguments } => programs::demo(&arguments),
        Task::Figures { arguments } => programs::figures(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
