//! What is inside a client's database, for support and for curiosity.

use rusqlite::Connection;
use syncline_core::{LocalTransaction, OpId, UploadState, WallTime, WriteCheckpoint};

use super::error::Result;
use super::handle::Database;
use super::upload_queue::{self, RejectedTransaction};
use super::writer::ask;

/// A look inside a [`Database`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DatabaseDiagnostics {
    /// The id of this client.
    pub client_id: String,
    /// When a full checkpoint was last published.
    pub last_synced_at: Option<WallTime>,
    /// The last full checkpoint that was published.
    pub published: Option<OpId>,
    /// The largest write checkpoint that was published.
    pub write_checkpoint: Option<WriteCheckpoint>,
    /// The buckets, by name.
    pub buckets: Vec<BucketDiagnostics>,
    /// Operations in the log, also of buckets that are being removed.
    pub operations: u64,
    /// Those of them that were downloaded and not published.
    pub staged_operations: u64,
    /// Tables that the server sends and the schema lacks. Their rows are kept and appear when the schema has them.
    pub undeclared_tables: Vec<String>,
    /// The upload queue.
    pub uploads: UploadState,
    /// Transactions that were refused and not dismissed.
    pub rejected: u64,
    /// Bytes of the file, without those of its write-ahead log.
    pub file_bytes: u64,
}

/// A bucket of a [`DatabaseDiagnostics`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BucketDiagnostics {
    /// Its name.
    pub name: String,
    /// Everything up to here is stored.
    pub last_op: OpId,
    /// Operations that are kept.
    pub operations: u64,
}

impl Database {
    /// A look inside. Counts every operation: not for a loop.
    ///
    /// # Errors
    /// What SQLite says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn diagnostics(&self) -> Result<DatabaseDiagnostics> {
        let declared: Vec<String> = self.schema().tables().iter().map(|table| table.name().to_owned()).collect();
        self.read(move |conn| look(conn, &declared)).await
    }

    /// The oldest local transactions that were not uploaded, at most `limit`.
    ///
    /// # Errors
    /// What SQLite says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn queue(&self, limit: usize) -> Result<Vec<LocalTransaction>> {
        self.read(move |conn| upload_queue::unsent(conn, limit)).await
    }

    /// The transactions that the backend refused, oldest first, until they are dismissed.
    ///
    /// # Errors
    /// What SQLite says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn rejected(&self) -> Result<Vec<RejectedTransaction>> {
        self.read(upload_queue::rejected).await
    }

    /// Forgets a refused transaction. `false` if there is none with this number.
    ///
    /// # Errors
    /// What SQLite says.
    ///
    /// # Cancel safety
    /// All or nothing.
    pub async fn dismiss_rejected(&self, id: i64) -> Result<bool> {
        ask(self.writer(), move |writer| Ok(writer.transaction(|conn, _| upload_queue::dismiss(conn, id)))).await
    }
}

fn look(conn: &Connection, declared: &[String]) -> Result<DatabaseDiagnostics> {
    let number = |sql: &str| -> Result<u64> {
        let number: i64 = conn.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    let op = |number: i64| OpId(u64::try_from(number).unwrap_or(0));
    let mut statement = conn.prepare(
        "SELECT name, last_op, (SELECT count(*) FROM syncline_log AS l WHERE l.bucket = b.id) \
         FROM syncline_buckets AS b WHERE name IS NOT NULL ORDER BY name",
    )?;
    let buckets = statement.query_map([], |row| {
        Ok(BucketDiagnostics {
            name: row.get(0)?,
            last_op: op(row.get(1)?),
            operations: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        })
    })?;
    let buckets = buckets.collect::<rusqlite::Result<_>>()?;
    let mut names = conn.prepare("SELECT name FROM syncline_tables ORDER BY name")?;
    let names = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let (client_id, last_synced_at, published, write_checkpoint) = conn.query_row(
        "SELECT client_id, last_synced_at, published_op, write_checkpoint FROM syncline_state",
        [],
        |row| {
            Ok((
                row.get(0)?,
                row.get::<_, Option<i64>>(1)?.map(WallTime),
                row.get::<_, Option<i64>>(2)?.map(op),
                row.get::<_, Option<i64>>(3)?.map(WriteCheckpoint),
            ))
        },
    )?;
    Ok(DatabaseDiagnostics {
        client_id,
        last_synced_at,
        published,
        write_checkpoint,
        buckets,
        operations: number("SELECT count(*) FROM syncline_log")?,
        staged_operations: number(
            "SELECT count(*) FROM syncline_log AS l JOIN syncline_buckets AS b ON b.id = l.bucket \
             WHERE b.name IS NOT NULL AND l.seq > max(b.published_seq, (SELECT published_seq FROM syncline_state))",
        )?,
        undeclared_tables: names.into_iter().filter(|name| !declared.contains(name)).collect(),
        uploads: upload_queue::state(conn)?,
        rejected: number("SELECT count(*) FROM syncline_rejected")?,
        file_bytes: number("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")?,
    })
}
