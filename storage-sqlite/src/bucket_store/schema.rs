//! The tables.

use rusqlite::Connection;
use syncline_core::{Error, Result};

use super::sqlite_error::failed;

/// Marks the file as one of ours ("SyBk").
const APPLICATION: i64 = 0x5379_426b;
/// Marks the file of requests beside it ("SyWc").
const REQUESTS_APPLICATION: i64 = 0x5379_5763;
/// 2: write checkpoints that the source confirmed. 3: a row names its key once.
const VERSION: i64 = 3;
/// 2: the keys of clients begin with the length of the user's id.
const REQUESTS_VERSION: i64 = 2;

/// Chunks are kept in two tables: headers sorted by bucket, so that a checksum costs one seek into small pages, and
/// contents in the order of operation ids, so that appending to many buckets writes to the end of one table only.
const TABLES: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    generation INTEGER NOT NULL,
    last_op INTEGER NOT NULL,           -- of the committed state
    next_definition INTEGER NOT NULL,
    position BLOB,
    deployed INTEGER,                   -- a config
    published_op INTEGER,
    published_config INTEGER,
    floor INTEGER NOT NULL,             -- checkpoints below it are of an earlier generation
    lookup_floor INTEGER NOT NULL       -- the lookups of checkpoints below it were compacted
);
CREATE TABLE states (name TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE configs (id INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY,
    definition INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    cleared_op INTEGER NOT NULL DEFAULT 0,      -- its state below is gone
    removed INTEGER NOT NULL DEFAULT 0,         -- operations that a CLEAR replaced, still part of running counts
    compacted_op INTEGER NOT NULL DEFAULT 0,    -- its last operation when it was compacted,
    compacted_count INTEGER NOT NULL DEFAULT 0, -- and its running count then
    merged_op INTEGER NOT NULL DEFAULT 0,       -- chunks up to here were merged
    UNIQUE (definition, parameters)
);
CREATE TABLE chunks (
    bucket INTEGER NOT NULL,
    last_op INTEGER NOT NULL,
    first_op INTEGER NOT NULL,
    count INTEGER NOT NULL,             -- running count and sum up to and including this chunk
    sum INTEGER NOT NULL,
    target INTEGER NOT NULL,            -- the highest operation that superseded one of its own
    size INTEGER NOT NULL,
    PRIMARY KEY (bucket, last_op)
) WITHOUT ROWID;
CREATE TABLE contents (last_op INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE source_rows (
    source_table INTEGER NOT NULL,
    key BLOB NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (source_table, key)
) WITHOUT ROWID;
CREATE TABLE lookups (
    definition INTEGER NOT NULL,
    key_values TEXT NOT NULL,
    source_table INTEGER NOT NULL,
    key BLOB NOT NULL,
    op_id INTEGER NOT NULL,
    outputs BLOB,                       -- NULL: no longer
    PRIMARY KEY (definition, key_values, source_table, key, op_id)
) WITHOUT ROWID;
CREATE TABLE confirmed (                -- write checkpoints that the last commit with any brought from the source:
    client TEXT PRIMARY KEY,            -- on their way into the file of requests
    number INTEGER NOT NULL
) WITHOUT ROWID;
";

const REQUEST_TABLES: &str = "
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), generation INTEGER NOT NULL);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    number INTEGER NOT NULL,
    token TEXT NOT NULL,                -- empty: the source confirmed it
    resolved_op INTEGER                 -- shown from here on; NULL: waits for the token
);
CREATE UNIQUE INDEX requests_by_client ON requests (client, number, token);
CREATE INDEX requests_waiting ON requests (token) WHERE resolved_op IS NULL;
";

/// Refuses a file that is not a bucket store, and changes nothing.
pub(super) fn check(connection: &Connection) -> Result<()> {
    is_new(connection, APPLICATION, VERSION, "a bucket store").map(drop)
}

/// The same for the file of requests.
pub(super) fn check_requests(connection: &Connection) -> Result<()> {
    is_new(connection, REQUESTS_APPLICATION, REQUESTS_VERSION, "a file of write checkpoints").map(drop)
}

/// Makes the tables of a new file; refuses a file that is not a bucket store.
pub(super) fn prepare(connection: &Connection) -> Result<()> {
    prepare_with(connection, APPLICATION, VERSION, TABLES, "a bucket store")
}

/// The same for the file of requests.
pub(super) fn prepare_requests(connection: &Connection) -> Result<()> {
    prepare_with(connection, REQUESTS_APPLICATION, REQUESTS_VERSION, REQUEST_TABLES, "a file of write checkpoints")
}

fn prepare_with(connection: &Connection, application: i64, known: i64, tables: &str, what: &str) -> Result<()> {
    if !is_new(connection, application, known, what)? {
        return Ok(());
    }
    connection
        .execute_batch(&format!(
            "BEGIN IMMEDIATE; {tables}
             PRAGMA application_id = {application}; PRAGMA user_version = {known}; COMMIT;"
        ))
        .map_err(failed("cannot open the bucket store"))
}

/// Whether the file is empty; an error if it is something else.
fn is_new(connection: &Connection, application: i64, known: i64, what: &str) -> Result<bool> {
    let failed = failed("cannot open the bucket store");
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(&failed);
    match (pragma("application_id")?, pragma("user_version")?, pragma("schema_version")?) {
        (0, 0, 0) => Ok(true),
        (id, version, _) if id == application && version == known => Ok(false),
        (id, version, _) if id == application => Err(Error::invalid(format!(
            "the file is {what} of version {version}, and this program knows version {known}"
        ))),
        _ => Err(Error::invalid(format!("the file is a database, but not {what}"))),
    }
}
