//! A server, clients and a Postgres that are killed at bad moments, as real processes.
//!
//! The two programs in `src/bin` are the victims; `tests/kill` starts and kills them. Here is what they agree on: the
//! tables, who gets which rows, who may write which, and how a user is known.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;
use syncline_storage_sqlite::{Schema, Table};

/// The key that signs tokens.
pub const KEY: &str = "a key of the kill tests, long enough for HS256";
/// Who the tokens are for.
pub const AUDIENCE: &str = "kill-tests";

/// The tables in Postgres. A client writes `entries` and its row of `counters`; `applied` records, in order, each state of
/// a counter that arrived, so that a write that is lost, repeated or out of order leaves a trace.
pub const TABLES: &str = "
    CREATE TABLE items (id text PRIMARY KEY, owner_id text NOT NULL, body text NOT NULL, version int NOT NULL);
    CREATE TABLE lists (id text PRIMARY KEY, owner_id text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, editors text NOT NULL, title text NOT NULL);
    CREATE TABLE entries (id text PRIMARY KEY, owner_id text NOT NULL, n int NOT NULL, note text NOT NULL);
    CREATE TABLE counters (id text PRIMARY KEY, owner_id text NOT NULL, n int NOT NULL);
    CREATE TABLE pulses (id text PRIMARY KEY);
    CREATE TABLE applied (seq bigserial PRIMARY KEY, counter text NOT NULL, n int NOT NULL);
    CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO applied (counter, n) VALUES (NEW.id, NEW.n); RETURN NEW; END $$;
    CREATE TRIGGER record AFTER UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION record();
    CREATE SCHEMA uploads;
    CREATE TABLE uploads.applied (user_id text NOT NULL, client_id text NOT NULL, op_id bigint NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (user_id, client_id, op_id));
    CREATE PUBLICATION syncline FOR ALL TABLES;";

/// Who gets which rows: most have one owner, a todo has several editors.
pub const CONFIG: &str = "
config: { edition: 3 }
streams:
  mine:
    auto_subscribe: true
    queries:
      - SELECT * FROM items WHERE owner_id = auth.user_id()
      - SELECT * FROM lists WHERE owner_id = auth.user_id()
      - SELECT * FROM todos WHERE auth.user_id() IN editors
      - SELECT * FROM entries WHERE owner_id = auth.user_id()
      - SELECT * FROM counters WHERE owner_id = auth.user_id()
  pulses:
    auto_subscribe: true
    query: SELECT * FROM pulses
";

/// Each table of a client with its columns, and which of Postgres' rows a user has: `$1` is the user.
pub const SYNCED: &[(&str, &str, &str)] = &[
    ("items", "id, owner_id, body, version", "owner_id = $1"),
    ("lists", "id, owner_id", "owner_id = $1"),
    ("todos", "id, editors, title", "editors::jsonb ? $1"),
    ("entries", "id, owner_id, n, note", "owner_id = $1"),
    ("counters", "id, owner_id, n", "owner_id = $1"),
    ("pulses", "id", "$1 <> ''"),
];

/// The tables of a client.
pub fn schema() -> Schema {
    Schema::new()
        .table(Table::new("items").text("owner_id").text("body").integer("version"))
        .table(Table::new("lists").text("owner_id"))
        .table(Table::new("todos").text("editors").text("title"))
        .table(Table::new("entries").text("owner_id").integer("n").text("note"))
        .table(Table::new("counters").text("owner_id").integer("n"))
        .table(Table::new("pulses"))
}

/// A token of this user, valid for an hour.
///
/// # Errors
/// If the clock of the machine is before 1970.
pub fn token(user: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({ "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 3600 });
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?)
}
