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
