//! An SQLite file with its log (the WAL) on a disk that forgets what was not synced.
//!
//! A commit appends frames to the log, syncs it, and only then returns. So whatever a call had appended when its process
//! died may be there, or be torn, or be missing; what earlier calls appended is there. Frames that were moved from the log
//! into the file count as synced, as SQLite syncs both.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use syncline_storage_sqlite::rusqlite::Connection;
use syncline_storage_sqlite::rusqlite::config::DbConfig;

/// Bytes before the first frame of a log.
const HEADER: usize = 32;
/// Bytes of a frame before its page.
const FRAME_HEADER: usize = 24;
/// Of those, the ones before the frame's checksum.
const BEFORE_CHECKSUM: usize = 16;

/// A file and its log.
#[derive(Debug)]
pub(crate) struct DiskFile {
    path: PathBuf,
    /// As long as it is open, nobody else's closing moves the log into the file.
    witness: Option<Connection>,
    /// Both as they were before the call amid which the process dies.
    before: Option<(Vec<u8>, Vec<u8>)>,
}

impl DiskFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, witness: None, before: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// To be called once the store has the file open.
    pub(crate) fn opened(&mut self) {
        let witness = Connection::open(&self.path).unwrap();
        witness.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        // From here on it holds the log open.
        witness.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
        self.witness = Some(witness);
    }

    /// The process dies in the next call.
    pub(crate) fn brace(&mut self) {
        loop {
            let log = self.log();
            let file = fs::read(&self.path).unwrap();
            // Otherwise the log began anew meanwhile, and the two do not belong together.
            if Log::header(&log) == Log::header(&self.log()) {
                self.before = Some((file, self.log()));
                return;
            }
        }
    }

    /// Its connections are closed. Leaves what a disk would have: everything, or without what the last call appended. Then,
    /// and now and then after everything, there are pieces of a transaction that cannot be read.
    pub(crate) fn crash(&mut self, loses: bool, chance: u64) {
        self.witness = None;
        let now = self.log();
        if let Some((file, log)) = self.before.take().filter(|_| loses) {
            let torn = Log(&log).torn(&now, chance);
            fs::write(&self.path, file).unwrap();
            fs::write(self.beside("-wal"), torn).unwrap();
        } else if chance.is_multiple_of(3) && now.len() > HEADER {
            fs::write(self.beside("-wal"), Log(&now).torn_at_end(chance / 3)).unwrap();
        }
        match fs::remove_file(self.beside("-shm")) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    fn log(&self) -> Vec<u8> {
        match fs::read(self.beside("-wal")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.unwrap(),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        name.into()
    }
}

/// The bytes of a log.
struct Log<'a>(&'a [u8]);

impl Log<'_> {
    /// The part of a log that changes whenever it begins anew.
    fn header(log: &[u8]) -> &[u8] {
        log.get(..HEADER).unwrap_or_default()
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn frame_size(&self) -> usize {
        FRAME_HEADER + self.number(8) as usize
    }

    /// Where a frame begins.
    fn place(&self, frame: usize) -> usize {
        HEADER + frame * self.frame_size()
    }

    /// The frames that are of this log and not of one before, and whether each ends a transaction.
    fn frames(&self) -> Vec<bool> {
        if self.0.len() < HEADER {
            return Vec::new();
        }
        let whole = (self.0.len() - HEADER) / self.frame_size();
        let salt = &self.0[16..24];
        let of_this_log = (0..whole).take_while(|frame| {
            let place = self.place(*frame);
            &self.0[place + 8..place + 16] == salt
        });
        of_this_log.map(|frame| self.number(self.place(frame) + 4) > 0).collect()
    }

    /// So many frames belong to whole transactions.
    fn committed(&self) -> usize {
        self.frames().iter().rposition(|ends| *ends).map_or(0, |last| last + 1)
    }

    /// This log with pieces of the first transaction that `now` has on top, of which the end is missing or damaged.
    fn torn(&self, now: &[u8], chance: u64) -> Vec<u8> {
        let mut torn = self.0.to_vec();
        let later = Log(now);
        if self.0.len() < HEADER || Self::header(now) != Self::header(self.0) {
            return torn;
        }
        let from = self.committed();
        let Some(end) = later.frames().iter().skip(from).position(|ends| *ends).map(|place| place + from) else {
            return torn;
        };
        // The last frame never comes with its checksum.
        let (begin, limit) = (self.place(from), self.place(end) + BEFORE_CHECKSUM);
        let cut = begin + (chance / 4) as usize % (limit - begin + 1);
        torn.truncate(torn.len().max(begin));
        let mut write = |at: usize, bytes: &[u8]| {
            if torn.len() < at + bytes.len() {
                torn.resize(at + bytes.len(), 0);
            }
            torn[at..at + bytes.len()].copy_from_slice(bytes);
        };
        match chance % 4 {
            // Nothing of it.
            0 => {}
            // A beginning, and after it what was there before.
            1 => write(begin, &now[begin..cut]),
            // A beginning in a file that was made longer before it was filled.
            2 => {
                write(begin, &now[begin..cut]);
                write(cut, &vec![0; now.len() - cut]);
            }
            // All of it but for one bit, and whatever came after.
            _ => {
                write(begin, &now[begin..]);
                let place = self.place(end) + FRAME_HEADER + (chance / 4) as usize % (self.frame_size() - FRAME_HEADER);
                torn[place] ^= 1 << (chance % 8);
            }
        }
        torn
    }

    /// This log with pieces after its end of a transaction that had begun.
    fn torn_at_end(&self, chance: u64) -> Vec<u8> {
        let mut torn = self.0.to_vec();
        let committed = self.committed();
        if committed == 0 {
            return torn;
        }
        // Pages as they were once, with a checksum that fits another place.
        let last = &self.0[self.place(committed - 1)..self.place(committed)];
        let length = 1 + chance as usize % last.len();
        torn.truncate(self.place(committed));
        torn.extend_from_slice(&last[..length]);
        torn
    }
}

/// Lets a process with one connection die amid its second transaction; the rows that the next one finds.
fn rows_after_death(loses: bool, chance: u64) -> Vec<i64> {
    let directory = crate::stores::directory();
    let mut file = DiskFile::new(directory.path().join("a.db"));
    let connection = Connection::open(file.path()).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER, x BLOB)").unwrap();
    file.opened();
    // Of more than a page, so that there are frames to lose.
    let write = |n: i64| connection.execute("INSERT INTO t VALUES (?1, randomblob(9000))", [n]).unwrap();
    write(1);
    file.brace();
    write(2);
    drop(connection);
    file.crash(loses, chance);
    let connection = Connection::open(file.path()).unwrap();
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "chance {chance}");
    let mut rows = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_death_loses_what_was_not_synced_and_nothing_else() {
    for chance in (0..40_000).step_by(613) {
        assert_eq!(rows_after_death(true, chance), [1], "chance {chance}");
        assert_eq!(rows_after_death(false, chance), [1, 2], "chance {chance}");
    }
}

#[test]
fn what_was_lost_lies_about_in_pieces() {
    let directory = crate::stores::directory();
    let file = DiskFile::new(directory.path().join("a.db"));
    let connection = Connection::open(file.path()).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)").unwrap();
    let before = file.log();
    connection.execute("INSERT INTO t VALUES (randomblob(9000))", []).unwrap();
    let now = file.log();
    let (before, now) = (Log(&before), Log(&now));
    assert!(before.committed() < now.committed());
    let pieces: Vec<usize> = (0..400).map(|chance| before.torn(now.0, chance * 97).len()).collect();
    assert!(pieces.iter().any(|length| *length > before.0.len()), "{pieces:?}");
    assert!((0..400).all(|chance| Log(&before.torn(now.0, chance * 97)).0 != now.0));
}
