//! TLS of requests that this crate makes.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use syncline_core::{Error, Result};

/// TLS with the certificate authorities of Mozilla. The provider is named, because the process may have several, and then
/// there is none by default.
pub(crate) fn public_authorities() -> Result<ClientConfig> {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").caused_by(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
