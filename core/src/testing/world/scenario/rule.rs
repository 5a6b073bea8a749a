//! The sync config of scenarios, and by hand what it gives to whom.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::content::{Content, Row};
use crate::bucket::BucketPriority;
use crate::config::StreamSubscription;
use crate::identity::Identity;

/// Streams of every priority, of everybody, of one user, of a claim and of a parameter, by one lookup and by two in a row;
/// tables in two of them.
pub(super) const CONFIG: &str = "
config: { edition: 3 }
streams:
  notices:
    auto_subscribe: true
    priority: 0
    query: SELECT id, text FROM notices
  lists:
    auto_subscribe: true
    priority: 1
    query: SELECT id, name, owner_id, shared, body FROM lists WHERE owner_id = auth.user_id()
  items:
    priority: 2
    query: SELECT id, list_id, text FROM items WHERE list_id = subscription.parameter('list')
  projects:
    auto_subscribe: true
    query: >
      SELECT id, name, team FROM projects
      WHERE team = auth.parameter('team') OR team IN (SELECT team FROM members WHERE user_id = auth.user_id())
  shared:
    auto_subscribe: true
    query: SELECT id, name, owner_id, shared, body FROM lists WHERE shared = 1
  team_items:
    auto_subscribe: true
    query: >
      SELECT items.id, items.list_id, items.text FROM items
      JOIN lists ON lists.id = items.list_id JOIN members ON members.user_id = lists.owner_id
      WHERE lists.shared = 1 AND members.team = auth.parameter('team')
";

/// The same streams with other columns, under other names.
pub(super) const OTHER_CONFIG: &str = "
config: { edition: 3 }
streams:
  notices:
    auto_subscribe: true
    priority: 0
    query: SELECT id, text AS message FROM notices
  lists:
    auto_subscribe: true
    priority: 1
    query: SELECT id, name AS title, shared FROM lists WHERE owner_id = auth.user_id()
  items:
    priority: 2
    query: SELECT id, list_id, text FROM items WHERE list_id = subscription.parameter('list')
  projects:
    auto_subscribe: true
    query: >
      SELECT id, name AS title, team FROM projects
      WHERE team = auth.parameter('team') OR team IN (SELECT team FROM members WHERE user_id = auth.user_id())
  shared:
    auto_subscribe: true
    query: SELECT id, name AS title, shared FROM lists WHERE shared = 1
  team_items:
    auto_subscribe: true
    query: >
      SELECT items.id, items.list_id, items.text FROM items
      JOIN lists ON lists.id = items.list_id JOIN members ON members.user_id = lists.owner_id
      WHERE lists.shared = 1 AND members.team = auth.parameter('team')
";

/// A row as the other config shows it.
fn other(table: &str, mut row: Row) -> Row {
    let mut rename = |from: &str, to: &str| {
        if let Some(value) = row.remove(from) {
            row.insert(to.to_owned(), value);
        }
    };
    match table {
        "notices" => rename("text", "message"),
        "lists" | "projects" => rename("name", "title"),
        _ => {}
    }
    if table == "lists" {
        row.remove("owner_id");
        row.remove("body");
    }
    row
}

/// The rows of one client by the other config.
pub(super) fn rows_of_other(
    content: &Content,
    identity: &Identity,
    subscriptions: &[StreamSubscription],
) -> BTreeMap<(String, String), (Row, BucketPriority)> {
    let rows = rows(content, identity, subscriptions).into_iter();
    rows.map(|(name, (row, priority))| (name.clone(), (other(&name.0, row), priority))).collect()
}

/// The columns of a table that are read, without the id; those of `members` reach no client.
pub(super) fn columns(table: &str) -> &'static [&'static str] {
    match table {
        "notices" => &["text"],
        "lists" => &["name", "owner_id", "shared", "body"],
        "items" => &["list_id", "text"],
        "members" => &["user_id", "team"],
        _ => &["name", "team"],
    }
}

/// The rows of one client, by name, with their priority.
pub(super) fn rows(
    content: &Content,
    identity: &Identity,
    subscriptions: &[StreamSubscription],
) -> BTreeMap<(String, String), (Row, BucketPriority)> {
    let mut found = BTreeMap::new();
    let user = Json::String(identity.user_id());
    let team = identity.claims().get("team");
    let table = |name: &str| content.tables.get(name).into_iter().flat_map(|table| table.rows.values());
    let is = |row: &Row, column: &str, value: Option<&Json>| {
        row.get(column).filter(|found| !found.is_null()) == value && value.is_some_and(|value| !value.is_null())
    };
    let is_member =
        |of: &Json| table("members").any(|member| is(member, "user_id", Some(&user)) && is(member, "team", Some(of)));
    let is_of_team =
        |user: &Json| table("members").any(|member| is(member, "user_id", Some(user)) && is(member, "team", team));
    let is_team_list = |list: &Json| {
        let list = content.tables.get("lists").and_then(|lists| lists.rows.get(list.as_str()?));
        list.is_some_and(|list| {
            list.get("shared").is_some_and(|shared| *shared == 1) && list.get("owner_id").is_some_and(is_of_team)
        })
    };
    for (table, of) in &content.tables {
        for (id, row) in &of.rows {
            let value = |column: &str| row.get(column).unwrap_or(&Json::Null);
            let priority = match &**table {
                "notices" => Some(0),
                "lists" if *value("owner_id") == user => Some(1),
                "lists" if *value("shared") == 1 => Some(3),
                "projects" if team == Some(value("team")) || is_member(value("team")) => Some(3),
                "items" => {
                    let mut wanted = subscriptions.iter().filter(|one| one.stream == "items");
                    let list =
                        |one: &StreamSubscription| one.parameters.as_ref().and_then(|all| all.get("list").cloned());
                    let wanted = wanted.find(|one| list(one).as_ref() == Some(value("list_id")));
                    let wanted = wanted.map(|one| one.override_priority.map_or(2, |priority| priority.0));
                    wanted.into_iter().chain(is_team_list(value("list_id")).then_some(3)).min()
                }
                _ => None,
            };
            let Some(priority) = priority else { continue };
            let shown = columns(table).iter().map(|column| ((*column).to_owned(), value(column).clone())).collect();
            found.insert((table.to_string(), id.clone()), (shown, BucketPriority(priority)));
        }
    }
    found
}
