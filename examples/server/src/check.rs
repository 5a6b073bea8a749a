//! `check`: everything that can be found wrong without changing anything, all at once.

use anyhow::{Result, bail};

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
    let selection = config.as_ref().ok().map(|config| config.selection().clone());
    report("sync config", config.map(drop));
    match settings.source() {
        Ok(source) => {
            // With a broken config the tables are not known; the server can be looked at all the same.
            report("database", source.check(&selection.unwrap_or_default()).await.map_err(Into::into));
        }
        Err(error) => report("database", Err(error)),
    }
    if problems > 0 {
        bail!(
            "{problems} found",
            problems = if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
        );
    }
    Ok(())
}
