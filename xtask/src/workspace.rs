//! Where the workspace and its programs are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> &'static Path {
    // The manifest of this crate is one level below the root, in every clone.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that runs this program, at the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The directory that cargo puts programs into: the one that this program was started from.
///
/// # Errors
/// If the system does not tell where this program is.
pub fn programs_directory() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find out where this program is")?;
    // A test's program lies one level deeper, in `deps`.
    let directory = own.parent().context("this program has no directory")?;
    Ok(if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory }.to_owned())
}

/// Holds a lock file of the workspace until dropped, so that two processes do not install the same thing at once.
///
/// # Errors
/// If the file cannot be made or locked.
pub fn lock(name: &str) -> Result<File> {
    let directory = root().join("target");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The path of a program that `$PATH` has, if it does.
pub fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Runs a command to its end, its output passed through to standard error. What fetches from a registry may hang for ever: it
/// is killed once it has run for `limit`.
///
/// # Errors
/// If it cannot be started, fails, or takes too long; the message names the command.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let shown = show(command);
    eprintln!("+ {shown}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for `{shown}`"))? {
            anyhow::ensure!(status.success(), "`{shown}` failed: {status}");
            return Ok(());
        }
        if started.elapsed() >= limit {
            child.kill().with_context(|| format!("cannot stop `{shown}`"))?;
            child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
            anyhow::bail!("`{shown}` was still running after {} s and was stopped", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A command as one would type it.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| {
            let word = word.to_string_lossy();
            let name = Path::new(word.as_ref()).file_name().unwrap_or_default().to_string_lossy();
            if name == "cargo" { name.into_owned() } else { word.into_owned() }
        })
        .collect();
    words.join(" ")
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // A process owns the entry of itself.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_takes_too_long_is_stopped() {
        let started = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(error.to_string().contains("still running"), "{error:#}");
        assert!(run(&mut Command::new("false"), Duration::from_secs(30)).is_err());
        run(&mut Command::new("true"), Duration::from_secs(30)).unwrap();
    }
}
