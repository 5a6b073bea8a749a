//! One step of a longer check: a command with a limit, whose output is passed on and read along.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// What a step printed and how long it took.
#[derive(Debug)]
pub struct Outcome {
    /// From start to end.
    pub took: Duration,
    /// How many tests passed, as the test runners' own closing lines say.
    pub tests: u64,
    /// What it wrote to its standard output.
    pub printed: String,
}

/// Runs a command to its end and passes its output on.
///
/// # Errors
/// If it cannot be started, fails, or is still running after `limit`; it is then killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let shown = workspace::show(command);
    println!("    $ {shown}");
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().context("the command has no standard output")?;
    let stderr = child.stderr.take().context("the command has no standard error")?;
    let readers =
        [pass_on(stdout, std::io::stdout(), true, sender.clone()), pass_on(stderr, std::io::stderr(), false, sender)];

    let (mut tests, mut printed) = (0, String::new());
    loop {
        match lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
            Ok((line, is_printed)) => {
                tests += passed_tests(&line);
                if is_printed {
                    printed.extend([&line, "\n"]);
                }
            }
            // Both ends are closed: the command has ended, or will print nothing more.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().context("cannot stop a command that takes too long")?;
                child.wait().context("cannot wait for a stopped command")?;
                bail!("`{shown}` was still running after {} s and was stopped", limit.as_secs());
            }
        }
    }
    for reader in readers {
        reader.join().map_err(|_| anyhow::anyhow!("reading the output of `{shown}` panicked"))?;
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(Outcome { took: started.elapsed(), tests, printed })
}

fn pass_on(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    is_printed: bool,
    lines: mpsc::Sender<(String, bool)>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            // A closed terminal is no reason to stop the check.
            let written = to.write_all(&line).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush());
            let sent = lines.send((String::from_utf8_lossy(&line).into_owned(), is_printed));
            if written.is_err() && sent.is_err() {
                break;
            }
        }
    })
}

/// How many tests a closing line of `cargo nextest` or `cargo test` says have passed; 0 for any other line.
pub fn passed_tests(line: &str) -> u64 {
    let line = without_colour(line);
    let line = line.trim();
    let counted = if line.starts_with("Summary [") {
        line.split_once("run:").map(|(_, rest)| rest)
    } else {
        line.strip_prefix("test result:").and_then(|rest| rest.split_once(". ")).map(|(_, rest)| rest)
    };
    let Some(counted) = counted else { return 0 };
    let words: Vec<&str> = counted.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[1].trim_end_matches([',', ';']) == "passed")
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, tail)| tail);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn closing_lines_of_test_runners_are_counted() {
        assert_eq!(passed_tests("     Summary [   0.01s] 12 tests run: 11 passed (1 slow), 1 failed, 0 skipped"), 11);
        assert_eq!(passed_tests("test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"), 7);
        assert_eq!(passed_tests("test result: FAILED. 3 passed; 1 failed; 0 ignored"), 3);
        assert_eq!(
            passed_tests(
                "\u{1b}[32;1m     Summary\u{1b}[0m [   0.01s] \u{1b}[1m5\u{1b}[0m tests run: \u{1b}[1m5\u{1b}[0m passed, 0 skipped"
            ),
            5
        );
        assert_eq!(passed_tests("        PASS [   0.01s] 4 passed"), 0);
    }

    #[test]
    fn a_command_that_takes_too_long_is_stopped() {
        let started = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(error.to_string().contains("still running"), "{error:#}");
    }

    #[test]
    fn what_a_command_prints_is_kept() {
        let outcome =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; echo more"]), Duration::from_secs(30));
        assert_eq!(outcome.unwrap().printed, "out\nmore\n");
    }

    #[test]
    fn a_failing_command_is_an_error() {
        assert!(run(&mut Command::new("false"), Duration::from_secs(30)).is_err());
    }
}
