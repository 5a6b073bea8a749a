//! Compact lines beside those of the official protocol: bytes, and processor time to write and to read them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use syncline_core::memory::{MemoryTransport, TokenIsUser};
use syncline_core::protocol::{
    BucketDescription, CheckpointDiffLine, ClientLine, DataHeader, Framing, LineDecoder, SubscriptionReason,
    SyncRequest,
};
use syncline_core::{
    BucketPriority, Checksum, Chunk, ChunkBuilder, Credentials, OpId, OperationKind, OperationRef, ServiceLimits,
    SyncService, Transport, WriteCheckpoint,
};
use syncline_transport_ws::{CompactTransport, WebSocketTransport};

use crate::bench::{Begun, Bench, DEADLINE, Task, Times};
use crate::figure::{Figure, Name, median, number};

/// How long one run of one side lasts, about.
const RUN: Duration = Duration::from_millis(200);
/// Operations of a line.
const LINE: usize = 1_000;
/// What a server compresses at once.
const PIECE: usize = 32 << 10;
const LEVEL: i32 = 1;
const BUCKET: &str = "1a2b3c4d.12[\"0a1b2c3d-0000-4000-8000-000000000001\"]";

/// Bytes of an operation: of a bucket with rows like those of the other figures.
pub(crate) fn bytes() -> Result<Figure> {
    let chunk = rows(LINE)?;
    let sizes = |framing| -> Result<(f64, f64, usize)> {
        let line = line(framing, &chunk);
        let mut compressed = 0;
        for piece in line.chunks(PIECE) {
            compressed += zstd::bulk::compress(piece, LEVEL)?.len();
        }
        Ok((line.len() as f64 / LINE as f64, compressed as f64 / LINE as f64, change(framing)?.len()))
    };
    let (compact, ndjson, bson) = (sizes(Framing::Compact)?, sizes(Framing::Ndjson)?, sizes(Framing::Bson)?);
    let note = format!(
        "of a PUT, against NDJSON; BSON {}; in pieces of Zstandard {} against {} and {}; a checkpoint with one change {} \
         against {} and {}",
        number(bson.0),
        number(compact.1),
        number(ndjson.1),
        number(bson.1),
        compact.2,
        ndjson.2,
        bson.2
    );
    Ok(Figure::against(Name::CompactBytes, compact.0, ndjson.0, note))
}

/// Operations a second that one core writes.
pub(crate) fn encode(bench: &Bench) -> Result<Figure> {
    let chunk = rows(LINE)?;
    let mut out = Vec::new();
    let rates = rates(bench, |framing| {
        out.clear();
        data(framing, black_box(&mut out), &chunk);
        Ok(())
    })?;
    Ok(figure(Name::CompactEncode, rates))
}

/// Operations a second that one core reads.
pub(crate) fn decode(bench: &Bench) -> Result<Figure> {
    let chunk = rows(LINE)?;
    let written = FRAMINGS.map(|framing| (framing, Bytes::from(line(framing, &chunk))));
    let rates = rates(bench, |framing| {
        let bytes = written.iter().find(|(of, _)| *of == framing).map(|(_, bytes)| bytes.clone());
        let mut decoder = LineDecoder::new(framing, LineDecoder::DEFAULT_LIMIT);
        decoder.push(bytes.context("it was written")?);
        let line = decoder.next()?;
        ensure!(matches!(&line, Some(ClientLine::Data(line)) if line.operations.len() == LINE), "all are read");
        black_box(line);
        Ok(())
    })?;
    Ok(figure(Name::CompactDecode, rates))
}

/// Operations a second of a bucket, from the store to a client's lines: against BSON by RSocket, over the same sockets.
pub(crate) async fn serve(bench: &Bench) -> Result<Figure> {
    let source = bench.database(bench.rows).await?;
    let running = bench.replicate(&source).await?;
    running.until_operations(bench.rows).await?;
    let limits = ServiceLimits { streams_per_user: usize::MAX, ..ServiceLimits::default() };
    let service = SyncService::with_limits(running.store.clone(), TokenIsUser, limits);
    let app: axum::Router = syncline_transport_ws::router(service.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let server = Task::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            eprintln!("the server stopped: {error}");
        }
    });
    let compact: Box<dyn Transport> = Box::new(CompactTransport::new(&endpoint)?);
    let nobody = MemoryTransport::new(service.clone());
    let bson: Box<dyn Transport> = Box::new(WebSocketTransport::new(&endpoint, nobody)?);
    // Both find the service as the other does: with the bucket in memory.
    read(&*bson, bench.rows).await?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for run in 0..bench.runs {
        let mut sides = [(&compact, &mut ours), (&bson, &mut theirs)];
        if run % 2 == 1 {
            sides.reverse();
        }
        for (transport, times) in sides {
            let begun = Begun::now();
            read(&**transport, bench.rows).await?;
            times.push(&begun);
        }
    }
    service.close().await;
    server.stop().await;
    running.stop().await;
    let note = format!(
        "{} operations through the transport to lines, warm; against BSON by RSocket, which took {:.2} s of processor",
        bench.rows,
        theirs.processor()
    );
    let (rate, against) = (ours.rate(bench.rows), theirs.rate(bench.rows));
    Ok(Figure::against(Name::ServeCompact, rate, against, note).took(ours.processor()))
}

/// Reads a bucket until it is complete.
async fn read(transport: &dyn Transport, operations: u64) -> Result<()> {
    let read = async {
        let request = SyncRequest { raw_data: true, binary_data: true, ..SyncRequest::default() };
        let mut stream = transport.open(&request, &Credentials::new("anyone")).await?;
        let mut decoder = LineDecoder::new(stream.framing, LineDecoder::DEFAULT_LIMIT);
        let mut count = 0;
        while let Some(bytes) = stream.bytes.next().await {
            decoder.push(bytes?);
            while let Some(line) = decoder.next()? {
                match line {
                    ClientLine::Data(line) => count += line.operations.len() as u64,
                    ClientLine::CheckpointComplete { .. } => {
                        ensure!(count == operations, "{count} operations came instead of {operations}");
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        anyhow::bail!("the stream ended before it was complete")
    };
    tokio::time::timeout(DEADLINE, read).await.context("the bucket was not read in time")?
}

const FRAMINGS: [Framing; 3] = [Framing::Compact, Framing::Ndjson, Framing::Bson];

/// How many operations a second each framing makes of this, in runs that take turns.
fn rates(bench: &Bench, mut work: impl FnMut(Framing) -> Result<()>) -> Result<[f64; 3]> {
    let mut rates = FRAMINGS.map(|_| Vec::new());
    for _ in 0..bench.runs {
        for (framing, rates) in FRAMINGS.into_iter().zip(&mut rates) {
            let (began, mut count) = (Instant::now(), 0u32);
            while began.elapsed() < RUN {
                work(framing)?;
                count += 1;
            }
            rates.push(f64::from(count) * LINE as f64 / began.elapsed().as_secs_f64());
        }
    }
    Ok(rates.map(median))
}

fn figure(name: Name, [compact, ndjson, bson]: [f64; 3]) -> Figure {
    let nanoseconds = |rate: f64| number(1e9 / rate);
    let note = format!(
        "{} ns for each on one core, against NDJSON ({} ns); BSON {} ns",
        nanoseconds(compact),
        nanoseconds(ndjson),
        nanoseconds(bson)
    );
    Figure::against(name, compact, ndjson, note)
}

fn line(framing: Framing, chunk: &Chunk) -> Vec<u8> {
    let mut out = Vec::new();
    data(framing, &mut out, chunk);
    out
}

fn data(framing: Framing, out: &mut Vec<u8>, chunk: &Chunk) {
    let last = chunk.last_op().unwrap_or_default();
    let header = DataHeader { bucket: BUCKET, after: OpId::ZERO, next_after: last, has_more: false };
    framing.data(out, header, &[(chunk.clone(), 0..chunk.len())]);
}

/// The lines of a checkpoint in which one row has changed.
fn change(framing: Framing) -> Result<Vec<u8>> {
    let chunk = rows(1)?;
    let last_op_id = chunk.last_op().unwrap_or_default();
    let bucket = BucketDescription {
        bucket: BUCKET.into(),
        checksum: Checksum(0xdead_beef),
        count: Some(200_000),
        priority: BucketPriority::DEFAULT,
        subscriptions: vec![SubscriptionReason::Default(0)],
    };
    let mut out = Vec::new();
    let diff = CheckpointDiffLine {
        last_op_id,
        write_checkpoint: Some(WriteCheckpoint(17)),
        updated_buckets: vec![bucket],
        removed_buckets: Vec::new(),
    };
    framing.checkpoint_diff(&mut out, &diff);
    data(framing, &mut out, &chunk);
    framing.complete(&mut out, last_op_id);
    Ok(out)
}

/// Rows as the other figures have them, with ids that look random.
fn rows(count: usize) -> Result<Chunk> {
    let mut builder = ChunkBuilder::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    for index in 0..count as u64 {
        let mut uuid = || format!("{:08x}-{:04x}-4000-8000-{:012x}", random() as u32, random() as u16, random());
        let (id, list) = (uuid(), uuid());
        let data = format!(
            "{{\"id\":\"{id}\",\"list_id\":\"{list}\",\"title\":\"a todo with a title of an ordinary length, number {index}\",\
             \"done\":0,\"created_at\":\"2026-11-28 12:00:00.{:06}Z\"}}",
            index % 1_000_000
        );
        builder.push(OperationRef {
            op_id: OpId(4_000_000 + index),
            kind: OperationKind::Put,
            checksum: Checksum::of_put("todos", &id, data.as_bytes()),
            object_type: "todos",
            object_id: &id,
            subkey: "400a",
            data: &data,
        })?;
    }
    Ok(builder.finish())
}
