//! The programs that an alias builds and runs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{postgres, workspace};

/// Builds and runs `examples/demo`, after making sure that there is a Postgres to run it with.
///
/// # Errors
/// If there is no Postgres to be had, or if the demo fails.
pub fn demo(arguments: &[String]) -> Result<()> {
    run(&mut demo_command(arguments, std::env::var_os("DATABASE_URL").is_some())?)
}

/// What [`demo`] runs. With a server of the user's own, no programs of a server are needed.
///
/// # Errors
/// If there is no Postgres to be had.
pub fn demo_command(arguments: &[String], own_server: bool) -> Result<Command> {
    if !own_server {
        postgres::ensure()?;
    }
    Ok(package("syncline-demo", &[], arguments))
}

/// Builds the figures program with optimisation and runs it.
///
/// # Errors
/// If there is no Postgres to be had, or if the program fails.
pub fn figures(arguments: &[String]) -> Result<()> {
    run(with_log_client(&mut package("figures", &["--release"], arguments))?)
}

/// Has the figures program use a server whose programs include the client of the log that it compares with.
///
/// # Errors
/// If there is none to be had.
pub fn with_log_client(command: &mut Command) -> Result<&mut Command> {
    Ok(command.env("PG_BIN", postgres::ensure_with_log_client()?))
}

fn package(name: &str, options: &[&str], arguments: &[String]) -> Command {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--locked", "--package", name]).args(options).arg("--").args(arguments);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "`{}` ended with {status}", workspace::show(command));
    Ok(())
}
