//! The program itself, with a Postgres that lacks what one figure needs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use postgres_fixture::Binaries;
use serde_json::Value;

#[test]
fn a_figure_that_fails_does_not_take_the_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Binaries::find().unwrap().program("postgres");
    for program in fs::read_dir(server.parent().unwrap()).unwrap().map(Result::unwrap) {
        if program.file_name() != "pg_recvlogical" {
            symlink(program.path(), folder.path().join(program.file_name())).unwrap();
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_figures"))
        .args(["--only", "wal_receive,snapshot", "--rows", "500", "--changes", "500", "--runs", "1", "--json"])
        .env("PG_BIN", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("wal_receive FAILED: cannot run pg_recvlogical"), "{said}");
    assert!(said.contains("could not be measured: wal_receive"), "{said}");
    let figures: Vec<Value> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(figures.len(), 1, "{said}");
    assert_eq!(figures[0]["name"], "snapshot");
    assert!(figures[0]["ours"].as_f64().unwrap() > 0.0);
}
