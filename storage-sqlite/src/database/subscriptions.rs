//! The streams that the application subscribed to.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde_json::{Map, Value as Json};
use syncline_core::{BucketPriority, StoredSubscription, WallTime};

use super::error::Result;

/// Those that have not expired; the others are dropped.
pub(crate) fn resume(conn: &Connection, now: WallTime) -> Result<Vec<StoredSubscription>> {
    conn.prepare_cached("DELETE FROM syncline_subscriptions WHERE expires_at <= ?1")?.execute([now.0])?;
    let mut statement = conn.prepare_cached(
        "SELECT stream, parameters, priority, expires_at, last_synced_at FROM syncline_subscriptions ORDER BY rowid",
    )?;
    let mut rows = statement.query([])?;
    let mut subscriptions = Vec::new();
    while let Some(row) = rows.next()? {
        let parameters: String = row.get(1)?;
        subscriptions.push(StoredSubscription {
            stream: row.get(0)?,
            parameters: serde_json::from_str(&parameters)?,
            priority: row.get::<_, Option<u8>>(2)?.map(BucketPriority),
            expires_at: WallTime(row.get(3)?),
            last_synced_at: row.get::<_, Option<i64>>(4)?.map(WallTime),
        });
    }
    Ok(subscriptions)
}

/// Records, renews, or with `None` ends a subscription.
pub(crate) fn record(
    conn: &Connection,
    stream: &str,
    parameters: &Map<String, Json>,
    priority: Option<BucketPriority>,
    expires_at: Option<WallTime>,
) -> Result<()> {
    let parameters = canonical(parameters);
    match expires_at {
        None => conn
            .prepare_cached("DELETE FROM syncline_subscriptions WHERE stream = ?1 AND parameters = ?2")?
            .execute((stream, parameters))?,
        Some(expires_at) => conn
            .prepare_cached(
                "INSERT INTO syncline_subscriptions (stream, parameters, priority, expires_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (stream, parameters) DO UPDATE SET priority = excluded.priority, expires_at = excluded.expires_at",
            )?
            .execute((stream, parameters, priority.map(|priority| priority.0), expires_at.0))?,
    };
    Ok(())
}

/// The rows of these are complete. The time never goes back.
pub(crate) fn completed(conn: &Connection, subscriptions: &[&StoredSubscription], now: WallTime) -> Result<()> {
    for subscription in subscriptions {
        conn.prepare_cached(
            "UPDATE syncline_subscriptions SET last_synced_at = max(coalesce(last_synced_at, ?3), ?3) \
             WHERE stream = ?1 AND parameters = ?2",
        )?
        .execute((&subscription.stream, canonical(&subscription.parameters), now.0))?;
    }
    Ok(())
}

/// Parameters as text that is the same whatever the order of their members.
fn canonical(parameters: &Map<String, Json>) -> String {
    fn sorted(value: &Json) -> Json {
        match value {
            Json::Object(members) => {
                let members: BTreeMap<&String, Json> =
                    members.iter().map(|(key, value)| (key, sorted(value))).collect();
                Json::Object(members.into_iter().map(|(key, value)| (key.clone(), value)).collect())
            }
            Json::Array(elements) => Json::Array(elements.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(&Json::Object(parameters.clone())).to_string()
}
