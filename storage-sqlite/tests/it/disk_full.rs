//! A disk without space: what is begun fails with a reason, nothing is lost, and everything goes on when there is space.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use serde_json::json;
use syncline_core::memory::{MemoryBucketStore, MemorySource, MemoryTransport, TokenIsUser};
use syncline_core::protocol::DataLine;
use syncline_core::{
    BoxError, ClientStore, Connector, Credentials, ErrorKind, LocalTransaction, PublishOutcome, PublishRequest,
    Replicator, SyncClient, SyncConfig, SyncService, Uploaded, WallTime,
};
use syncline_storage_sqlite::{Database, Error, Schema, Table, rusqlite};

use crate::feed::{Feed, execute, open, rows, upload_and_cover};

/// Lets the file grow by so many pages and no more; `None`: by as many as it likes.
fn leave(db: &Database, pages: Option<i64>) {
    block_on(db.write(move |tx| {
        let used: i64 = tx.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let most = pages.map_or(1 << 30, |pages| used + pages);
        let limit: i64 = tx.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get(0))?;
        assert_eq!(limit, most);
        Ok(())
    }))
    .unwrap();
}

fn assert_full(error: &syncline_core::Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it can pass: {error}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let mut said = Vec::new();
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    assert!(said.iter().any(|text| text.contains("full")), "{said:?}");
}

/// A checkpoint with many rows in two tables.
fn fill(feed: &mut Feed, rows: usize) {
    for row in 0..rows {
        feed.put("a", "lists", &format!("l{row}"), json!({ "name": "a name of some length, so that pages fill up" }));
        feed.put("b", "todos", &format!("t{row}"), json!({ "title": "a title of some length, so that pages fill up" }));
    }
}

/// What a client that knows its positions is sent.
fn missing(db: &Database, feed: &mut Feed) -> Vec<DataLine> {
    let positions = block_on(db.resume(WallTime(0))).unwrap().buckets;
    for name in feed.buckets.keys().cloned().collect::<Vec<_>>() {
        feed.rewind(&name);
    }
    let mut lines = feed.lines(100, |_| true);
    for line in &mut lines {
        let after = positions.iter().find(|(name, _)| *name == line.bucket).map(|(_, position)| *position);
        line.operations.retain(|operation| after.is_none_or(|after| operation.op_id > after));
    }
    lines
}

fn count(db: &Database) -> (usize, usize) {
    (rows(db, "lists").len(), rows(db, "todos").len())
}

#[test]
fn a_download_goes_on_where_the_disk_was_full() {
    let db = open();
    let mut feed = Feed::default();
    fill(&mut feed, 2000);
    feed.begin(&db);
    leave(&db, Some(60));
    let lines = missing(&db, &mut feed);
    let error = lines.chunks(2).find_map(|lines| block_on(db.stage(lines)).err()).expect("so much does not fit");
    assert_full(&error);
    leave(&db, None);
    let rest = missing(&db, &mut feed);
    let left: usize = rest.iter().map(|line| line.operations.len()).sum();
    assert!(left > 0 && left < 4000, "{left} operations are missing");
    block_on(db.stage(&rest)).unwrap();
    assert_eq!(feed.publish(&db, None), PublishOutcome::Published, "the sums fit");
    assert_eq!(count(&db), (2000, 2000));
}

#[test]
fn a_publish_that_does_not_fit_shows_nothing_and_is_tried_again() {
    for size in [500, 4000] {
        let db = open();
        let mut feed = Feed { write_checkpoint: Some(1), ..Default::default() };
        execute(&db, "INSERT INTO lists (id, name) VALUES ('l0', 'mine')");
        upload_and_cover(&db, 1);
        fill(&mut feed, size);
        feed.begin(&db);
        feed.stage(&db);
        let request =
            PublishRequest { target: feed.target(), partial: None, requested: Arc::from([]), now: WallTime(1) };
        for pages in [1, 8] {
            leave(&db, Some(pages));
            assert_full(&block_on(db.publish(&request)).unwrap_err());
            assert_eq!(count(&db), (1, 0), "nothing is shown");
            assert_eq!(rows(&db, "lists")[0]["name"], "mine");
        }
        leave(&db, None);
        assert_eq!(block_on(db.publish(&request)).unwrap(), PublishOutcome::Published);
        assert_eq!(count(&db), (size, size));
        assert_eq!(block_on(db.upload_state()).unwrap(), Default::default());
        let sound: String = block_on(db.query("PRAGMA integrity_check").one()).unwrap();
        assert_eq!(sound, "ok");
    }
}

#[test]
fn a_local_write_that_does_not_fit_leaves_nothing_behind() {
    let db = open();
    leave(&db, Some(2));
    let error = block_on(db.write(|tx| {
        for row in 0..1000 {
            tx.execute("INSERT INTO lists (id, name) VALUES (?1, 'some text to fill pages with')", [row.to_string()])?;
        }
        Ok(())
    }))
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let code = match &error {
        Error::Sqlite(error) => error.sqlite_error_code(),
        _ => None,
    };
    assert_eq!(code, Some(rusqlite::ErrorCode::DiskFull));
    assert!(rows(&db, "lists").is_empty());
    assert_eq!(block_on(db.upload_state()).unwrap().queued, 0);
    leave(&db, None);
    execute(&db, "INSERT INTO lists (id) VALUES ('a')");
    assert_eq!(rows(&db, "lists").len(), 1);
    assert_eq!(block_on(db.next_upload()).unwrap().unwrap().crud[0].id, "a");
}

/// Backend of a client that only reads.
#[derive(Debug)]
struct Reader;

#[syncline_core::async_trait]
impl Connector for Reader {
    async fn credentials(&self) -> Result<Credentials, BoxError> {
        Ok(Credentials::new("anna"))
    }

    async fn upload(&self, _: &LocalTransaction, _: &Credentials) -> Result<Uploaded, BoxError> {
        Ok(Uploaded::Applied)
    }
}

#[tokio::test]
async fn a_running_client_says_that_its_disk_is_full_and_goes_on_when_there_is_room() {
    let source = MemorySource::new().table("lists", ["id", "name"]);
    let name = "a name of some length, so that pages fill up";
    for row in 0..2_000 {
        source.put("lists", json!({ "id": format!("l{row}"), "name": name })).unwrap();
    }
    let config = "{ config: { edition: 3 }, streams: { all: { auto_subscribe: true, query: SELECT * FROM lists } } }";
    let store = MemoryBucketStore::new();
    tokio::spawn(Replicator::new(source.clone(), SyncConfig::parse(config).unwrap(), store.clone()).run());
    let schema = Schema::new().table(Table::new("lists").text("name"));
    let db = Database::open_in_memory(schema).await.unwrap();
    leave(&db, Some(20));
    let sync = SyncClient::new(db.clone(), MemoryTransport::new(SyncService::new(store, TokenIsUser)), Reader);
    tokio::spawn(sync.run());
    let within = Duration::from_secs(30);

    let mut statuses = sync.status();
    let told = async {
        loop {
            let problem = statuses.next().await.unwrap().download_error;
            if let Some(problem) = problem {
                break problem.message;
            }
        }
    };
    let told = tokio::time::timeout(within, told).await.unwrap();
    assert!(told.contains("disk of the client's database is full: free some space"), "{told}");
    assert_eq!(rows(&db, "lists").len(), 0, "nothing is shown");

    leave(&db, None);
    // Without a call of the application.
    let mut counts = db.query::<i64>("SELECT count(*) FROM lists").watch();
    let all = async { while counts.next().await.unwrap().unwrap() != [2_000] {} };
    tokio::time::timeout(within, all).await.unwrap();
    let cleared = async { while statuses.next().await.unwrap().download_error.is_some() {} };
    tokio::time::timeout(within, cleared).await.unwrap();
}
