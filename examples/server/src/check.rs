//! `check`: everything that can be found wrong without changing anything, all at once.

use std::path::Path;

use anyhow::{Context, Result, bail};
use syncline_core::SyncConfig;
use syncline_storage_sqlite::SqliteBucketStore;
use tokio::net::TcpListener;

use crate::settings::Settings;

/// Prints what is right and what is wrong; an error if anything is wrong.
pub(crate) async fn check(settings: &Settings) -> Result<()> {
    let mut problems = 0;
    let mut report = |what: &str, outcome: Result<()>| match outcome {
        Ok(()) => println!("ok       {what}"),
        Err(error) => {
            problems += 1;
            println!("problem  {what}: {error:#}");
        }
    };
    report("keys", settings.authenticator().map(drop));
    let config = settings.sync_config();
    if let Ok(config) = &config {
        for warning in config.warnings() {
            println!("warning  sync config, line {}: {}", warning.line, warning.message);
        }
    }
    report("store", check_store(&settings.store, config.as_ref().ok()).await);
    let selection = config.as_ref().ok().map(|config| config.selection().clone());
    report("sync config", config.map(drop));
    match settings.source() {
        Ok(source) => {
            // With a broken config the tables are not known; the server can be looked at all the same.
            report("database", source.check(&selection.unwrap_or_default()).await.map_err(Into::into));
        }
        Err(error) => report("database", Err(error)),
    }
    report("address", check_address(&settings.listen).await);
    if problems > 0 {
        bail!(
            "{problems} found",
            problems = if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
        );
    }
    Ok(())
}

/// Whether the store can be opened, and whether what is in it is of this config.
async fn check_store(path: &Path, config: Option<&SyncConfig>) -> Result<()> {
    let shown = path.display();
    let stored = SqliteBucketStore::inspect(path).await.with_context(|| format!("{shown} cannot be opened"))?;
    // SQLite makes files beside it, also of a store that is there. A file without a name leaves no trace.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).with_context(|| format!("the folder {} cannot be written", folder.display()))?;
    if let (Some(deployed), Some(config)) = (stored.and_then(|stored| stored.config), config) {
        config.check_deployed(&deployed).with_context(|| format!("{shown} was filled by another sync config"))?;
    }
    Ok(())
}

/// Whether the server could listen there.
async fn check_address(address: &str) -> Result<()> {
    TcpListener::bind(address).await.map(drop).with_context(|| format!("cannot listen on {address}"))
}
