//! Figures of earlier runs, one JSON object a line, beside which those of this run are put.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::figure::{Figure, number};

/// A figure as it was at some time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Seconds since 1970.
    at: u64,
    name: String,
    ours: f64,
    against: f64,
    unit: String,
    ratio: f64,
}

/// Adds figures to a file, and says of each that was there what it has become.
pub(crate) fn record(path: &Path, figures: &[Figure]) -> Result<String> {
    let before = read(path)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut lines = String::new();
    let mut changes = String::new();
    for figure in figures {
        let entry = Entry {
            at,
            name: figure.name.to_owned(),
            ours: figure.ours,
            against: figure.against,
            unit: figure.unit.to_owned(),
            ratio: figure.ratio,
        };
        if let Some(before) = before.iter().rev().find(|before| before.name == entry.name) {
            let change = (entry.ratio / before.ratio - 1.0) * 100.0;
            changes.push_str(&format!(
                "{:<22} {:>12} -> {:>12} {:<13} ratio {:.2} -> {:.2} ({change:+.0} %)\n",
                entry.name,
                number(before.ours),
                number(entry.ours),
                entry.unit,
                before.ratio,
                entry.ratio,
            ));
        }
        lines.push_str(&serde_json::to_string(&entry)?);
        lines.push('\n');
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(lines.as_bytes())?;
    Ok(changes)
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut entries = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let entry = serde_json::from_str(&line?)
            .with_context(|| format!("line {} of {} is no figure", number + 1, path.display()))?;
        entries.push(entry);
    }
    Ok(entries)
}
