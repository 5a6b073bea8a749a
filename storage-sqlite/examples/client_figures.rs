//! Figures of the client's database, each beside plain SQLite on the same disk in the same minute:
//! `cargo run --release -p syncline-storage-sqlite --example client_figures [download] [bulk] [single] [waits]`, all of them
//! if none is named.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde_json::json;
use syncline_core::protocol::DataLine;
use syncline_core::{
    BucketPriority, Checksum, ClientStore, OpId, Operation, OperationKind, PublishOutcome, PublishRequest,
    TargetBucket, TargetCheckpoint, WallTime,
};
use syncline_storage_sqlite::{Database, Schema, Table, params, rusqlite};

/// Rows of a download.
const DOWNLOADED: usize = 200_000;
/// Rows of a bulk write.
const BULK: usize = 50_000;
/// Transactions of one write each.
const SINGLE: usize = 500;
/// Pairs of measurements, one after the other.
const PAIRS: usize = 5;

struct Row {
    id: String,
    list: String,
    title: String,
    done: i64,
    rank: f64,
}

fn all(count: usize) -> Vec<Row> {
    (0..count).map(row).collect()
}

fn row(number: usize) -> Row {
    // Spread like random ids, the same in every run.
    let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = number as u64;
    Row {
        id: format!("{:016x}-{:016x}", hash(n), hash(n + 1)),
        list: format!("{:016x}", hash(n % 1000)),
        title: format!("what is to be done, number {number}, and a few words more"),
        done: i64::from(number.is_multiple_of(2)),
        rank: number as f64 / 7.0,
    }
}

fn schema() -> Schema {
    let columns = |name: &str| Table::new(name).text("list_id").text("title").integer("done").real("rank");
    Schema::new()
        .table(columns("todos").index("by_list", ["list_id"]))
        .table(columns("synced"))
        .table(columns("local").local_only())
}

const INSERT: &str = "(id, list_id, title, done, rank) VALUES (?1, ?2, ?3, ?4, ?5)";

fn open(directory: &Path) -> Database {
    block_on(Database::open(directory.join("client.db"), schema()).into_future()).unwrap()
}

/// What a server would send: one bucket, in lines of a thousand operations.
fn download(rows: &[Row]) -> (Vec<DataLine>, PublishRequest) {
    let mut sum = Checksum(0);
    let operations: Vec<Operation> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let data =
                json!({ "id": row.id, "list_id": row.list, "title": row.title, "done": row.done, "rank": row.rank });
            let data = data.to_string();
            let checksum = Checksum::of_put("todos", &row.id, data.as_bytes());
            sum += checksum;
            Operation {
                op_id: OpId(number as u64 + 1),
                kind: OperationKind::Put,
                object_type: "todos".into(),
                object_id: row.id.as_str().into(),
                subkey: Some(format!("s/{}", row.id).into()),
                data: Some(data.into()),
                checksum,
            }
        })
        .collect();
    let lines = operations
        .chunks(1000)
        .map(|operations| DataLine { bucket: "b".into(), operations: operations.to_vec(), size: 0 })
        .collect();
    let bucket = TargetBucket {
        checksum: sum,
        priority: BucketPriority(3),
        count: Some(rows.len() as u64),
        subscriptions: Vec::new(),
    };
    let target = TargetCheckpoint {
        last_op_id: OpId(rows.len() as u64),
        write_checkpoint: None,
        buckets: [("b".into(), bucket)].into(),
        streams: Vec::new(),
    };
    (lines, PublishRequest { target: Arc::new(target), partial: None, requested: Arc::from([]), now: WallTime(1) })
}

/// Stages as the sync client does, a few lines at a time, and publishes.
fn sync(db: &Database, lines: &[DataLine], request: &PublishRequest) -> [Duration; 2] {
    let begun = Instant::now();
    block_on(db.begin_checkpoint(&request.target)).unwrap();
    for lines in lines.chunks(4) {
        block_on(db.stage(lines)).unwrap();
    }
    let staged = begun.elapsed();
    assert_eq!(block_on(db.publish(request)).unwrap(), PublishOutcome::Published);
    [staged, begun.elapsed() - staged]
}

/// Plain inserts of the same rows into the same table, in one transaction.
fn plain(rows: &[Row]) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let mut conn = rusqlite::Connection::open(directory.path().join("plain.db")).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32000;
         CREATE TABLE todos (id TEXT PRIMARY KEY NOT NULL, list_id TEXT, title TEXT, done INTEGER, rank REAL);
         CREATE INDEX by_list ON todos (list_id);",
    )
    .unwrap();
    let begun = Instant::now();
    let transaction = conn.transaction().unwrap();
    let mut insert = transaction.prepare(&format!("INSERT INTO todos {INSERT}")).unwrap();
    for row in rows {
        insert.execute(params![row.id, row.list, row.title, row.done, row.rank]).unwrap();
    }
    drop(insert);
    transaction.commit().unwrap();
    begun.elapsed()
}

fn bulk(table: &str) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let rows = all(BULK);
    let sql = format!("INSERT INTO {table} {INSERT}");
    let begun = Instant::now();
    block_on(db.write(move |tx| {
        let mut insert = tx.prepare(&sql)?;
        for row in &rows {
            insert.execute(params![row.id, row.list, row.title, row.done, row.rank])?;
        }
        Ok(())
    }))
    .unwrap();
    begun.elapsed()
}

fn single(table: &str) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let begun = Instant::now();
    for number in 0..SINGLE {
        write(&db, table, number);
    }
    begun.elapsed()
}

fn write(db: &Database, table: &str, number: usize) {
    let sql = format!("INSERT INTO {table} {INSERT}");
    let row = row(number);
    block_on(db.write(move |tx| {
        tx.execute(&sql, params![row.id, row.list, row.title, row.done, row.rank])?;
        Ok(())
    }))
    .unwrap();
}

/// Local writes and reads, one after the other, until told to stop: how long each took.
fn times_of(stop: &AtomicBool, mut once: impl FnMut(usize)) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        once(times.len());
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(3));
    }
    times.sort();
    times
}

/// The longest and the middle time of a local write and of a read, while rows are downloaded and published, or while nothing
/// else happens.
fn waits(lines: Option<&(Vec<DataLine>, PublishRequest)>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let stop = AtomicBool::new(false);
    let (took, writes, reads) = std::thread::scope(|scope| {
        let writes = scope.spawn(|| times_of(&stop, |number| write(&db, "local", number)));
        let reads = scope.spawn(|| {
            times_of(&stop, |_| {
                let count: i64 =
                    block_on(db.query("SELECT count(*) FROM (SELECT 1 FROM todos LIMIT 10)").one()).unwrap();
                assert!(count == 0 || count == 10);
            })
        });
        let took = match lines {
            Some((lines, request)) => sync(&db, lines, request),
            None => {
                std::thread::sleep(Duration::from_secs(3));
                [Duration::from_secs(3), Duration::ZERO]
            }
        };
        stop.store(true, Ordering::Relaxed);
        (took, writes.join().unwrap(), reads.join().unwrap())
    });
    let longest = |times: &[Duration]| times.last().copied().unwrap_or_default();
    let usual = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
    format!(
        "longest write {:.1?} (median {:.1?} of {}), longest read {:.1?} (median {:.1?}), in {:.1?} + {:.1?}",
        longest(&writes),
        usual(&writes),
        writes.len(),
        longest(&reads),
        usual(&reads),
        took[0],
        took[1],
    )
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Processor time of this process so far, where the system tells: what a busy machine does not distort.
fn processor() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn compare(what: &str, mut pair: impl FnMut() -> (Duration, Duration), target: f64) {
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        let (plain, ours) = pair();
        ratios.push(plain.as_secs_f64() / ours.as_secs_f64());
        println!("  {what}: {plain:.3?} against {ours:.3?}");
    }
    println!("{what}: {:.2} of the speed of plain SQLite, target {target}", median(ratios));
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|wanted| wanted == name);
    let rows = all(DOWNLOADED);
    let download = download(&rows);
    if wanted("download") {
        compare("download and publish", || downloaded(&rows, &download), 0.4);
    }
    if wanted("bulk") {
        compare("captured writes in bulk", || (bulk("local"), bulk("synced")), 0.35);
    }
    if wanted("single") {
        compare("single captured writes", || (single("local"), single("synced")), 0.6);
    }
    if wanted("waits") {
        println!("nothing else: {}", waits(None));
        for _ in 0..PAIRS {
            println!("{DOWNLOADED} rows: {}", waits(Some(&download)));
        }
    }
}

fn downloaded(rows: &[Row], download: &(Vec<DataLine>, PublishRequest)) -> (Duration, Duration) {
    let before = processor();
    let plain = plain(rows);
    let between = processor();
    let directory = tempfile::tempdir().unwrap();
    let [stage, publish] = sync(&open(directory.path()), &download.0, &download.1);
    println!("  stage {stage:.3?}, publish {publish:.3?}");
    if let (Some(before), Some(between), Some(after)) = (before, between, processor()) {
        println!("  processor time: {:.2?} against {:.2?}", between - before, after - between);
    }
    (plain, stage + publish)
}
