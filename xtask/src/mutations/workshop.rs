//! A copy of the workspace in which mistakes are made and looked for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::list::{Check, MEASURED, Mutation};
use crate::workspace;

/// Building may begin with all that the workspace depends on.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// So many processes count seeds beside each other.
const SHARES: u64 = 2;

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The check failed as it should.
    Caught(Duration),
    /// The check passed.
    Survived,
    /// Something else: it does not compile, hangs, or another check failed.
    Unclear(String),
}

/// What the world made of a mutation in [`MEASURED`] seeds: each seed that broke a promise, and which.
pub(super) type Broken = Vec<(u64, String)>;

/// The copy.
#[derive(Debug)]
pub(super) struct Workshop {
    directory: PathBuf,
    limit: Duration,
}

impl Workshop {
    /// Copies what is under version control, or could be, into a directory. A check that runs longer than `limit` is stopped.
    ///
    /// # Errors
    /// If git is not there, or a file cannot be copied.
    pub(super) fn new(directory: PathBuf, limit: Duration) -> Result<Self> {
        let logs = directory.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let workshop = Self { directory, limit };
        let mut git = Command::new("git");
        git.current_dir(workspace::root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = git.output().context("cannot start git")?;
        ensure!(listed.status.success(), "git cannot list the files: {}", String::from_utf8_lossy(&listed.stderr));
        for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
            workshop.copy(name).with_context(|| format!("cannot copy {name}"))?;
        }
        Ok(workshop)
    }

    fn root(&self) -> PathBuf {
        self.directory.join("workspace")
    }

    /// Copies a file if it differs, so that what was built of it before is still good.
    fn copy(&self, name: &str) -> Result<()> {
        let (from, to) = (workspace::root().join(name), self.root().join(name));
        // Listed, and deleted since.
        let Ok(bytes) = fs::read(&from) else { return Ok(()) };
        if fs::read(&to).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
        fs::copy(&from, &to)?;
        // A copy may be older than what was built of the file before.
        File::options().append(true).open(&to)?.set_modified(std::time::SystemTime::now())?;
        Ok(())
    }

    /// Makes the mistake, looks whether its check finds it, and takes it back.
    ///
    /// # Errors
    /// If it cannot be made, or a program cannot be started.
    pub(super) fn try_out(&self, mutation: &Mutation) -> Result<Verdict> {
        self.with(mutation, || {
            let (command, expected) = match mutation.check() {
                Check::World(world) => {
                    let mut command = self.world();
                    command.env("WORLD_FROM", mutation.first.to_string()).env("WORLD_SEEDS", MEASURED.to_string());
                    command.env("WORLD_PLAIN", "1");
                    (command, world.iter().map(|name| format!(" breaks {name}:")).collect::<Vec<_>>())
                }
                Check::Test(test) => {
                    let mut command = self.test(&test.package, &test.program);
                    command.args(["--", "--exact", &test.name]);
                    (command, vec![format!("test {} ... FAILED", test.name)])
                }
            };
            self.judge(mutation, command, &expected)
        })
    }

    /// Makes the mistake and counts the seeds that break a promise.
    ///
    /// # Errors
    /// If it does not compile, or a program cannot be started.
    pub(super) fn measure(&self, mutation: &Mutation) -> Result<Broken> {
        self.with(mutation, || {
            self.build(mutation, &self.world())?;
            let count = MEASURED / SHARES;
            let share = |number: u64| {
                let mut command = self.world();
                command.env("WORLD_FROM", (number * count).to_string()).env("WORLD_SEEDS", count.to_string());
                command.env("WORLD_COUNT", "1");
                let (passed, output) = self.run(&format!("{}-{number}", mutation.name), command, self.limit * 4)?;
                ensure!(passed.is_some(), "{}: {count} seeds took too long", mutation.name);
                Ok(output.lines().filter_map(broken_seed).collect::<Broken>())
            };
            let broken = thread::scope(|scope| {
                let shares = [0, SHARES - 1].map(|number| scope.spawn(move || share(number)));
                let ended = shares.into_iter().map(|share| share.join().unwrap_or_else(|_| bail!("a thread panicked")));
                ended.collect::<Result<Vec<Broken>>>()
            });
            Ok(broken?.concat())
        })
    }

    fn with<T>(&self, mutation: &Mutation, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.root().join(&mutation.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", mutation.file))?;
        fs::write(&path, mutation.applied(&text)?)?;
        let done = work();
        fs::write(&path, text)?;
        done
    }

    fn judge(&self, mutation: &Mutation, command: Command, expected: &[String]) -> Result<Verdict> {
        if let Err(error) = self.build(mutation, &command) {
            return Ok(Verdict::Unclear(format!("{error:#}")));
        }
        let began = Instant::now();
        let (passed, output) = self.run(&mutation.name, command, self.limit)?;
        Ok(match passed {
            _ if expected.iter().any(|text| output.contains(text)) => Verdict::Caught(began.elapsed()),
            Some(true) if output.contains("test result: ok. 1 passed") => Verdict::Survived,
            Some(true) => Verdict::Unclear("no such test was run".to_owned()),
            Some(false) => Verdict::Unclear(format!("it failed, but did not say {}", expected.join(" or "))),
            None => Verdict::Unclear(format!("it ran for more than {} s", self.limit.as_secs())),
        })
    }

    fn world(&self) -> Command {
        let mut command = self.test("syncline-core", "world");
        command.args(["--", "--exact", "seeds::seeds_break_no_promise", "--nocapture"]);
        command
    }

    /// The tests of a program of a package, in the copy.
    fn test(&self, package: &str, program: &str) -> Command {
        let mut command = workspace::cargo();
        command.current_dir(self.root()).env("CARGO_TARGET_DIR", self.directory.join("target"));
        command.args(["test", "--locked", "--package", package, "--all-features"]);
        match program {
            "lib" => command.arg("--lib"),
            program => command.args(["--test", program]),
        };
        command
    }

    /// Builds what a command runs.
    fn build(&self, mutation: &Mutation, of: &Command) -> Result<()> {
        let mut command = workspace::cargo();
        command.current_dir(self.root()).env("CARGO_TARGET_DIR", self.directory.join("target"));
        command.args(of.get_args().take_while(|argument| *argument != "--")).arg("--no-run");
        let (passed, output) = self.run(&mutation.name, command, BUILD_LIMIT)?;
        ensure!(
            passed == Some(true),
            "it does not compile: {}",
            output.lines().find(|line| line.starts_with("error")).unwrap_or("see the log")
        );
        Ok(())
    }

    /// Runs a command to its end: whether it passed, unless it was stopped at the limit, and all that it wrote.
    fn run(&self, name: &str, mut command: Command, limit: Duration) -> Result<(Option<bool>, String)> {
        let path = self.directory.join("logs").join(format!("{name}.txt"));
        let mut log = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let (mut output, input) = std::io::pipe()?;
        let shown = workspace::show(&command);
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        // It holds the other ends of the pipe.
        drop(command);
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(std::io::copy(&mut output, &mut log)));
        let passed = match ended.recv_timeout(limit) {
            Ok(copied) => {
                copied.with_context(|| format!("cannot write {}", path.display()))?;
                Some(child.wait()?.success())
            }
            Err(_) => {
                child.kill()?;
                child.wait()?;
                None
            }
        };
        Ok((passed, String::from_utf8_lossy(&fs::read(&path)?).into_owned()))
    }
}

/// The seed and the invariant of a line `seed 7 breaks S4: …`.
fn broken_seed(line: &str) -> Option<(u64, String)> {
    let (seed, what) = line.strip_prefix("seed ")?.split_once(" breaks ")?;
    Some((seed.parse().ok()?, what.split(':').next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_broken_seed_is_understood() {
        assert_eq!(broken_seed("seed 7 breaks S4: at checkpoint 3: more"), Some((7, "S4".to_owned())));
        assert_eq!(broken_seed("seed 7: 100 steps"), None);
    }
}
