//! Loses the power at many moments of a recording, and has each disk looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use syncline_storage_sqlite::rusqlite::Connection;
use tempfile::TempDir;

use crate::chance::Chance;
use crate::disk::{Disk, Ignored};
use crate::recording::{DIRECTORY, MARKS, Recording, Step, directory};

/// What is wrong with a store after a power loss.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// Something that was acknowledged is not there.
    Lost(String),
    /// It cannot be opened or read, or holds what nobody ever wrote.
    Broken(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "lost: {what}"),
            Self::Broken(what) => write!(f, "broken: {what}"),
        }
    }
}

impl Wrong {
    /// For errors of the store, none of which is expected.
    pub(crate) fn broken(error: impl std::fmt::Debug) -> Self {
        Self::Broken(format!("{error:?}"))
    }
}

/// `Broken` unless this holds.
pub(crate) fn sound(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong::Broken(otherwise())) }
}

/// What is there must be what was acknowledged, or one more that was at work.
pub(crate) fn last(what: &str, found: u64, acknowledged: u64) -> Result<(), Wrong> {
    if found < acknowledged {
        return Err(Wrong::Lost(format!("{what} {acknowledged}: the last that is there is {found}")));
    }
    sound(found <= acknowledged + 1, || format!("{what} {found} is there, and {acknowledged} was the last"))
}

/// SQLite's own opinion of a file.
pub(crate) fn check_integrity(path: &Path) -> Result<(), Wrong> {
    let opinion = Connection::open(path)
        .and_then(|connection| connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    match opinion {
        Ok(opinion) => sound(opinion == "ok", || format!("{}: {opinion}", path.display())),
        Err(error) => Err(Wrong::broken(error)),
    }
}

/// Where work with a store notes what was acknowledged: for whoever records it, or for nobody.
pub(crate) struct Notes {
    file: fs::File,
    /// The files of work that nobody records.
    own: Option<TempDir>,
}

impl Notes {
    /// The notes, and where the files are to be.
    pub(crate) fn begin() -> (Self, PathBuf) {
        let (own, place) = match env::var_os(DIRECTORY) {
            Some(place) => (None, PathBuf::from(place)),
            None => {
                let own = directory();
                let place = own.path().to_owned();
                (Some(own), place)
            }
        };
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(place.join(MARKS)).unwrap();
        (Self { file, own }, place)
    }

    /// A process that is recorded ends here, without closing anything.
    pub(crate) fn end(self) {
        if self.own.is_none() {
            std::process::exit(0);
        }
    }

    /// Notes a number under a name. It holds for the power losses from here on.
    pub(crate) fn note(&mut self, what: &str, number: u64) {
        // One call: a mark is there whole.
        self.file.write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    }
}

/// The last number that was noted under each name.
#[derive(Debug, Default)]
pub(crate) struct Noted(BTreeMap<String, u64>);

impl Noted {
    pub(crate) fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    fn add(&mut self, mark: &str) {
        let (what, number) = mark.split_once(' ').unwrap();
        self.0.insert(what.to_owned(), number.parse().unwrap());
    }
}

/// Looks at a store in a directory.
pub(crate) type Look = fn(&Path, &Noted) -> Result<(), Wrong>;

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Loses the power at so many moments, and answers what was wrong then, and with how much noted.
fn losses(recording: &Recording, ignored: Ignored, cuts: usize, look: Look) -> Vec<(String, Wrong)> {
    let seed = number("POWER_LOSS_SEED", 1);
    let steps = recording.steps();
    let cuts = moments(&steps, cuts, &mut Chance::new(seed));
    let (mut disk, mut noted, mut wrong) = (Disk::new(ignored), Noted::default(), Vec::new());
    for (moment, step) in steps.into_iter().enumerate() {
        if let Some(mark) = disk.step(step) {
            noted.add(mark);
        }
        if cuts.contains(&moment) {
            let left = directory();
            disk.lose_power(&mut Chance::new(seed ^ (moment as u64) << 20), left.path());
            if let Err(what) = look(left.path(), &noted) {
                wrong.push((format!("after step {moment} of seed {seed}, when {noted:?}"), what));
            }
        }
    }
    wrong
}

/// After which steps the power is lost: half of them those with a mark, those with a sync and those before one, or all of
/// these if that is not more; the others anywhere.
fn moments(steps: &[Step<'_>], count: usize, chance: &mut Chance) -> BTreeSet<usize> {
    let mut marks = BTreeSet::new();
    let mut choices = Vec::new();
    for (moment, step) in steps.iter().enumerate() {
        match step {
            Step::Open { file, name, .. } if *name == MARKS => drop(marks.insert(*file)),
            Step::Sync { .. } => choices.extend([moment.saturating_sub(1), moment]),
            Step::Write { file, .. } if marks.contains(file) => choices.push(moment),
            _ => {}
        }
    }
    let mut moments = BTreeSet::from([steps.len() - 1]);
    while moments.len() < count / 2 && !choices.is_empty() {
        moments.insert(choices.swap_remove(chance.below(choices.len())));
    }
    while moments.len() < count.min(steps.len()) {
        moments.insert(chance.below(steps.len()));
    }
    moments
}

/// How often the log of this name was begun, in a new file or from the beginning of the old one.
fn logs(steps: &[Step<'_>], name: &str) -> usize {
    let (mut names, mut begun) = (BTreeMap::new(), 0);
    for step in steps {
        match step {
            Step::Open { file, name, .. } => drop(names.insert(file, *name)),
            Step::Write { file, offset: 0, .. } if names[file] == name => begun += 1,
            _ => {}
        }
    }
    begun
}

/// What this process acknowledges survives; and the recording is whole.
pub(crate) fn check_honest_disk(process: &str, file: &str, look: Look) {
    let began = Instant::now();
    let recording = Recording::of(process);
    let ran = began.elapsed();
    let steps = recording.steps();
    let mut disk = Disk::new(Ignored::Nothing);
    for step in &steps {
        disk.step(*step);
    }
    let files = disk.now();
    assert!(files.contains_key(file), "{:?}", files.keys());
    // Otherwise something was done that was not recorded.
    for entry in fs::read_dir(recording.files()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(files.contains_key(&*name) || name.ends_with("-shm") || name == MARKS, "nobody made {name}");
    }
    for (name, bytes) in files {
        assert!(fs::read(recording.files().join(name)).unwrap() == bytes, "{name} is another one on the real disk");
    }
    let begun = logs(&steps, &format!("{file}-wal"));
    assert!(begun >= 4, "the log began only {begun} times: nothing is overwritten that must have been moved before");
    let cuts = usize::try_from(number("POWER_LOSS_CUTS", 200)).unwrap();
    let wrong = losses(&recording, Ignored::Nothing, cuts, look);
    if env::var_os("POWER_LOSS_VERBOSE").is_some() {
        let syncs = steps.iter().filter(|step| matches!(step, Step::Sync { .. })).count();
        println!(
            "{} steps, {syncs} syncs, {begun} logs, recorded in {ran:?}; {cuts} power losses in {:?}",
            steps.len(),
            began.elapsed() - ran
        );
    }
    if let Some((when, first)) = wrong.first() {
        panic!("{} of {cuts} power losses were not survived; {when}: {first}", wrong.len());
    }
}

/// The check above can fail. On a disk that ignores every sync, or only those of one of the logs, something that was
/// acknowledged is lost; and on one that ignores those of the database, something is wrong, as the log begins anew when it was
/// moved into the database.
pub(crate) fn check_other_disks(process: &str, file: &'static str, logs: &[&'static str], look: Look) {
    let recording = Recording::of(process);
    for ignored in logs.iter().map(|log| Ignored::File(log)).chain([Ignored::Everything]) {
        let wrong = losses(&recording, ignored, 20, look);
        assert!(wrong.iter().any(|(_, wrong)| matches!(wrong, Wrong::Lost(_))), "{ignored:?}: {wrong:#?}");
    }
    let wrong = losses(&recording, Ignored::File(file), 20, look);
    assert!(!wrong.is_empty(), "{file} need not be synced, it seems");
}
