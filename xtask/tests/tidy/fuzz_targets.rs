//! Each fuzz target has a program for libFuzzer, seeds, and a test on any toolchain.

use std::fs;

use crate::tree::{files, report, root};

#[test]
fn every_fuzz_target_has_a_program_seeds_and_a_test() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let manifest = read("fuzz/Cargo.toml");
    let tests =
        [read("core/tests/fuzzing.rs"), read("source-postgres/src/fuzzing.rs"), read("transport-ws/src/fuzzing.rs")]
            .concat();
    let exported = read("core/src/fuzzing/mod.rs");
    let programs = files("fuzz/fuzz_targets", &[".rs"]);
    assert!(programs.len() > 10, "only {} programs found: the walk is broken", programs.len());
    let mut complaints = Vec::new();
    let mut called = String::new();
    for program in &programs {
        let name = program.path.trim_start_matches("fuzz/fuzz_targets/").trim_end_matches(".rs");
        if !program.text.contains(&format!("::fuzzing::{name}(bytes)")) {
            complaints.push(format!("{} does not call the target `{name}`", program.path));
        }
        if !manifest.contains(&format!("name = \"{name}\"")) {
            complaints.push(format!("fuzz/Cargo.toml does not name `{name}`"));
        }
        if !tests.contains(&format!("    {name}: ")) && !tests.contains(&format!("\"{name}\"")) {
            complaints.push(format!("no test runs the fuzz target `{name}`"));
        }
        let seeds = fs::read_dir(root().join("fuzz/seeds").join(name));
        if seeds.map_or(0, Iterator::count) == 0 {
            complaints.push(format!("there are no seeds in fuzz/seeds/{name}"));
        }
        called.push_str(&program.text);
    }
    for line in exported.lines().filter_map(|line| line.strip_prefix("pub use ")) {
        let names = line.split_once("::").map_or(line, |(_, names)| names);
        for name in names.trim_matches(['{', '}', ';']).split(", ") {
            let name = name.trim_end_matches(['}', ';']);
            if !called.contains(&format!("::{name}(")) {
                complaints.push(format!("no program in fuzz/fuzz_targets runs `{name}`"));
            }
        }
    }
    report(&complaints);
}
