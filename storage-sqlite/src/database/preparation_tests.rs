//! Large publishes, taken step by step: whatever comes between two steps, they show what a small one shows.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value as Json, json};
use syncline_core::{BucketPriority, ClientStore, PublishOutcome, PublishRequest, Uploaded, WallTime};

use super::budget::Budget;
use super::feed::{self, Feed, execute, list, rows};
use super::publish::Publishing;
use super::writer::{Writer, ask};
use super::{Clear, Database, Durability, Schema, Table};

fn on_writer<R: Send + 'static>(
    db: &Database,
    work: impl FnOnce(&mut Writer) -> super::Result<R> + Send + 'static,
) -> R {
    block_on(ask(db.writer(), move |writer| Ok(work(writer)))).unwrap()
}

/// Makes everything large: a transaction shows two rows, and one that prepares looks at three.
fn shrink(db: &Database) {
    on_writer(db, |writer| {
        writer.budget = Budget::of(2, 3);
        Ok(())
    });
}

/// A publish whose steps the test takes.
#[derive(Clone)]
struct Steps(Arc<Mutex<Publishing>>);

impl Steps {
    fn of(feed: &Feed, partial: Option<u8>) -> Self {
        let publishing = Publishing::new(request(feed, partial));
        Self(Arc::new(Mutex::new(publishing)))
    }

    fn step(&self, db: &Database) -> Option<PublishOutcome> {
        shrink(db);
        let publishing = Arc::clone(&self.0);
        on_writer(db, move |writer| publishing.lock().unwrap().step(writer))
    }

    fn rest(&self, db: &Database) -> PublishOutcome {
        (0..10_000).find_map(|_| self.step(db)).expect("a publish ends")
    }
}

fn request(feed: &Feed, partial: Option<u8>) -> PublishRequest {
    PublishRequest {
        target: feed.target(),
        partial: partial.map(BucketPriority),
        requested: Arc::from([]),
        now: WallTime(feed.now),
    }
}

fn publish(feed: &Feed, db: &Database, partial: Option<u8>) -> PublishOutcome {
    Steps::of(feed, partial).rest(db)
}

/// The shadow tables in the file.
fn shadows(db: &Database) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'syncline\\_shadow\\_%' ESCAPE '\\'";
    block_on(db.query::<String>(sql).all()).unwrap()
}

/// Waits until upkeep has removed what is not needed.
fn until_swept(db: &Database) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let due = "SELECT superseded FROM syncline_state";
    while !shadows(db).is_empty() || block_on(db.query::<i64>(due).one()).unwrap() > 0 {
        assert!(Instant::now() < deadline, "{:?} are never removed", shadows(db));
        std::thread::yield_now();
    }
    let sound: String = block_on(db.query("PRAGMA integrity_check").one()).unwrap();
    assert_eq!(sound, "ok");
    assert_indexed(db);
}

/// The index by row has what the log has, as far as it goes, which is at least as far as anything was published.
fn assert_indexed(db: &Database) {
    let log = "SELECT tbl, row_id, seq FROM syncline_log WHERE seq <= (SELECT sorted_seq FROM syncline_state)";
    let index = "SELECT tbl, row_id, seq FROM syncline_rows WHERE seq <= (SELECT sorted_seq FROM syncline_state)";
    for (some, others) in [(log, index), (index, log)] {
        let differing = format!("SELECT count(*) FROM (SELECT * FROM ({some}) EXCEPT SELECT * FROM ({others}))");
        assert_eq!(block_on(db.query::<i64>(differing).one()).unwrap(), 0, "{some}");
    }
    let ahead = "SELECT published_seq <= sorted_seq AND sorted_seq < next_seq FROM syncline_state";
    assert_eq!(block_on(db.query::<i64>(ahead).one()).unwrap(), 1);
}

#[test]
fn staging_leaves_the_index_by_row_to_the_publish() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let mut feed = Feed::default();
    let indexed = |db: &Database| block_on(db.query::<i64>("SELECT count(*) FROM syncline_rows").one()).unwrap();
    first(&mut feed);
    feed.begin(&db);
    feed.stage(&db);
    assert_eq!(indexed(&db), 0);
    assert_eq!(publish(&feed, &db, None), PublishOutcome::Published);
    assert_eq!(indexed(&db), 20);
    // Half of it is dropped while it is being sorted.
    second(&mut feed);
    feed.begin(&db);
    feed.stage(&db);
    let steps = Steps::of(&feed, None);
    (0..4).for_each(|_| assert_eq!(steps.step(&db), None));
    let mut other = feed.clone();
    other.drop_bucket("b");
    other.begin(&db);
    assert_eq!(publish(&other, &db, None), PublishOutcome::Published);
    until_swept(&db);
    block_on(db.clear(Clear::new())).unwrap();
    assert_eq!(indexed(&db), 0);
    assert_indexed(&db);
}

fn open(directory: &Path) -> Database {
    open_with(directory, feed::schema())
}

fn open_with(directory: &Path, schema: Schema) -> Database {
    block_on(Database::open(directory.join("app.db"), schema).durability(Durability::Off).into_future()).unwrap()
}

/// The database as a crash at this moment would leave it.
fn crashed(directory: &Path, schema: Schema) -> (tempfile::TempDir, Database) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["app.db", "app.db-wal"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    let db = open_with(copy.path(), schema);
    (copy, db)
}

/// The schema with another column, for which tables are made again from the log.
fn wider() -> Schema {
    Schema::new()
        .table(Table::new("lists").text("name").integer("rank").real("weight").text("more"))
        .table(Table::new("todos").text("list_id").text("title").integer("done").text("more"))
        .table(Table::new("drafts").text("body").local_only())
}

fn ids(db: &Database, table: &str) -> Vec<String> {
    rows(db, table).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// A first checkpoint with two tables of ten rows.
fn first(feed: &mut Feed) {
    for row in 0..10 {
        feed.put("a", "lists", &format!("l{row}"), json!({ "name": "one", "rank": row }));
        feed.put("b", "todos", &format!("t{row}"), json!({ "title": "one", "list_id": format!("l{row}") }));
    }
}

/// A second one: updates, inserts and removals in both.
fn second(feed: &mut Feed) {
    for row in 0..10 {
        match row % 3 {
            0 => feed.put("a", "lists", &format!("l{row}"), json!({ "name": "two" })),
            1 => feed.remove("a", "lists", &format!("l{row}")),
            _ => feed.put("a", "lists", &format!("new{row}"), json!({ "name": "two" })),
        }
        feed.put("b", "todos", &format!("t{row}"), json!({ "title": "two" }));
    }
}

#[test]
fn a_crash_after_any_step_leaves_all_or_nothing_and_the_rest_can_follow() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let mut feed = Feed::default();
    let mut before = (Vec::new(), Vec::new());
    for change in [first, second] {
        change(&mut feed);
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, None);
        let mut taken = 0;
        let outcome = loop {
            let outcome = steps.step(&db);
            taken += 1;
            let (_copy, copy) = crashed(directory.path(), feed::schema());
            let seen = (rows(&copy, "lists"), rows(&copy, "todos"));
            if outcome.is_some() {
                assert_ne!(seen, before);
            } else {
                assert_eq!(seen, before, "after step {taken}");
                // What is published is in the log too, whatever was prepared.
                let (_copy, copy) = crashed(directory.path(), wider());
                let made = (ids(&copy, "lists"), ids(&copy, "todos"));
                assert_eq!(made, (ids(&db, "lists"), ids(&db, "todos")), "after step {taken}");
            }
            until_swept(&copy);
            assert_eq!(publish(&feed, &copy, None), PublishOutcome::Published);
            let seen = (rows(&copy, "lists"), rows(&copy, "todos"));
            assert_ne!(seen, before);
            assert_eq!(block_on(copy.upload_state()).unwrap().queued, 0, "nothing of it is captured");
            execute(&copy, "INSERT INTO lists (id) VALUES ('mine')");
            assert_eq!(block_on(copy.upload_state()).unwrap().queued, 1, "what is local still is");
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        assert_eq!(outcome, PublishOutcome::Published);
        assert!(taken > 10, "only {taken} steps");
        before = (rows(&db, "lists"), rows(&db, "todos"));
        assert_eq!(block_on(db.upload_state()).unwrap().queued, 0);
        until_swept(&db);
    }
    let names: Vec<Json> = before.0.iter().map(|row| json!([row["id"], row["name"]])).collect();
    let expected =
        [["l0", "two"], ["l2", "one"], ["l3", "two"], ["l5", "one"], ["l6", "two"], ["l8", "one"], ["l9", "two"]];
    let expected = expected.iter().map(|row| json!(row));
    let expected: Vec<Json> = expected.chain(["new2", "new5", "new8"].map(|id| json!([id, "two"]))).collect();
    assert_eq!(names, expected);
}

#[test]
fn a_local_write_between_steps_holds_it_back_and_what_is_prepared_is_kept() {
    for local in 0..100 {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut feed = Feed::default();
        first(&mut feed);
        feed.sync(&db);
        second(&mut feed);
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, None);
        if (0..local).any(|_| steps.step(&db).is_some()) {
            assert!(local > 10);
            return;
        }
        execute(&db, "INSERT INTO drafts (id) VALUES ('this is nobody''s business')");
        let prepared = shadows(&db);
        // One row that changes anyway, one that does not, one that is new, and one that was removed.
        execute(&db, "UPDATE lists SET name = 'mine' WHERE id IN ('l0', 'l2')");
        execute(&db, "INSERT INTO lists (id, name) VALUES ('mine', 'x')");
        execute(&db, "DELETE FROM todos WHERE id = 't1'");
        let outcome = steps.rest(&db);
        assert_eq!(outcome, PublishOutcome::Held);
        feed::upload_and_cover(&db, 1);
        feed.write_checkpoint = Some(1);
        feed.put("a", "lists", "l2", json!({ "name": "accepted" }));
        assert_eq!(
            {
                feed.begin(&db);
                feed.stage(&db);
                shadows(&db)
            },
            prepared
        );
        let steps = Steps::of(&feed, None);
        let mut kept = prepared.is_empty();
        let outcome = loop {
            let outcome = steps.step(&db);
            kept |= shadows(&db).iter().any(|name| prepared.contains(name));
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        assert!(kept, "it began again");
        assert_eq!(outcome, PublishOutcome::Published);
        let lists = rows(&db, "lists");
        assert_eq!(lists[0]["name"], "two");
        assert_eq!(lists[1], list("l2", "accepted"));
        assert_eq!(lists.len(), 10, "{lists:?}");
        assert_eq!(ids(&db, "todos").len(), 10);
        assert_eq!(rows(&db, "drafts").len(), 1);
        assert_eq!(block_on(db.upload_state()).unwrap(), Default::default());
    }
    panic!("the publish never ended");
}

#[test]
fn the_highest_priority_is_prepared_past_local_writes_and_leaves_them_on_top() {
    for local in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut feed = Feed::default();
        feed.bucket("a", 0);
        feed.bucket("b", 0);
        first(&mut feed);
        feed.sync(&db);
        second(&mut feed);
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, Some(0));
        if (0..local).any(|_| steps.step(&db).is_some()) {
            assert!(local > 10);
            return;
        }
        execute(&db, "UPDATE lists SET rank = 77 WHERE id IN ('l0', 'l2')");
        execute(&db, "DELETE FROM lists WHERE id = 'l5'");
        execute(&db, "INSERT INTO lists (id, name) VALUES ('mine', 'x'), ('new2', 'x')");
        assert_eq!(steps.rest(&db), PublishOutcome::Published);
        let seen: Vec<Json> =
            rows(&db, "lists").iter().map(|row| json!([row["id"], row["name"], row["rank"]])).collect();
        let expected = [
            json!(["l0", "two", 77]),
            json!(["l1", "one", 1]),
            json!(["l2", "one", 77]),
            json!(["l3", "two", null]),
            json!(["l4", "one", 4]),
            json!(["l6", "two", null]),
            json!(["l7", "one", 7]),
            json!(["l8", "one", 8]),
            json!(["l9", "two", null]),
            json!(["mine", "x", null]),
            json!(["new2", "x", null]),
            json!(["new5", "two", null]),
            json!(["new8", "two", null]),
        ];
        assert_eq!(seen, expected, "after {local} steps");
        assert_eq!(block_on(db.upload_state()).unwrap().queued, 3);
        until_swept(&db);
    }
    panic!("the publish never ended");
}

#[test]
fn whatever_changes_the_table_meanwhile_is_respected() {
    let changes: [&'static str; 4] = [
        "CREATE INDEX mine ON lists (name, rank) WHERE name <> 'one'",
        "CREATE TRIGGER mine AFTER INSERT ON lists BEGIN INSERT INTO drafts (id, body) VALUES (NEW.id, 'seen'); END",
        "CREATE VIEW mine AS SELECT * FROM lists",
        "ALTER TABLE lists ADD COLUMN extra TEXT DEFAULT 'x'",
    ];
    for change in changes {
        for at in 0..12 {
            let directory = tempfile::tempdir().unwrap();
            let db = open(directory.path());
            let mut feed = Feed::default();
            first(&mut feed);
            feed.sync(&db);
            second(&mut feed);
            feed.begin(&db);
            feed.stage(&db);
            let steps = Steps::of(&feed, None);
            (0..at).for_each(|_| assert_eq!(steps.step(&db), None));
            execute(&db, change);
            assert_eq!(steps.rest(&db), PublishOutcome::Published);
            let lists = rows(&db, "lists");
            assert_eq!(lists.len(), 10, "{change} at {at}");
            until_swept(&db);
            let seen = rows(&db, "drafts").len();
            assert_eq!(seen, if change.contains("TRIGGER") { 3 } else { 0 }, "{change} at {at}");
            if change.contains("VIEW") {
                assert_eq!(rows(&db, "mine"), lists);
            }
            if change.contains("INDEX") {
                let sql = "SELECT count(*) FROM lists INDEXED BY mine WHERE name <> 'one'";
                assert_eq!(block_on(db.query::<i64>(sql).one()).unwrap(), 7);
            }
            if change.contains("ALTER") {
                assert!(lists.iter().all(|row| row["extra"] == "x"), "{lists:?}");
            }
            // The next one finds it there from the beginning.
            for row in 0..10 {
                feed.put("a", "lists", &format!("more{row}"), json!({ "name": "three" }));
            }
            feed.begin(&db);
            feed.stage(&db);
            assert_eq!(publish(&feed, &db, None), PublishOutcome::Published);
            assert_eq!(rows(&db, "lists").len(), 20);
            assert_eq!(rows(&db, "drafts").len(), if change.contains("TRIGGER") { 13 } else { 0 });
            until_swept(&db);
        }
    }
}

#[test]
fn another_checkpoint_a_lost_bucket_or_clear_make_it_begin_again() {
    for at in 1..7 {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut feed = Feed::default();
        first(&mut feed);
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, None);
        (0..at).for_each(|_| assert_eq!(steps.step(&db), None));
        // The driver is gone; its successor hears of a checkpoint without the bucket.
        let mut other = feed.clone();
        other.drop_bucket("a");
        other.begin(&db);
        assert_eq!(publish(&other, &db, None), PublishOutcome::Published);
        assert_eq!((ids(&db, "lists").len(), ids(&db, "todos").len()), (0, 10));
        until_swept(&db);

        feed.rewind("a");
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, None);
        (0..at).for_each(|_| assert_eq!(steps.step(&db), None));
        block_on(db.clear(Clear::new())).unwrap();
        assert_eq!(
            steps.rest(&db),
            PublishOutcome::Mismatch(vec!["a".into(), "b".into()]),
            "nothing is there any more"
        );
        assert!(rows(&db, "lists").is_empty() && rows(&db, "todos").is_empty());
        until_swept(&db);
        feed.rewind("a");
        feed.rewind("b");
        feed.begin(&db);
        feed.stage(&db);
        assert_eq!(publish(&feed, &db, None), PublishOutcome::Published);
        assert_eq!((ids(&db, "lists").len(), ids(&db, "todos").len()), (10, 10));
    }
}

#[test]
fn queries_and_watchers_go_on_over_it() {
    use futures::{FutureExt, StreamExt};
    let db = feed::open();
    execute(&db, "CREATE VIEW everything AS SELECT id, name FROM lists UNION ALL SELECT id, title FROM todos");
    let mut feed = Feed::default();
    let mut watch = db.query::<i64>("SELECT count(*) FROM everything").watch();
    assert_eq!(block_on(watch.next()).unwrap().unwrap(), [0]);
    for (change, count) in [(first as fn(&mut Feed), 20), (second, 20)] {
        change(&mut feed);
        feed.begin(&db);
        feed.stage(&db);
        let steps = Steps::of(&feed, None);
        let outcome = loop {
            let outcome = steps.step(&db);
            if outcome.is_some() {
                break outcome;
            }
            assert!(watch.next().now_or_never().is_none(), "nothing has changed yet");
        };
        assert_eq!(outcome, Some(PublishOutcome::Published));
        assert_eq!(block_on(watch.next()).unwrap().unwrap(), [count]);
        // A statement that was prepared before.
        execute(&db, "UPDATE todos SET done = 1 WHERE id = 't3'");
        assert_eq!(block_on(watch.next()).unwrap().unwrap(), [count]);
        assert_eq!(rows(&db, "todos")[3]["done"], 1);
        let plan: Vec<Json> =
            block_on(db.query("EXPLAIN QUERY PLAN SELECT * FROM todos WHERE list_id = 'l1'").all()).unwrap();
        assert!(plan[0].to_string().contains("_todos_by_list"), "{plan:?}");
        feed::upload_and_cover(&db, count);
        feed.write_checkpoint = Some(count);
    }
}

/// Indexes of every kind that an application can have on a synced table.
fn indexed(db: &Database) -> Vec<(&'static str, i64)> {
    let count = |sql| (sql, block_on(db.query::<i64>(format!("SELECT count(*) FROM todos {sql}")).one()).unwrap());
    vec![
        count("INDEXED BY by_title WHERE title > 't' COLLATE NOCASE"),
        count("INDEXED BY by_both WHERE list_id = 'l3' AND done < 5"),
        count("INDEXED BY by_both WHERE list_id IS NULL AND done IS NULL"),
        count("INDEXED BY by_done WHERE done IS NULL"),
        count("INDEXED BY by_done WHERE done >= 5"),
        count("INDEXED BY by_twice WHERE list_id = 'l1'"),
        count("NOT INDEXED"),
    ]
}

#[test]
fn an_index_is_made_bit_by_bit_and_local_writes_come_between() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    execute(&db, "CREATE INDEX by_title ON todos (title COLLATE NOCASE)");
    execute(&db, "CREATE INDEX by_both ON todos (list_id DESC, done)");
    execute(&db, "CREATE INDEX by_done ON todos (done)");
    execute(&db, "CREATE INDEX by_twice ON todos (list_id, list_id COLLATE RTRIM)");
    let mut feed = Feed::default();
    for row in 0..300 {
        let mut data = json!({ "title": if row % 2 == 0 { format!("T{row}") } else { format!("s{row}") } });
        if row % 3 > 0 {
            data["list_id"] = format!("l{}", row % 7).into();
        }
        match row % 5 {
            0 | 1 => {}
            // An integer column keeps what is none.
            2 => data["done"] = "text".into(),
            3 => data["done"] = 2.5.into(),
            _ => data["done"] = (row % 11).into(),
        }
        feed.put("a", "todos", &format!("t{row}"), data);
    }
    feed.begin(&db);
    feed.stage(&db);
    let steps = Steps::of(&feed, None);
    let mut drafts = 0;
    let mut filled = false;
    while steps.step(&db).is_none() {
        execute(&db, "INSERT INTO drafts (id) VALUES (uuid())");
        drafts += 1;
        let parts = shadows(&db).into_iter().filter(|name| name.ends_with("_sorted")).count();
        // At any of these moments the application may be killed.
        if parts > 0 && drafts % 50 == 0 {
            filled = true;
            let (_copy, after) = crashed(directory.path(), feed::schema());
            assert_eq!(rows(&after, "todos").len(), 0);
            until_swept(&after);
        }
    }
    assert!(filled && drafts > 1_000, "the publish took {drafts} steps");
    assert_eq!(rows(&db, "drafts").len(), drafts);
    until_swept(&db);
    let found = indexed(&db);
    let counts: Vec<i64> = found.iter().map(|(_, count)| *count).collect();
    // The same without the indexes.
    let plain = |condition: &str| {
        let sql = format!("SELECT count(*) FROM todos NOT INDEXED {condition}");
        block_on(db.query::<i64>(sql).one()).unwrap()
    };
    for (sql, count) in &found {
        let condition = sql.split_once("WHERE").map(|(_, condition)| format!("WHERE {condition}")).unwrap_or_default();
        assert_eq!(plain(&condition), *count, "{sql}");
    }
    assert_eq!(counts.last(), Some(&300));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// Something that happens to a client.
#[derive(Debug, Clone)]
enum Happens {
    Put(u8, u8, u8),
    Remove(u8, u8),
    Move(u8),
    Clear(u8),
    Drop(u8),
    Rewind(u8),
    Local(u8, u8),
    Upload(bool),
    Publish(Option<u8>),
}

fn happens() -> impl Strategy<Value = Happens> {
    let row = 0..12_u8;
    prop_oneof![
        12 => (0..4_u8, row.clone(), any::<u8>()).prop_map(|(bucket, row, n)| Happens::Put(bucket, row, n)),
        4 => (0..4_u8, row.clone()).prop_map(|(bucket, row)| Happens::Remove(bucket, row)),
        1 => (0..4_u8).prop_map(Happens::Move),
        1 => (0..4_u8).prop_map(Happens::Clear),
        1 => (0..4_u8).prop_map(Happens::Drop),
        1 => (0..4_u8).prop_map(Happens::Rewind),
        3 => (0..5_u8, row).prop_map(|(what, row)| Happens::Local(what, row)),
        3 => any::<bool>().prop_map(Happens::Upload),
        4 => Just(Happens::Publish(None)),
        3 => (0..3_u8).prop_map(|priority| Happens::Publish(Some(priority))),
    ]
}

fn local(db: &Database, what: u8, row: u8) {
    let sql = match what {
        0 => "INSERT OR REPLACE INTO lists (id, name) VALUES (?1, 'mine')",
        1 => "UPDATE lists SET rank = 1000 WHERE id = ?1",
        2 => "DELETE FROM lists WHERE id = ?1",
        3 => "INSERT OR IGNORE INTO todos (id, title) VALUES (?1, 'mine')",
        _ => "DELETE FROM todos WHERE id = ?1",
    };
    block_on(db.write(move |tx| Ok(tx.execute(sql, [format!("r{row}")])?))).unwrap();
}

/// Everything that can be seen.
fn seen(db: &Database) -> (Vec<Json>, Vec<Json>, syncline_core::ClientState) {
    let mut state = block_on(db.resume(WallTime(0))).unwrap();
    state.client_id = "same".into();
    (rows(db, "lists"), rows(db, "todos"), state)
}

/// The same conversation with a database that publishes in one transaction and one that prepares everything.
fn converse(story: &[Happens]) {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [small, large] = [open(directories[0].path()), open(directories[1].path())];
    execute(&large, "CREATE INDEX mine ON lists (rank)");
    let mut feed = Feed::default();
    for bucket in 0..4 {
        feed.bucket(&format!("b{bucket}"), bucket);
    }
    let mut checkpoint = 0;
    for happens in story {
        let bucket = |number: &u8| format!("b{number}");
        match happens {
            Happens::Put(number, row, n) => {
                let table = ["lists", "todos", "elsewhere"][usize::from(n % 7 / 3)];
                let data = json!({ "name": n, "title": n, "rank": feed.op }).to_string();
                feed.bucket(&bucket(number), *number);
                feed.put_as(&bucket(number), table, &format!("r{row}"), ["s", "u"][usize::from(n % 2)], &data);
            }
            Happens::Remove(number, row) => {
                feed.bucket(&bucket(number), *number);
                feed.remove(&bucket(number), ["lists", "todos"][usize::from(row % 2)], &format!("r{row}"));
            }
            Happens::Move(number) if feed.buckets.get(&bucket(number)).is_some_and(|(_, ops)| !ops.is_empty()) => {
                // What is compacted is sent anew, as a client that has it keeps it.
                feed.compact(&bucket(number), 0);
                feed.clear(&bucket(number));
            }
            Happens::Clear(number) if feed.buckets.contains_key(&bucket(number)) => feed.clear(&bucket(number)),
            Happens::Drop(number) => feed.drop_bucket(&bucket(number)),
            Happens::Rewind(number) if feed.buckets.contains_key(&bucket(number)) => {
                // The sum does not fit: the bucket comes again from the beginning.
                let mut wrong = feed.clone();
                let target = &mut wrong.buckets.get_mut(&bucket(number)).unwrap().1;
                if let Some(last) = target.last_mut() {
                    last.checksum.0 ^= 1;
                    for db in [&small, &large] {
                        wrong.begin(db);
                        let partial = Some(*number);
                        assert!(matches!(publish(&wrong, db, partial), PublishOutcome::Mismatch(_)));
                    }
                    let state = block_on(small.resume(WallTime(0))).unwrap();
                    for name in feed.buckets.keys().cloned().collect::<Vec<_>>() {
                        if !state.buckets.iter().any(|(held, _)| **held == *name) {
                            feed.rewind(&name);
                        }
                    }
                }
            }
            Happens::Local(what, row) => [&small, &large].into_iter().for_each(|db| local(db, *what, *row)),
            Happens::Upload(applied) => {
                checkpoint += 1;
                for db in [&small, &large] {
                    let outcome = if *applied { Uploaded::Applied } else { Uploaded::Rejected { reason: "no".into() } };
                    feed::upload(db, &outcome);
                    if block_on(db.upload_state()).unwrap().uncovered.is_some() {
                        feed::cover(db, checkpoint);
                    }
                }
                feed.write_checkpoint = Some(checkpoint);
            }
            Happens::Publish(partial) => {
                feed.begin(&small);
                feed.begin(&large);
                let lines = feed.lines(3, |_| true);
                block_on(small.stage(&lines)).unwrap();
                block_on(large.stage(&lines)).unwrap();
                on_writer(&small, |writer| {
                    writer.budget = Budget::default();
                    Ok(())
                });
                assert_eq!(publish(&feed, &large, *partial), feed.publish(&small, *partial), "{happens:?}");
            }
            _ => {}
        }
        assert_eq!(seen(&large), seen(&small), "after {happens:?}");
    }
    until_swept(&large);
    // What is in the log makes the same tables.
    block_on(small.close());
    block_on(large.close());
    let [small, large] = directories.each_ref().map(|directory| open_with(directory.path(), wider()));
    assert_eq!(seen(&large), seen(&small), "made again from the log");
}

#[test]
fn prepared_or_not_a_publish_shows_the_same() {
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(happens(), 1..60), |story| {
            converse(&story);
            Ok(())
        })
        .unwrap();
}
