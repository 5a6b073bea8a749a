//! The client's database.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde_json::{Value as Json, json};
use syncline_core::{ClientStore, PublishOutcome, Uploaded, WallTime, WriteCheckpoint};
use syncline_storage_sqlite::{Database, Durability, Schema, Table, params};

use crate::power::{Noted, Notes, Wrong, check_honest_disk, check_integrity, check_other_disks, last, sound};
use crate::server::Server;

const FILE: &str = "app.db";
const ROUNDS: u64 = 8;
/// Local writes of each round.
const WRITES: u64 = 6;
/// Rows that every checkpoint writes anew.
const SYNCED: u64 = 40;
/// For the log of the database to begin anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ignored test below.
const PROCESS: &str = "a_process_with_a_database";

fn schema() -> Schema {
    Schema::new()
        .table(Table::new("lists").text("name").integer("rank"))
        .table(Table::new("drafts").text("body").local_only())
}

fn open(directory: &Path) -> syncline_storage_sqlite::Result<Database> {
    let opening = Database::open(directory.join(FILE), schema()).durability(Durability::Full).readers(1);
    block_on(opening.into_future())
}

/// Works with the database, and notes what it acknowledges. The tests below record it in a process of its own.
#[test]
fn a_process_with_a_database() {
    let (mut notes, directory) = Notes::begin();
    let mut db = open(&directory).unwrap();
    let (mut server, mut written, mut drafts) = (Server::default(), 0, 0);
    for round in 1..=ROUNDS {
        for _ in 0..WRITES {
            written += 1;
            insert(&db, written).unwrap();
            notes.note("write", written);
            for half in ["a", "b"] {
                server.put(&format!("w{written}{half}"), &json!({ "rank": written }));
            }
        }
        let mut uploaded = written - WRITES;
        while let Some(transaction) = block_on(db.next_upload()).unwrap() {
            block_on(db.finish_upload(&transaction, &Uploaded::Applied)).unwrap();
            uploaded += 1;
            notes.note("upload", uploaded);
        }
        let write_checkpoint = WriteCheckpoint(i64::try_from(round).unwrap());
        let sent = block_on(db.upload_state()).unwrap().uncovered.unwrap();
        block_on(db.cover(sent, write_checkpoint)).unwrap();
        for row in 0..SYNCED {
            let row_now = json!({ "rank": round, "name": format!("{round:04}").repeat(5_000) });
            server.put(&format!("s{row}"), &row_now);
        }
        assert_eq!(server.sync(&db, write_checkpoint), PublishOutcome::Published);
        notes.note("publish", round);
        if round % 2 == 0 {
            // Until all of it was moved into the database, and it begins anew: with the next transaction.
            let (before, began) = (beginning_of_log(&directory), Instant::now());
            while beginning_of_log(&directory) == before {
                assert!(began.elapsed() < PATIENCE, "nothing moves the log into the database");
                drafts += 1;
                draft(&db, drafts);
                notes.note("draft", drafts);
            }
        }
        if round == ROUNDS / 2 {
            // Closed in order, and opened again.
            block_on(db.close());
            db = open(&directory).unwrap();
        }
    }
    notes.end();
}

/// One local write: two rows, which must be there both or not at all.
fn insert(db: &Database, number: u64) -> syncline_storage_sqlite::Result<()> {
    block_on(db.write(move |tx| {
        for half in ["a", "b"] {
            tx.execute(
                "INSERT INTO lists (id, rank) VALUES (?1, ?2)",
                params![format!("w{number}{half}"), number as i64],
            )?;
        }
        Ok(())
    }))
}

fn draft(db: &Database, number: u64) {
    block_on(db.write(move |tx| {
        let body = format!("{number:04} ").repeat(20_000);
        Ok(tx.execute("INSERT OR REPLACE INTO drafts (id, body) VALUES ('d', ?1)", [body])?)
    }))
    .unwrap();
}

/// Changes whenever the log begins anew.
fn beginning_of_log(directory: &Path) -> [u8; 32] {
    let mut beginning = [0; 32];
    File::open(directory.join(format!("{FILE}-wal"))).unwrap().read_exact(&mut beginning).unwrap();
    beginning
}

/// What the database must hold, from what was acknowledged before the power was lost.
fn look(directory: &Path, noted: &Noted) -> Result<(), Wrong> {
    let db = open(directory).map_err(Wrong::broken)?;
    let seen = look_into(&db, noted);
    block_on(db.close());
    seen?;
    check_integrity(&directory.join(FILE))
}

fn all(db: &Database, sql: &str) -> Result<Vec<Json>, Wrong> {
    block_on(db.query::<Json>(sql).all()).map_err(Wrong::broken)
}

fn look_into(db: &Database, noted: &Noted) -> Result<(), Wrong> {
    block_on(db.resume(WallTime(0))).map_err(Wrong::broken)?;
    let mut rows = BTreeMap::new();
    for row in all(db, "SELECT id, rank FROM lists")? {
        rows.insert(row["id"].as_str().unwrap_or_default().to_owned(), row["rank"].as_u64().unwrap_or(0));
    }

    // A checkpoint is shown whole.
    let shown = rows.get("s0").copied().unwrap_or(0);
    last("checkpoint", shown, noted.get("publish"))?;
    let synced = (0..SYNCED).filter_map(|row| rows.remove(&format!("s{row}"))).filter(|round| *round == shown).count();
    sound(synced as u64 == if shown == 0 { 0 } else { SYNCED }, || format!("{synced} rows of checkpoint {shown}"))?;

    // Of local writes there are the first ones, each whole (C2).
    let written = rows.len() as u64 / 2;
    last("local write", written, noted.get("write"))?;
    let expected: BTreeMap<String, u64> =
        (1..=written).flat_map(|number| ["a", "b"].map(|half| (format!("w{number}{half}"), number))).collect();
    sound(rows == expected, || format!("of {written} writes there are {rows:?}"))?;

    let drafts = all(db, "SELECT cast(body AS INTEGER) AS number FROM drafts")?;
    last("draft", drafts.first().map_or(0, |draft| draft["number"].as_u64().unwrap_or(0)), noted.get("draft"))?;

    // All that were not uploaded are to be uploaded, and those that come next have larger numbers.
    insert(db, written + 1).map_err(Wrong::broken)?;
    let mut queued = Vec::new();
    while let Some(transaction) = block_on(db.next_upload()).map_err(Wrong::broken)? {
        let ids: Vec<&str> = transaction.crud.iter().map(|write| &*write.id).collect();
        let number = ids[0].trim_matches(['w', 'a', 'b']).parse().unwrap_or(0);
        sound(ids == [format!("w{number}a"), format!("w{number}b")], || format!("{ids:?} are not one write"))?;
        let numbers: Vec<i64> = transaction.crud.iter().map(|write| write.op_id).collect();
        let expected = [2 * number - 1, 2 * number].map(|number| i64::try_from(number).unwrap());
        sound(numbers == expected, || format!("write {number} has the numbers {numbers:?}"))?;
        queued.push(number);
        block_on(db.finish_upload(&transaction, &Uploaded::Applied)).map_err(Wrong::broken)?;
    }
    let first = queued.first().copied().unwrap_or(0);
    sound(queued == (first..=written + 1).collect::<Vec<u64>>(), || {
        format!("of {written} writes {queued:?} are queued")
    })?;
    last("upload", first - 1, noted.get("upload"))
}

#[test]
fn what_the_clients_database_acknowledges_survives_a_power_loss() {
    check_honest_disk(PROCESS, FILE, look);
}

#[test]
fn the_clients_database_needs_its_syncs() {
    check_other_disks(PROCESS, FILE, &["app.db-wal"], look);
}
