//! The account a server runs under: Postgres refuses to be root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// The user of this process.
    Own,
    /// Another one, since this process is root.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Account {
    /// Decides by the owner of a directory that this process has just made.
    pub(crate) fn for_owner_of(directory: &Path) -> Result<Self> {
        let uid = fs::metadata(directory).with_context(|| format!("cannot look at {}", directory.display()))?.uid();
        if uid != 0 {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        for wanted in ["postgres", "nobody"] {
            for line in passwd.lines() {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, uid, gid, ..] = fields.as_slice() else { continue };
                if *name == wanted {
                    return Ok(Self::Other {
                        uid: uid.parse().with_context(|| format!("odd user id of {wanted} in /etc/passwd"))?,
                        gid: gid.parse().with_context(|| format!("odd group id of {wanted} in /etc/passwd"))?,
                    });
                }
            }
        }
        bail!("Postgres does not run as root, and there is neither a user `postgres` nor `nobody` to run it as")
    }

    /// A command that runs as this account, in a process group of its own so that signals of a terminal or of a test
    /// runner do not reach it.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.process_group(0).env_remove("PGDATA").env_remove("PGPORT").env("LC_ALL", "C").env("TZ", "UTC");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes sure that this account can execute a program: one below a folder that is closed to others, such as `/root`,
    /// is not within its reach.
    ///
    /// # Errors
    /// If it cannot; the message says what is closed and what to do.
    pub(crate) fn check_reach(self, program: &Path) -> Result<()> {
        let Self::Other { uid, .. } = self else { return Ok(()) };
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        let started = self.command(&program).arg("--version").current_dir("/").output();
        if started.as_ref().is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        let is_closed = |folder: &&Path| fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 == 0);
        let closed = program.ancestors().filter(is_closed).last();
        match closed {
            Some(closed) => bail!(
                "Postgres does not run as root, and user {uid}, who would run it, cannot reach {}, because {} is closed to \
                 others: put the workspace elsewhere, or install Postgres for the whole system, or set PG_BIN",
                program.display(),
                closed.display()
            ),
            None => bail!("user {uid} cannot run {}: {started:?}", program.display()),
        }
    }

    /// Hands a file or a directory with all it contains to this account.
    pub(crate) fn give(self, path: &Path) -> Result<()> {
        let Self::Other { uid, gid } = self else { return Ok(()) };
        let give = |path: &Path| {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to user {uid}", path.display()))
        };
        give(path)?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.give(&entry?.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_in_a_folder_that_is_closed_to_others_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let account = Account::for_owner_of(directory.path()).unwrap();
        let program = directory.path().join("open").join("postgres");
        fs::create_dir(directory.path().join("open")).unwrap();
        fs::write(&program, "#!/bin/sh\necho fine\n").unwrap();
        for path in [program.as_path(), program.parent().unwrap()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let reach = account.check_reach(&program);
        if account == Account::Own {
            return reach.unwrap();
        }
        let error = reach.unwrap_err().to_string();
        let closed = directory.path().canonicalize().unwrap();
        assert!(error.contains(&format!("because {} is closed", closed.display())), "{error}");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        account.check_reach(&program).unwrap();
    }
}
