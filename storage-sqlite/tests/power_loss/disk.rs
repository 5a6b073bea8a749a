//! A disk, and what it has after a power loss.
//!
//! It promises as little as POSIX does. What was written to a file is there once the file was synced; that a name leads to a
//! file, or that it is gone, is sure once the directory was synced: syncing the file is not enough. Of what came later, any
//! part may be there, whatever the order: of the states that a name has had, any one; of a write, all, nothing, a beginning,
//! or any of its sectors, some of them with garbage where it wrote. Bytes that no write names stay as they are, also in a
//! sector that is half overwritten, as SQLite takes for granted (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::chance::Chance;
use crate::recording::{MARKS, Step};

/// What a disk writes whole or not at all, were it not for garbage.
const SECTOR: usize = 512;

/// Which syncs the disk ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// None: an honest disk.
    Nothing,
    /// All of them.
    Everything,
    /// Those of the files of this name.
    File(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Change<'r> {
    Write { offset: usize, bytes: &'r [u8] },
    Truncate(usize),
}

/// A file, whatever its name.
#[derive(Debug, Default)]
struct File<'r> {
    name: &'r str,
    synced: Vec<u8>,
    /// Since then.
    unsynced: Vec<Change<'r>>,
}

/// What a descriptor leads to.
#[derive(Debug, Clone, Copy)]
enum Opened {
    Directory,
    Marks,
    File(usize),
}

#[derive(Debug)]
pub(crate) struct Disk<'r> {
    ignored: Ignored,
    files: Vec<File<'r>>,
    /// Which file each name led to, the first when the directory was last synced, the last now.
    names: BTreeMap<&'r str, Vec<Option<usize>>>,
    opened: HashMap<i32, Opened>,
}

impl<'r> Disk<'r> {
    pub(crate) fn new(ignored: Ignored) -> Self {
        Self { ignored, files: Vec::new(), names: BTreeMap::new(), opened: HashMap::new() }
    }

    /// The next call of the process. What it wrote if that was a mark.
    pub(crate) fn step(&mut self, step: Step<'r>) -> Option<&'r str> {
        match step {
            Step::Open { file, name, created } => {
                let opened = self.open(name, created);
                self.opened.insert(file, opened);
            }
            Step::Close { file } => {
                self.opened.remove(&file);
            }
            Step::Write { file, offset, bytes } => match self.opened[&file] {
                Opened::Marks => return Some(std::str::from_utf8(bytes).unwrap().trim()),
                Opened::File(file) => self.files[file].unsynced.push(Change::Write { offset, bytes }),
                Opened::Directory => panic!("nobody writes to a directory"),
            },
            Step::Truncate { file, length } => match self.opened[&file] {
                Opened::File(file) => self.files[file].unsynced.push(Change::Truncate(length)),
                other => panic!("{other:?} cannot be cut"),
            },
            Step::Sync { file } => self.sync(self.opened[&file]),
            Step::Unlink { name } => self.names.get_mut(name).unwrap().push(None),
        }
        None
    }

    fn open(&mut self, name: &'r str, created: bool) -> Opened {
        if name.is_empty() {
            return Opened::Directory;
        }
        if name == MARKS {
            return Opened::Marks;
        }
        let states = self.names.entry(name).or_insert_with(|| vec![None]);
        if created {
            states.push(Some(self.files.len()));
            self.files.push(File { name, ..File::default() });
        }
        Opened::File(states.last().copied().flatten().expect("it exists"))
    }

    fn sync(&mut self, opened: Opened) {
        match opened {
            Opened::Directory if self.ignored != Ignored::Everything => {
                for states in self.names.values_mut() {
                    states.drain(..states.len() - 1);
                }
            }
            Opened::File(file) if !self.ignores(self.files[file].name) => {
                let file = &mut self.files[file];
                for change in file.unsynced.drain(..) {
                    change.make(&mut file.synced);
                }
            }
            _ => {}
        }
    }

    fn ignores(&self, name: &str) -> bool {
        match self.ignored {
            Ignored::Nothing => false,
            Ignored::Everything => true,
            Ignored::File(ignored) => name == ignored,
        }
    }

    /// The files as the processes see them.
    pub(crate) fn now(&self) -> BTreeMap<&'r str, Vec<u8>> {
        let files = self.names.iter().filter_map(|(name, states)| {
            let file = &self.files[(*states.last()?)?];
            let mut bytes = file.synced.clone();
            file.unsynced.iter().for_each(|change| change.make(&mut bytes));
            Some((*name, bytes))
        });
        files.collect()
    }

    /// Puts into a directory what is left if the power fails now.
    pub(crate) fn lose_power(&self, chance: &mut Chance, directory: &Path) {
        for (name, states) in &self.names {
            let Some(file) = states[chance.below(states.len())] else { continue };
            fs::write(directory.join(name), self.files[file].after_power_loss(chance)).unwrap();
            // Shared memory that nobody has: left by a process that is gone, in any state.
            if let Some(name) = name.strip_suffix("-wal")
                && chance.once_in(3)
            {
                let garbage: Vec<u8> = (0..32 << 10).map(|_| chance.byte()).collect();
                fs::write(directory.join(format!("{name}-shm")), garbage).unwrap();
            }
        }
    }
}

impl File<'_> {
    fn after_power_loss(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        // How much of what is unsure is there: nothing, everything, or so many of eight, by writes or by sectors.
        let (share, sectors) = (chance.below(9), chance.once_in(2));
        for change in &self.unsynced {
            match change {
                Change::Write { offset, bytes: written } if sectors => {
                    for (at, part) in by_sector(*offset, written) {
                        if chance.below(8) < share {
                            Change::Write { offset: at, bytes: part }.make(&mut bytes);
                        } else if share > 0 && chance.once_in(40) {
                            let garbage: Vec<u8> = part.iter().map(|_| chance.byte()).collect();
                            Change::Write { offset: at, bytes: &garbage }.make(&mut bytes);
                        }
                    }
                }
                Change::Write { offset, bytes: written } if share > 0 && share < 8 && chance.once_in(8) => {
                    let written = &written[..chance.below(written.len())];
                    Change::Write { offset: *offset, bytes: written }.make(&mut bytes);
                }
                change if chance.below(8) < share => change.make(&mut bytes),
                _ => {}
            }
        }
        bytes
    }
}

impl Change<'_> {
    fn make(&self, file: &mut Vec<u8>) {
        match *self {
            Change::Truncate(length) => file.resize(length, 0),
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[offset..end].copy_from_slice(bytes);
            }
        }
    }
}

/// The parts of a write that fall into one sector each, and where they begin.
fn by_sector(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at;
        at = bytes.len().min(begin + SECTOR - (offset + begin) % SECTOR);
        (begin < at).then(|| (offset + begin, &bytes[begin..at]))
    })
}

/// What is left of the file `a` after each of many power losses, and whether the files `a`, `new` and `old` are there.
#[cfg(test)]
fn left(steps: &[Step<'_>]) -> Vec<(Vec<u8>, [bool; 3])> {
    let mut disk = Disk::new(Ignored::Nothing);
    for step in steps {
        disk.step(*step);
    }
    let after = |seed| {
        let directory = crate::recording::directory();
        disk.lose_power(&mut Chance::new(seed), directory.path());
        let file = |name| directory.path().join(name);
        (fs::read(file("a")).unwrap_or_default(), ["a", "new", "old"].map(|name| file(name).exists()))
    };
    (0..600).map(after).collect()
}

#[test]
fn what_was_synced_stays_and_all_else_may_go() {
    const DIRECTORY: i32 = 9;
    let (old, new) = ([b'a'; 1500], [b'b'; 1200]);
    let mut steps = vec![
        Step::Open { file: DIRECTORY, name: "", created: false },
        Step::Open { file: 1, name: "a", created: true },
        Step::Open { file: 2, name: "old", created: true },
        Step::Write { file: 1, offset: 0, bytes: &old },
        Step::Sync { file: 1 },
    ];
    assert!(left(&steps).iter().any(|(_, [a, ..])| !a), "its directory was not synced");
    steps.extend([
        Step::Sync { file: DIRECTORY },
        Step::Write { file: 1, offset: 1000, bytes: &new },
        Step::Open { file: 3, name: "new", created: true },
        Step::Unlink { name: "old" },
    ]);
    let unsure = left(&steps);
    for (bytes, [a, ..]) in &unsure {
        assert!(*a && bytes[..1000] == old[..1000] && (1500..=2200).contains(&bytes.len()));
    }
    let some = |found: &dyn Fn(&[u8]) -> bool| unsure.iter().any(|(bytes, _)| found(bytes));
    assert!(some(&|bytes| bytes == old), "nothing of it");
    assert!(some(&|bytes| bytes[1000..] == new), "all of it");
    assert!(some(&|bytes| bytes[1000] == b'b' && bytes[1499] == b'a'), "a beginning");
    assert!(some(&|bytes| bytes[1000] == b'a' && bytes.get(1600) == Some(&b'b')), "a sector without those before");
    assert!(some(&|bytes| bytes[1000..].iter().any(|byte| !b"ab\0".contains(byte))), "garbage");
    for state in [[true, true, true], [true, true, false], [true, false, true], [true, false, false]] {
        assert!(unsure.iter().any(|(_, names)| *names == state), "{state:?}");
    }
    steps.extend([Step::Sync { file: 1 }, Step::Sync { file: DIRECTORY }]);
    for (bytes, names) in left(&steps) {
        assert!(bytes[..1000] == old[..1000] && bytes[1000..] == new && names == [true, true, false]);
    }
    // Cut, and not synced.
    steps.push(Step::Truncate { file: 1, length: 10 });
    let lengths: std::collections::BTreeSet<usize> = left(&steps).iter().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(lengths, [10, 2200].into());
}
