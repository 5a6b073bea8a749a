//! `check`: everything that can be found wrong without changing anything, all at once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};
use syncline_core::{Diagnostic, EditorDiagnostic, SourceSchema, SyncConfig};
use syncline_storage_sqlite::SqliteBucketStore;
use tokio::net::TcpListener;

use crate::explain::{Request, explanations};
use crate::settings::Settings;

/// What else to look at, and how to say what was found.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Manner {
    /// One JSON document: `parts`, each with its `problem` or null, the `diagnostics` of the sync config as the Language
    /// Server Protocol has them, and what is `explained`.
    #[arg(long)]
    json: bool,
    /// Says for each row of this file whether the sync config gives it to the user, and why, as the command `explain` does.
    #[arg(long, value_name = "ROWS", requires = "user")]
    explain: Option<PathBuf>,
    /// The user: the claim `sub` of the token.
    #[arg(long, requires = "explain")]
    user: Option<String>,
    #[command(flatten)]
    request: Request,
}

/// What was found, part by part.
#[derive(Default)]
struct Found {
    parts: Vec<(&'static str, Option<String>)>,
    /// The text of the sync config, and what is to be said of it.
    config: Option<(String, Vec<Diagnostic>)>,
    /// What decides for each row that was asked about.
    explained: Vec<String>,
}

impl Found {
    fn add(&mut self, part: &'static str, outcome: Result<()>) {
        self.parts.push((part, outcome.err().map(|error| format!("{error:#}"))));
    }

    fn print(&self) {
        for (part, problem) in &self.parts {
            match problem {
                None => println!("ok       {part}"),
                Some(problem) => println!("problem  {part}: {problem}"),
            }
        }
        let (text, diagnostics) = self.config.as_ref().map_or(("", &[][..]), |(text, list)| (text, list));
        for warning in diagnostics.iter().filter(|one| one.level == syncline_core::DiagnosticLevel::Warning) {
            let Diagnostic { line, column, message, .. } = warning;
            let written = text.get(warning.span.clone()).unwrap_or_default();
            let help = warning.suggestion.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            println!("warning  sync config at {line}:{column}, `{written}`: {message}{help}");
        }
        for explained in &self.explained {
            println!("{explained}");
        }
    }

    fn json(&self) -> Json {
        let parts = self.parts.iter().map(|(part, problem)| json!({ "part": part, "problem": problem }));
        let diagnostics = self.config.as_ref().map(|(text, list)| EditorDiagnostic::all(text, list));
        json!({
            "parts": parts.collect::<Vec<_>>(),
            "diagnostics": diagnostics.unwrap_or_default(),
            "explained": self.explained,
        })
    }
}

/// Says what is right and what is wrong; an error if anything is wrong.
pub(crate) async fn check(settings: &Settings, manner: &Manner) -> Result<()> {
    let mut found = Found::default();
    found.add("keys", settings.authenticator().map(drop));
    let source = settings.source();
    // What keeps it from being read is told of the database below.
    let schema = match &source {
        Ok(source) => source.schema().await.ok(),
        Err(_) => None,
    };
    let config = sync_config(settings, schema.as_ref(), &mut found);
    found.add("store", check_store(&settings.store, config.as_ref().ok()).await);
    if let (Some(user), Some(rows), Ok(config)) = (&manner.user, &manner.explain, &config) {
        let explained = explanations(config, user, &manner.request, rows).map(|explained| found.explained = explained);
        found.add("rows to explain", explained);
    }
    let selection = config.as_ref().ok().map(|config| config.selection().clone());
    found.add("sync config", config.map(drop));
    let database = match source {
        // With a broken config the tables are not known; the server can be looked at all the same.
        Ok(source) => source.check(&selection.unwrap_or_default()).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    found.add("database", database);
    found.add("address", check_address(&settings.listen).await);
    if manner.json {
        println!("{:#}", found.json());
    } else {
        found.print();
    }
    match found.parts.iter().filter(|(_, problem)| problem.is_some()).count() {
        0 => Ok(()),
        1 => bail!("1 problem found"),
        problems => bail!("{problems} problems found"),
    }
}

/// The sync config, looked at with the tables that there are.
fn sync_config(settings: &Settings, schema: Option<&SourceSchema>, found: &mut Found) -> Result<SyncConfig> {
    let text = settings.sync_config_text()?;
    let parsed = match schema {
        Some(schema) => SyncConfig::parse_with_schema(&text, schema),
        None => SyncConfig::parse(&text),
    };
    let list = match &parsed {
        Ok(config) => config.warnings().to_vec(),
        Err(diagnostics) => diagnostics.as_slice().to_vec(),
    };
    found.config = Some((text, list));
    settings.compiled(parsed)
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
