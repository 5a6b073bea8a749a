//! Rights that are rows of the database: whoever gains or loses them gains and loses what they give.

use syncline_storage_sqlite::{Schema, Table};
use system_tests::{Device, Server};

const CONFIG: &str = "
config: { edition: 3 }
streams:
  tenant:
    auto_subscribe: true
    with:
      mine: SELECT org_id, role FROM org_members WHERE user_id = auth.user_id()
    queries:
      - SELECT id, name FROM orgs WHERE id IN (SELECT org_id FROM mine)
      - SELECT id, org_id, name FROM projects WHERE org_id IN (SELECT org_id FROM mine) AND NOT archived
      - SELECT invoices.id, invoices.org_id, invoices.amount FROM invoices JOIN mine ON mine.org_id = invoices.org_id
        WHERE mine.role = 'billing'
  tasks:
    auto_subscribe: true
    query: >
      SELECT tasks.id, tasks.project_id, tasks.title FROM tasks
      JOIN projects ON projects.id = tasks.project_id
      JOIN org_members ON org_members.org_id = projects.org_id
      WHERE org_members.user_id = auth.user_id() AND NOT projects.archived
";

const TABLES: &str = "
    CREATE TABLE orgs (id text PRIMARY KEY, name text);
    CREATE TABLE org_members (id bigint PRIMARY KEY, user_id text, org_id text, role text, seen timestamptz);
    CREATE TABLE projects (id text PRIMARY KEY, org_id text, name text, archived boolean NOT NULL DEFAULT false);
    CREATE TABLE invoices (id text PRIMARY KEY, org_id text, amount numeric);
    CREATE TABLE tasks (id text PRIMARY KEY, project_id text, title text);
    INSERT INTO orgs VALUES ('o1', 'A'), ('o2', 'B');
    INSERT INTO org_members VALUES (1, 'anna', 'o1', 'billing', NULL), (2, 'ben', 'o2', 'member', NULL);
    INSERT INTO projects VALUES ('p1', 'o1', 'one', false), ('p2', 'o2', 'two', false), ('p3', 'o1', 'old', true);
    INSERT INTO invoices VALUES ('i1', 'o1', 10.50), ('i2', 'o2', 7);
    INSERT INTO tasks VALUES ('t1', 'p1', 'first'), ('t2', 'p2', 'second'), ('t3', 'p3', 'third');";

fn schema() -> Schema {
    Schema::new()
        .table(Table::new("orgs").text("name"))
        .table(Table::new("projects").text("org_id").text("name"))
        .table(Table::new("invoices").text("org_id").text("amount"))
        .table(Table::new("tasks").text("project_id").text("title"))
}

/// The ids of everything that a device has.
const ALL: &str = "SELECT group_concat(id, ' ') FROM (
    SELECT id FROM orgs UNION ALL SELECT id FROM projects UNION ALL SELECT id FROM invoices UNION ALL SELECT id FROM tasks
    ORDER BY id)";

#[tokio::test(flavor = "multi_thread")]
async fn rights_come_and_go_with_the_rows_that_give_them() {
    let server = Server::start(TABLES, CONFIG, |backend| backend).await;
    let anna = Device::online(&server, "anna", schema()).await;
    let ben = Device::online(&server, "ben", schema()).await;
    anna.until(ALL, "i1 o1 p1 t1").await;
    ben.until(ALL, "o2 p2 t2").await;

    // In one transaction Anna joins the other organisation and a project there gets a task.
    server
        .execute(
            "BEGIN; INSERT INTO org_members VALUES (3, 'anna', 'o2', 'member', NULL);
             INSERT INTO tasks VALUES ('t4', 'p2', 'fourth'); COMMIT",
        )
        .await;
    anna.until(ALL, "i1 o1 o2 p1 p2 t1 t2 t4").await;
    ben.until(ALL, "o2 p2 t2 t4").await;

    // Another column of the row that gives a right changes nothing.
    server.execute("UPDATE org_members SET seen = now()").await;
    // A project that is archived takes its tasks along, and one that is not any more brings them.
    server.execute("UPDATE projects SET archived = id = 'p1' WHERE id IN ('p1', 'p3')").await;
    anna.until(ALL, "i1 o1 o2 p2 p3 t2 t3 t4").await;

    // The role alone decides about invoices.
    server.execute("UPDATE org_members SET role = CASE id WHEN 1 THEN 'member' ELSE 'billing' END").await;
    anna.until(ALL, "i2 o1 o2 p2 p3 t2 t3 t4").await;
    ben.until(ALL, "i2 o2 p2 t2 t4").await;

    server.execute("DELETE FROM org_members WHERE user_id = 'anna'").await;
    anna.until(ALL, "NULL").await;
    ben.until(ALL, "i2 o2 p2 t2 t4").await;
    server.execute("TRUNCATE org_members").await;
    ben.until(ALL, "NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_change_while_a_device_is_away_are_right_when_it_comes_back() {
    let server = Server::start(TABLES, CONFIG, |backend| backend).await;
    let mut anna = Device::online(&server, "anna", schema()).await;
    anna.until(ALL, "i1 o1 p1 t1").await;
    anna.disconnect().await;
    server.execute("UPDATE org_members SET org_id = 'o2' WHERE id = 1").await;
    anna.connect();
    anna.until(ALL, "i2 o2 p2 t2").await;
}
