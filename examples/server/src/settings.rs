//! The settings of the server: what the file says, and the parts that are made of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use syncline_core::{Diagnostics, SyncConfig};
use syncline_source_postgres::PostgresSource;
use syncline_transport_http::JwtAuthenticator;

use crate::limits::{Limits, check_seconds};

/// The file. A name that is not known is an error, so that a typing error is not taken for a setting.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default = "default_listen")]
    pub(crate) listen: String,
    #[serde(default = "default_sync_config")]
    sync_config: PathBuf,
    #[serde(default = "default_store")]
    pub(crate) store: PathBuf,
    #[serde(default)]
    postgres: Postgres,
    auth: Auth,
    #[serde(default)]
    pub(crate) limits: Limits,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Postgres {
    url: Option<String>,
    publication: Option<String>,
    slot: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    audiences: Vec<String>,
    #[serde(default)]
    jwks_uris: Vec<String>,
    #[serde(default)]
    allow_private_networks: bool,
    hs256_secret: Option<String>,
    hs256_secret_base64: Option<String>,
    jwks_file: Option<PathBuf>,
    supabase_secret: Option<String>,
    max_token_lifetime_seconds: Option<u64>,
}

fn default_listen() -> String {
    "127.0.0.1:8080".into()
}

fn default_sync_config() -> PathBuf {
    "sync.yaml".into()
}

fn default_store() -> PathBuf {
    "buckets.db".into()
}

impl Settings {
    /// Reads the file; paths in it are relative to its folder.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut settings: Self = toml::from_str(&text).with_context(|| format!("{} is malformed", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for path in [&mut settings.sync_config, &mut settings.store].into_iter().chain(&mut settings.auth.jwks_file) {
            *path = folder.join(&*path);
        }
        if let Ok(listen) = env::var("SYNCLINE_LISTEN") {
            settings.listen = listen;
        }
        if let Ok(url) = env::var("DATABASE_URL") {
            settings.postgres.url = Some(url);
        }
        if let Ok(secret) = env::var("SYNCLINE_HS256_SECRET") {
            settings.auth.hs256_secret = Some(secret);
        }
        settings.check().with_context(|| format!("{} cannot be", path.display()))?;
        Ok(settings)
    }

    /// Refuses numbers that make no sense, by their names.
    fn check(&self) -> Result<()> {
        self.limits.check()?;
        match self.auth.max_token_lifetime_seconds {
            Some(seconds) => check_seconds("auth.max_token_lifetime_seconds", seconds),
            None => Ok(()),
        }
    }

    /// Who gets which rows.
    pub(crate) fn sync_config(&self) -> Result<SyncConfig> {
        self.compiled(SyncConfig::parse(&self.sync_config_text()?))
    }

    /// The text of the sync config.
    pub(crate) fn sync_config_text(&self) -> Result<String> {
        fs::read_to_string(&self.sync_config).with_context(|| format!("cannot read {}", self.sync_config.display()))
    }

    /// The config that came of its text.
    pub(crate) fn compiled(&self, parsed: Result<SyncConfig, Diagnostics>) -> Result<SyncConfig> {
        let path = self.sync_config.display();
        match parsed {
            Ok(config) => Ok(config),
            Err(diagnostics) => bail!("{path} is refused:\n{diagnostics}"),
        }
    }

    /// Where the rows come from.
    pub(crate) fn source(&self) -> Result<PostgresSource> {
        let url = self.postgres.url.as_deref().context("set postgres.url, or DATABASE_URL")?;
        let mut source = PostgresSource::new(url).context("postgres.url")?;
        if let Some(publication) = &self.postgres.publication {
            source = source.publication(publication);
        }
        if let Some(slot) = &self.postgres.slot {
            source = source.slot(slot);
        }
        Ok(source)
    }

    /// Who may connect.
    pub(crate) fn authenticator(&self) -> Result<JwtAuthenticator> {
        let auth = &self.auth;
        let mut parts = Vec::new();
        for url in &auth.jwks_uris {
            parts.push(JwtAuthenticator::jwks(url).with_context(|| format!("auth.jwks_uris: {url}"))?);
        }
        if let Some(secret) = &auth.hs256_secret {
            parts.push(JwtAuthenticator::hs256(secret).context("auth.hs256_secret")?);
        }
        if let Some(secret) = &auth.hs256_secret_base64 {
            parts.push(JwtAuthenticator::hs256_base64(secret).context("auth.hs256_secret_base64")?);
        }
        if let Some(path) = &auth.jwks_file {
            let keys = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            parts.push(JwtAuthenticator::keys(&keys).with_context(|| format!("auth.jwks_file {}", path.display()))?);
        }
        if let Some(secret) = &auth.supabase_secret {
            parts.push(JwtAuthenticator::supabase(secret).context("auth.supabase_secret")?);
        }
        let Some(mut keys) = parts.into_iter().reduce(JwtAuthenticator::and) else {
            bail!(
                "[auth] names no keys: set jwks_uris, jwks_file, hs256_secret, hs256_secret_base64 or supabase_secret"
            );
        };
        if auth.audiences.is_empty() && auth.supabase_secret.is_none() {
            bail!("auth.audiences is empty, so every token would be refused");
        }
        for audience in &auth.audiences {
            keys = keys.audience(audience);
        }
        if let Some(seconds) = auth.max_token_lifetime_seconds {
            keys = keys.max_lifetime(Duration::from_secs(seconds));
        }
        if auth.allow_private_networks {
            keys = keys.allow_private_networks();
        }
        Ok(keys)
    }
}
