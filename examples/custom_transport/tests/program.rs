//! The program does the same over each transport, and the one of this example is as short as it says.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_program_does_the_same_over_each_transport() {
    for (transport, name) in [("memory", "Memory"), ("http", "Http"), ("websocket", "WebSocket"), ("unix", "Unix")] {
        let output = Command::new(env!("CARGO_BIN_EXE_custom-transport")).args(["--transport", transport]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = format!("{name}: anna sees 2 lists, the source has 2\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

/// Server and client, comments included.
#[test]
fn the_transport_has_fewer_than_100_lines() {
    let lines = include_str!("../src/lib.rs").lines().count();
    assert!((50..100).contains(&lines), "{lines} lines");
}
