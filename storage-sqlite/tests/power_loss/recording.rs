//! What a process did to its files, in order: made by a preloaded library (`recorder.c`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Says to the process under watch where its files are to be.
pub(crate) const DIRECTORY: &str = "SYNCLINE_RECORDED_DIRECTORY";
/// What the process writes into this file is a mark: no part of the disk.
pub(crate) const MARKS: &str = "marks";
/// Kind, file, offset, length.
const HEADER: usize = 24;

/// One call that changed something, or made sure that a change lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'r> {
    /// A file was opened. The name of the directory itself is empty.
    Open {
        file: i32,
        name: &'r str,
        created: bool,
    },
    Close {
        file: i32,
    },
    Write {
        file: i32,
        offset: usize,
        bytes: &'r [u8],
    },
    Truncate {
        file: i32,
        length: usize,
    },
    Sync {
        file: i32,
    },
    Unlink {
        name: &'r str,
    },
}

/// A process that ran, its recording, and the files as it left them.
#[derive(Debug)]
pub(crate) struct Recording {
    bytes: Vec<u8>,
    files: TempDir,
}

impl Recording {
    /// Runs the test of this name, in a process of its own whose files are watched.
    pub(crate) fn of(test: &str) -> Self {
        let (files, beside) = (directory(), directory());
        let recording = beside.path().join("recording");
        let ran = Command::new(std::env::current_exe().unwrap())
            .args([test, "--nocapture"])
            .env("LD_PRELOAD", compile(beside.path()))
            .env(DIRECTORY, files.path())
            .env("SYNCLINE_RECORDING", &recording)
            .output()
            .unwrap();
        let output = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
        assert!(ran.status.success(), "{test}: {}\n{output}", ran.status);
        let bytes = fs::read(recording).unwrap();
        assert!(!bytes.is_empty(), "{test} did nothing:\n{output}");
        Self { bytes, files }
    }

    /// Where the files are as the process left them.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        let (mut steps, mut rest) = (Vec::new(), &self.bytes[..]);
        while !rest.is_empty() {
            let (header, after) = rest.split_at(HEADER);
            let number =
                |at: usize| usize::try_from(u64::from_ne_bytes(header[at..at + 8].try_into().unwrap())).unwrap();
            let kind = u32::from_ne_bytes(header[..4].try_into().unwrap());
            let file = i32::from_ne_bytes(header[4..8].try_into().unwrap());
            let (bytes, after) = after.split_at(number(16));
            let name = || std::str::from_utf8(bytes).unwrap();
            steps.push(match char::from_u32(kind) {
                Some('o') => Step::Open { file, name: name(), created: false },
                Some('c') => Step::Open { file, name: name(), created: true },
                Some('x') => Step::Close { file },
                Some('w') => Step::Write { file, offset: number(8), bytes },
                Some('t') => Step::Truncate { file, length: number(8) },
                Some('s') => Step::Sync { file },
                Some('u') => Step::Unlink { name: name() },
                other => panic!("nobody has said what a disk makes of {other:?}"),
            });
            rest = after;
        }
        steps
    }
}

/// Compiles the library that records.
fn compile(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_loss/recorder.c");
    let library = directory.join("recorder.so");
    // Checked variants of calls, which some systems' headers bring in, would get in the way of functions of that name.
    let flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-U_FORTIFY_SOURCE", "-o"];
    let compiled = Command::new("cc").args(flags).args([&library, &source]).args(["-ldl", "-lpthread"]).output();
    let compiled = compiled.unwrap_or_else(|error| panic!("this test needs a C compiler named `cc`: {error}"));
    assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    library
}

/// A place for files, in memory where the system has one for that: what a sync does to a disk is not asked here.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("syncline-power-");
    if memory.is_dir() { builder.tempdir_in(memory).unwrap() } else { builder.tempdir().unwrap() }
}
