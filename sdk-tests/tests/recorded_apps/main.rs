//! Whole applications whose answers the official service gave, on a real Postgres: what each user sees with our client and
//! with the official SDK for Node, at first and while rows come, change and go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod app;
mod content;
mod server;
mod users;

use crate::app::App;
use crate::content::Content;
use crate::server::Server;
use crate::users::User;

/// Everything that is recorded, in the order of the file.
const APPS: [&str; 6] = [
    "12-apps/shared-todo-rules",
    "12-apps/multi-tenant",
    "12-apps/social-boards",
    "12-apps/client-versions",
    "12-apps/acl-json",
    "12-apps/admin-support",
];

#[test]
fn all_recorded_apps_are_run() {
    let recorded: Vec<String> = App::all().into_iter().map(|app| app.id).collect();
    assert_eq!(recorded, APPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_do_lists_with_sharing() {
    run(APPS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_roles_and_regions() {
    run(APPS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boards_by_an_array_column() {
    run(APPS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shapes_of_a_table() {
    run(APPS[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_in_a_json_column_and_in_the_token() {
    run(APPS[4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_staff_and_customers() {
    run(APPS[5]).await;
}

async fn run(id: &str) {
    let app = App::all().into_iter().find(|app| app.id == id).unwrap();
    let mut content = Content::new(&app);
    let server = Server::start(&app, &content).await;
    let shapes = content.shapes();
    let mut users = Vec::new();
    for (name, request) in &app.requests {
        assert_eq!(content.visible(request), app.visible(name), "{id}: {name} sees other rows than were recorded");
        users.push(User::connect(&server, name, request, &shapes).await);
    }
    for user in &mut users {
        user.sees(&content, "at first").await;
    }
    // Every row goes and comes back, and every value gives way to one that another row has, and comes back.
    let changes = content.changes();
    assert!(!changes.is_empty());
    for change in changes {
        let sql = content.apply(&change);
        server.execute(&sql).await;
        for user in &mut users {
            user.sees(&content, &sql).await;
        }
    }
    for user in users {
        user.close().await;
    }
}
