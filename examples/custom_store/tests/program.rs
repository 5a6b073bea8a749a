//! The program runs, and finds after a restart what it had committed.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// What the program prints.
fn run(journal: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_custom-store")).arg(journal).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_program_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("buckets.journal");
    assert_eq!(run(&journal), "anna sees 2 lists\n");
    let again = run(&journal);
    assert!(again.starts_with("the journal holds a checkpoint: "), "{again}");
    assert!(again.ends_with("anna sees 2 lists\n"), "{again}");
}
