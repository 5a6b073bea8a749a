//! What must be right before replication can begin. Each complaint says how to mend it, and all of them come together.

mod findings;
mod occasion;
mod server;
mod slot;
mod tables;

use syncline_core::{Error, TableSelection};

use crate::catalog::{self, Catalog};
use crate::link::Link;

pub(crate) use findings::Findings;
pub(crate) use occasion::Occasion;
pub(crate) use server::Server;
pub(crate) use slot::{Asking, check_free_slot, check_slot, check_slot_name};
pub(crate) use tables::{Wanted, bypass, check_tables, grant};

/// Checks the server and reads the catalog, which [`check_tables`] then judges.
///
/// # Errors
/// If nothing more can be found out; what was found before is told too.
pub(crate) async fn look(
    link: &mut Link,
    publication: &str,
    selection: &TableSelection,
    occasion: Occasion,
    findings: &mut Findings,
) -> Result<(Server, Catalog), Error> {
    let server = server::check_server(link, occasion, findings).await?;
    let loaded = async { catalog::load(link.connection().await?, server.version, publication, selection).await };
    match loaded.await {
        Ok(catalog) => Ok((server, catalog)),
        Err(error) => Err(std::mem::take(findings).and(error.into())),
    }
}
