//! A data directory fresh from `initdb`, made once per server version and copied from then on.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::binaries::{Binaries, workspace};

/// The name of every cluster's superuser.
pub(crate) const SUPERUSER: &str = "postgres";

/// Puts a new data directory at `data`, which must not exist; its parent belongs to this process or to `account`.
pub(crate) fn materialize(binaries: &Binaries, account: Account, data: &Path) -> Result<()> {
    let cache = cache_directory();
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let key: String =
        binaries.version().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let template = cache.join(format!("postgres-template-1-{key}"));

    // Only one process makes the template, and it appears under its name only when it is complete.
    let lock_path = cache.join(format!("postgres-template-1-{key}.lock"));
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if !template.is_dir() {
        initdb(binaries, account, data)?;
        let unfinished = cache.join(format!("postgres-template-1-{key}.unfinished"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
        }
        copy(data, &unfinished)?;
        fs::rename(&unfinished, &template).with_context(|| format!("cannot create {}", template.display()))?;
        return Ok(());
    }
    drop(lock);
    copy(&template, data)?;
    account.give(data)
}

/// A data directory from scratch.
pub(crate) fn initdb(binaries: &Binaries, account: Account, data: &Path) -> Result<()> {
    let output = account
        .command(&binaries.program("initdb"))
        .current_dir("/")
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--no-locale", "--username", SUPERUSER, "--pgdata"])
        .arg(data)
        .output()
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").arg("-R").arg("-p").arg(from).arg(to).output().context("cannot run cp")?;
    if !output.status.success() {
        bail!("cannot copy {} to {}: {}", from.display(), to.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn cache_directory() -> PathBuf {
    if let Some(target) = env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(target).join("tmp");
    }
    match workspace() {
        Some(root) => root.join("target/tmp"),
        None => env::temp_dir().join("syncline-postgres"),
    }
}
