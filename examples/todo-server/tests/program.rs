//! What the program says when it cannot begin. `docs/getting-started.md` runs it with a client.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |variables: &[(&str, &str)]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_todo-server"));
        program.current_dir(folder.path()).env_remove("DATABASE_URL").env_remove("TOKEN_SECRET");
        let output = program.envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let url = ("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none");
    assert!(run(&[]).contains("set DATABASE_URL"));
    assert!(run(&[url]).contains("openssl rand -base64 32"));
    assert!(run(&[url, ("TOKEN_SECRET", "short")]).contains("cannot read sync.yaml"));
    std::fs::write(folder.path().join("sync.yaml"), include_str!("../sync.yaml")).unwrap();
    assert!(run(&[url, ("TOKEN_SECRET", "short")]).contains("32 or more"));
}
