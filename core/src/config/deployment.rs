//! Whether a config may go on with what a store was filled by.

use bytestring::ByteString;

use super::SyncConfig;
use crate::checkpoint::DeployedConfig;
use crate::error::{Error, Result};

impl SyncConfig {
    /// Whether a store that was filled by `deployed` holds what this config says: names, priorities and filters of requests
    /// and events may differ, the definitions may not.
    ///
    /// # Errors
    /// `Invalid` names the definitions that differ, and what to do.
    pub fn check_deployed(&self, deployed: &DeployedConfig) -> Result<()> {
        let known = |form: &ByteString| deployed.definitions.iter().any(|definition| definition.form == *form);
        let added = self.definitions().iter().filter(|definition| !known(definition.form()));
        let added: Vec<String> = added.map(|definition| definition.name().to_string()).collect();
        let lookups = self.lookup_forms().filter(|form| !known(form)).count();
        let wanted = |wanted| self.forms().any(|form| form == wanted);
        let removed = deployed.definitions.iter().filter(|definition| !wanted(&definition.form)).count();
        let mut differences = Vec::new();
        if !added.is_empty() {
            differences.push(format!("new or changed: {}", added.join(", ")));
        }
        if lookups > 0 {
            differences.push(format!("{lookups} new or changed condition(s) of who sees what"));
        }
        if removed > 0 {
            differences.push(format!("{removed} stored definition(s) gone or changed"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the sync config has changed since the bucket store was made: {}; go on with the config before, or give a new store \
             file, which is filled from the source and downloaded by clients again (first drop what the source keeps for the \
             old one: with Postgres, its replication slot)",
            differences.join("; "),
        )))
    }
}
