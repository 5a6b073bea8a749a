//! The memory and the processor time of a server: of one that reads a database for the first time, in a process of its own, and
//! of its idle connections.

use anyhow::Result;

use crate::bench::Bench;
use crate::connection::Protocol;
use crate::errand::{Asked, Errand, Process, Took};
use crate::figure::{Figure, Name, median};

/// Connections that are open when memory is looked at first, and how many are opened then; at most one for each row.
const CONNECTIONS: [usize; 2] = [1_000, 9_000];

/// The initial replication of a table.
pub(crate) async fn replicate(bench: &Bench, rows: u64) -> Result<Took> {
    let source = bench.database(rows).await?;
    let (url, slot, store) = (source.url.clone(), source.slot.clone(), bench.file("buckets"));
    Process::start(&Errand::Replicate { url, slot, store, rows })?.says().await
}

/// The most memory that it held, and that for five times as many rows; or its processor time for a million rows.
pub(crate) async fn replication(bench: &Bench, name: Name) -> Result<Figure> {
    let rows = bench.rows;
    // One of many says whether it grows.
    let many = replicate(bench, rows * 5).await?;
    let mut few = Vec::new();
    for _ in 0..bench.runs {
        few.push(replicate(bench, rows).await?);
    }
    if name == Name::ServerRssMb {
        let note = format!("initial replication of {rows} rows; {:.0} MB for {}", many.megabytes, rows * 5);
        return Ok(Figure::new(name, median(few.iter().map(|took| took.megabytes).collect()), note));
    }
    let seconds = |processor: f64, rows: u64| processor * 1_000_000.0 / rows as f64;
    let note = format!("initial replication, of {} rows; against the same for a fifth of them", rows * 5);
    let of_few = seconds(median(few.iter().map(|took| took.processor).collect()), rows);
    Ok(Figure::against(name, seconds(many.processor, rows * 5), of_few, note))
}

/// Memory of server and replicator for each further idle connection, from the first thousand on.
pub(crate) async fn idle_connections(bench: &Bench, name: Name) -> Result<Figure> {
    let (protocol, how) = match name {
        Name::IdleWebsocketBytes => (Protocol::WebSocket, "over WebSocket"),
        _ => (Protocol::Http, "gzip asked for"),
    };
    let source = bench.database(10).await?;
    let (url, slot, store) = (source.url.clone(), source.slot.clone(), bench.file("buckets"));
    // In a process of its own: memory that was free before would be taken for none.
    let mut server = Process::start(&Errand::Serve { url, slot, store, rows: 10 })?;
    let address = server.says().await?;
    let mut clients = Process::start(&Errand::Connect { address, protocol })?;
    let counts = CONNECTIONS.map(|count| count.min(usize::try_from(bench.rows).unwrap_or(usize::MAX)));
    let mut held = [0.0; 2];
    for (count, held) in counts.into_iter().zip(&mut held) {
        clients.tell(Asked::Open(count)).await?;
        // It says so when each of them has been silent for a while.
        clients.says::<usize>().await?;
        server.tell(()).await?;
        *held = server.says().await?;
    }
    let slope = ((held[1] - held[0]) / counts[1] as f64).max(1.0);
    let note = format!("each of {} connections beyond {}, {how}; against the budget", counts[1], counts[0]);
    Ok(Figure::against(name, slope, 16_384.0, note))
}
