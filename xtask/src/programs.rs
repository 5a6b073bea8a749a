//! The programs that an alias builds and runs.

use anyhow::Result;

use crate::{postgres, workspace};

/// Builds and runs `examples/demo`, after making sure that there is a Postgres to run it with.
///
/// # Errors
/// If there is no Postgres to be had, or if the demo fails.
pub fn demo(arguments: &[String]) -> Result<()> {
    // With a server of the user's own, no programs of a server are needed here.
    if std::env::var_os("DATABASE_URL").is_none() {
        postgres::ensure()?;
    }
    package("syncline-demo", &[], arguments)
}

/// Builds the figures program with optimisation and runs it.
///
/// # Errors
/// If there is no Postgres to be had, or if the program fails.
pub fn figures(arguments: &[String]) -> Result<()> {
    postgres::ensure()?;
    package("figures", &["--release"], arguments)
}

fn package(name: &str, options: &[&str], arguments: &[String]) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--locked", "--package", name]).args(options).arg("--").args(arguments);
    let status = command.status()?;
    anyhow::ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
