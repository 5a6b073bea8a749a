//! One run of the server process, and the watchdog that ends it if this process dies.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::binaries::Binaries;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Waits for its input to end, which it does when the process that holds the other side is gone, then ends the server
/// that runs in `$1/data` and removes `$1`. The check of `PG_VERSION` is against an unlucky `$1`.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
while read -r word; do :; done
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -s QUIT "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -s KILL "$pid" 2>/dev/null
fi
[ -f "$1/data/PG_VERSION" ] && rm -rf "$1"
exit 0
"#;

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Disconnects everybody and writes a shutdown checkpoint.
    Fast,
    /// Ends at once without a checkpoint, as a crash would: recovery follows at the next start.
    Immediate,
}

/// A process that removes a cluster when this one is gone.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Begins before the server does, so that no moment is unwatched.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let child = Account::Own
            .command(Path::new("sh"))
            .args(["-c", WATCHDOG, "syncline-postgres-watchdog"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the watchdog of a Postgres cluster")?;
        Ok(Self { child })
    }

    /// Lets it do its work now, and waits for that.
    pub(crate) fn release(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        wait(&mut self.child, STOP_LIMIT, "the watchdog of a Postgres cluster").map(|_| ())
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
}

impl Server {
    /// Starts it and waits until it accepts connections.
    pub(crate) fn start(binaries: &Binaries, account: Account, data: &Path, log: &Path) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let logged_before = fs::metadata(log).map(|metadata| metadata.len()).unwrap_or(0);
        let child = account
            .command(&binaries.program("postgres"))
            .arg("-D")
            .arg(data)
            .current_dir(data)
            .stdin(Stdio::null())
            .stdout(open().with_context(|| format!("cannot open {}", log.display()))?)
            .stderr(open()?)
            .spawn()
            .context("cannot start postgres")?;
        let mut server = Self { child, data: data.to_owned() };
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if server.is_ready() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait().context("cannot wait for postgres")? {
                bail!("postgres ended at once ({status}); it logged:\n{}", tail(log, logged_before));
            }
            if Instant::now() > deadline {
                server.kill();
                bail!("postgres was not ready after {START_LIMIT:?}; it logged:\n{}", tail(log, logged_before));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server writes its state into line 8 of its pid file, and its pid into line 1.
    fn is_ready(&self) -> bool {
        let Ok(text) = fs::read_to_string(self.data.join("postmaster.pid")) else { return false };
        let mut lines = text.lines();
        lines.next().is_some_and(|pid| pid.trim() == self.pid().to_string())
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and waits until it is gone.
    pub(crate) fn stop(&mut self, stop: Stop) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let signal = match stop {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        signal_process(signal, self.pid())?;
        wait(&mut self.child, STOP_LIMIT, "postgres").map(|_| ())
    }

    /// The end of all patience.
    pub(crate) fn kill(&mut self) {
        // It fails only if the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name to a process of ours.
pub(crate) fn signal_process(signal: &str, pid: u32) -> Result<()> {
    let output = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal])
        .arg(pid.to_string())
        .output()
        .context("cannot run sh")?;
    if !output.status.success() {
        bail!("cannot send {signal} to process {pid}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn wait(child: &mut Child, limit: Duration, what: &str) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {what}"))? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!("{what} did not end within {limit:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn tail(log: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| file.read_to_end(&mut text));
    match read {
        Ok(_) => {
            let new = text.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
            String::from_utf8_lossy(&new[new.len().saturating_sub(4000)..]).into_owned()
        }
        Err(error) => format!("(the log cannot be read: {error})"),
    }
}
