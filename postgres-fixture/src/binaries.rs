//! Where the programs of a Postgres server are.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The programs of one Postgres installation.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
    version: String,
}

impl Binaries {
    /// Looks, in this order, at `$PG_BIN`, at `pg_config --bindir`, at `/usr/lib/postgresql/*/bin` (the newest), and at
    /// `bin` in `$SYNCLINE_POSTGRES_DIR`, in `.postgres` of the workspace and in `~/.cache/syncline/postgres`. A server
    /// that speaks TLS is preferred; one older than 14 is passed over.
    ///
    /// # Errors
    /// If `PG_BIN` is set but holds no server, or if there is none anywhere: the message says what to do.
    pub fn find() -> Result<Self> {
        if let Some(directory) = env::var_os("PG_BIN") {
            let directory = PathBuf::from(directory);
            return Self::at(&directory)
                .with_context(|| format!("PG_BIN names {}, which holds no usable server", directory.display()));
        }
        let mut passed_over = String::new();
        let mut without_tls = None;
        for directory in candidates() {
            if !directory.join("postgres").is_file() || !directory.join("initdb").is_file() {
                continue;
            }
            match Self::at(&directory) {
                Ok(found) if speaks_tls(&directory) => return Ok(found),
                Ok(found) => without_tls = without_tls.or(Some(found)),
                Err(error) => passed_over.push_str(&format!("; {error:#}")),
            }
        }
        if let Some(found) = without_tls {
            return Ok(found);
        }
        bail!(
            "no Postgres server found{passed_over}: run `cargo xtask postgres`, or install one (`apt-get install postgresql`), \
             or set PG_BIN to the directory that holds `postgres` and `initdb`"
        )
    }

    /// The installation whose programs are in `directory`.
    ///
    /// # Errors
    /// If `postgres` or `initdb` is not there or does not run, or if it is older than 14.
    pub fn at(directory: &Path) -> Result<Self> {
        let initdb = directory.join("initdb");
        if !initdb.is_file() {
            bail!("there is no {}", initdb.display());
        }
        let postgres = directory.join("postgres");
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", postgres.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || version.is_empty() {
            bail!("{} --version failed: {}", postgres.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        match major(&version) {
            Some(major) if major >= OLDEST => Ok(Self { directory: directory.to_owned(), version }),
            Some(_) => bail!("{} is {version}, and {OLDEST} is the oldest that will do", postgres.display()),
            None => bail!("{} --version says {version:?}, which is no version", postgres.display()),
        }
    }

    /// The path of one program, such as `pg_recvlogical`; it may not be part of every installation.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What `postgres --version` says.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The oldest server that Syncline replicates from.
const OLDEST: u32 = 14;

/// Reads `postgres (PostgreSQL) 16.4 (Debian 16.4-1)`, and `19beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the server was built with OpenSSL: then it names this function.
fn speaks_tls(directory: &Path) -> bool {
    const FUNCTION: &[u8] = b"SSL_CTX_new";
    fs::read(directory.join("postgres"))
        .is_ok_and(|program| program.windows(FUNCTION.len()).any(|part| part == FUNCTION))
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        found.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
    }
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    installed.sort();
    found.extend(installed.into_iter().rev().map(|(_, path)| path));
    let own = [
        env::var_os("SYNCLINE_POSTGRES_DIR"),
        workspace().map(|root| root.join(".postgres").into_os_string()),
        env::var_os("HOME").map(|home: OsString| Path::new(&home).join(".cache/syncline/postgres").into_os_string()),
    ];
    found.extend(own.into_iter().flatten().map(|root| PathBuf::from(root).join("bin")));
    found
}

/// The root of the workspace that this crate was built in, if it is still there.
pub(crate) fn workspace() -> Option<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.is_dir())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_none() {
        let directory = tempfile::tempdir().unwrap();
        for (version, will_do) in
            [("9.6.24", false), ("13.21 (Debian 13.21-1)", false), ("14.0", true), ("19beta1", true)]
        {
            for program in ["initdb", "postgres"] {
                let path = directory.path().join(program);
                fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            assert_eq!(Binaries::at(directory.path()).is_ok(), will_do, "{version}");
        }
    }
}
