//! The files of the project.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of the project's own making.
const FOREIGN: &[&str] =
    &["target", "node_modules", ".git", ".postgres", ".postgres-full", ".node", "corpus", "artifacts"];

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    xtask::workspace::root()
}

/// One text file.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Its path from the root, with slashes.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// All text files below a directory of the workspace, in order of their paths; what is not UTF-8 is left out.
pub(crate) fn files(below: &str, extensions: &[&str]) -> Vec<TextFile> {
    let mut found = Vec::new();
    collect(&root().join(below), extensions, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(directory: &Path, extensions: &[&str], found: &mut Vec<TextFile>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if FOREIGN.contains(&name.as_str()) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, found);
        } else if extensions.is_empty() || extensions.iter().any(|extension| name.ends_with(extension)) {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(TextFile { path, text });
        }
    }
}

/// Fails with all complaints at once.
pub(crate) fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n  {}", complaints.len(), complaints.join("\n  "));
}
