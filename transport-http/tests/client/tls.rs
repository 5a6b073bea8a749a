//! TLS: whom a client trusts.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use syncline_core::{ErrorKind, Transport, WriteCheckpoint};
use syncline_transport_http::{HttpTransport, rustls};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fake_server::{answer, plain};
use crate::{bounded, credentials};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// The endpoint of a server whose certificate the authority of the tests has signed.
async fn start() -> String {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../data/tls/localhost.key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate(include_bytes!("../data/tls/localhost.pem"))], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Kept, so that answers are sent.
        let _requests = requests;
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let body = "{\"data\":{\"write_checkpoint\":\"7\"}}";
                answer(stream, plain("200 OK", "application/json", body), sender.clone()).await;
            }
        }
    });
    endpoint
}

#[tokio::test]
async fn only_a_trusted_server_is_spoken_to() {
    let endpoint = start().await;
    let stranger = HttpTransport::new(&endpoint).unwrap();
    let error = bounded(stranger.write_checkpoint("c1", &credentials())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut roots = RootCertStore::empty();
    roots.add(certificate(include_bytes!("../data/tls/authority.pem"))).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let friend = HttpTransport::new(&endpoint).unwrap().tls(config).unwrap();
    assert_eq!(bounded(friend.write_checkpoint("c1", &credentials())).await.unwrap(), WriteCheckpoint(7));
}
