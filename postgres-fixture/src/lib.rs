//! A throwaway Postgres cluster for tests, the demo and the figures.
//!
//! It is started from the server binaries of the machine (see [`Binaries::find`]) in a directory of its own, and stops
//! and removes everything when it is dropped, when the test panics and when the process is killed.

mod account;
mod binaries;
mod cluster;
mod options;
mod server;
mod template;

use tokio::sync::OnceCell;

pub use binaries::Binaries;
pub use cluster::Cluster;
pub use options::ClusterOptions;

/// The cluster that all tests of this process share, started at the first call with default options.
///
/// # Panics
/// If no server can be started: a test that needs Postgres fails, it never skips.
pub async fn shared() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    match SHARED.get_or_try_init(Cluster::start).await {
        Ok(cluster) => cluster,
        Err(error) => panic!("cannot start a Postgres cluster for tests: {error:#}"),
    }
}

/// The URL of a new, empty database in the [`shared`] cluster.
///
/// # Panics
/// If no server can be started or the database cannot be created.
pub async fn fresh_database() -> String {
    match shared().await.fresh_database().await {
        Ok(url) => url,
        Err(error) => panic!("cannot create a database for a test: {error:#}"),
    }
}
