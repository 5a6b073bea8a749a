//! The client's database beside plain SQLite on the same disk: downloads, local writes, watched queries, and who waits for
//! whom.

mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use syncline_storage_sqlite::Database;

use crate::bench::{Begun, Bench, DEADLINE, Times};
use crate::figure::{Figure, Name, median, percentile};
use rows::{Download, INSERT, Row};

/// Rows of a bulk write, for each row of a download.
const BULK: u64 = 4;
/// Transactions of one write each, of which the time is taken.
const SINGLE: usize = 500;
/// A writer and a reader beside a download pause so long after each statement.
const PAUSE: Duration = Duration::from_millis(3);

/// Download, verify and publish, against plain inserts of the same rows in one transaction.
pub(crate) async fn publish(bench: &Bench) -> Result<Figure> {
    let rows = Row::all(usize::try_from(bench.rows)?);
    let download = Download::of(&rows);
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..bench.runs {
        let begun = Begun::now();
        plain(&rows)?;
        theirs.push(&begun);
        let directory = tempfile::tempdir()?;
        let db = rows::open(directory.path()).await?;
        let begun = Begun::now();
        download.take(&db).await?;
        ours.push(&begun);
    }
    let note = format!("{} rows downloaded, verified and published; against plain inserts of them", bench.rows);
    let (processor, ours, theirs) = (ours.processor(), ours.rate(bench.rows), theirs.rate(bench.rows));
    Ok(Figure::against(Name::ClientPublish, ours, theirs, note).took(processor))
}

fn plain(rows: &[Row]) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut connection = rows::plain(directory.path())?;
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare(&format!("INSERT INTO todos {INSERT}"))?;
    for row in rows {
        row.insert(&mut insert)?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(())
}

/// Local writes to a table that is captured, against the same ones to a table that is not: rows a second.
pub(crate) async fn local_writes(bench: &Bench, name: Name) -> Result<Figure> {
    let bulk = name == Name::LocalWriteBulk;
    let count =
        if bulk { usize::try_from(bench.rows / BULK)?.max(1) } else { SINGLE.min(usize::try_from(bench.rows)?) };
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for pair in 0..bench.runs {
        for turn in 0..2 {
            let (table, times) = if turn == pair % 2 { ("synced", &mut ours) } else { ("local", &mut theirs) };
            let directory = tempfile::tempdir()?;
            let db = rows::open(directory.path()).await?;
            let rows = Row::all(count);
            let begun = Begun::now();
            if bulk {
                insert(&db, table, rows).await?;
            } else {
                for row in rows {
                    insert(&db, table, vec![row]).await?;
                }
            }
            times.push(&begun);
        }
    }
    let what = if bulk { "in one transaction" } else { "in transactions of one" };
    let note = format!("{count} captured writes {what}; against uncaptured ones");
    let (processor, ours, theirs) = (ours.processor(), ours.rate(count as u64), theirs.rate(count as u64));
    Ok(Figure::against(name, ours, theirs, note).took(processor))
}

async fn insert(db: &Database, table: &str, rows: Vec<Row>) -> Result<()> {
    let sql = format!("INSERT INTO {table} {INSERT}");
    db.write(move |tx| {
        let mut insert = tx.prepare_cached(&sql)?;
        for row in &rows {
            row.insert(&mut insert)?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// From the return of a local write to the result of a watched query, against the budget of a millisecond.
pub(crate) async fn watch(bench: &Bench) -> Result<Figure> {
    let directory = tempfile::tempdir()?;
    let db = rows::open(directory.path()).await?;
    let mut counts = db.query::<i64>("SELECT count(*) FROM local").watch().throttle(Duration::ZERO);
    let mut times = Vec::new();
    for number in 0..bench.updates {
        insert(&db, "local", vec![Row::new(number as usize)]).await?;
        let written = Instant::now();
        let seen = async {
            while let Some(count) = counts.try_next().await? {
                if count == [i64::from(number) + 1] {
                    return Ok(());
                }
            }
            bail!("the query ended")
        };
        tokio::time::timeout(DEADLINE, seen).await.context("a write was not seen in time")??;
        times.push(written.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    let (middle, most) = (percentile(&times, 50), percentile(&times, 99));
    let note =
        format!("from a local write to a watched query, median of {} (p99 {most:.2}); against the budget", times.len());
    Ok(Figure::against(Name::Watch, middle, 1.0, note))
}

/// The longest that a local write waits while rows are downloaded and published, against the budget of 50 ms.
pub(crate) async fn pause(bench: &Bench) -> Result<Figure> {
    // As many rows as a first sync of a large application.
    let count = usize::try_from(bench.rows)? * 5;
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        let directory = tempfile::tempdir()?;
        let db = rows::open(directory.path()).await?;
        let stop = Arc::new(AtomicBool::new(false));
        // Each is a task of its own, as in an application.
        let write = tokio::spawn(longest_write(db.clone(), Arc::clone(&stop)));
        let read = tokio::spawn(longest_read(db.clone(), Arc::clone(&stop)));
        let taken = Download::take_fresh(&db, count).await;
        stop.store(true, Ordering::Relaxed);
        taken?;
        writes.push(write.await??);
        reads.push(read.await??);
    }
    let note = format!(
        "longest wait of a local write while {count} rows are downloaded and published; of a read {:.1} ms; against the budget",
        median(reads)
    );
    Ok(Figure::against(Name::PublishPause, median(writes), 50.0, note))
}

/// The longest that a local write takes until it is to stop, in milliseconds.
async fn longest_write(db: Database, stop: Arc<AtomicBool>) -> Result<f64> {
    let mut longest = Duration::ZERO;
    for number in 0.. {
        let begun = Instant::now();
        insert(&db, "local", vec![Row::new(number)]).await?;
        longest = longest.max(begun.elapsed());
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(longest.as_secs_f64() * 1_000.0)
}

/// The same of a read.
async fn longest_read(db: Database, stop: Arc<AtomicBool>) -> Result<f64> {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let found: i64 = db.query("SELECT count(*) FROM (SELECT 1 FROM todos LIMIT 10)").one().await?;
        longest = longest.max(begun.elapsed());
        ensure!(found == 0 || found == 10, "a half of a checkpoint is shown");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(longest.as_secs_f64() * 1_000.0)
}
