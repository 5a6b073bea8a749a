//! The program itself, without a network. `docs/getting-started.md` runs it against a server.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_todo-client"));
    // A port at which nobody listens.
    program.env("SYNC_URL", "http://127.0.0.1:9").env_remove("API_URL");
    program
}

#[test]
fn reads_and_writes_work_without_a_network_and_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["anna", "Groceries"][..], r#"anna has ["Groceries"]"#),
        (&["anna", "Books"], r#"anna has ["Books", "Groceries"]"#),
    ] {
        let mut running = program()
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(running.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(said, expected);
    }
}

#[test]
fn what_is_missing_is_named() {
    let output = program().output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("name of a user"));
}
