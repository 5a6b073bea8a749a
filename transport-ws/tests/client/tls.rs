//! TLS: whom a client trusts.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use syncline_core::ErrorKind;
use syncline_transport_ws::rustls;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fake_server::{Connection, document, end, line};
use crate::{open, rest, transport};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// The endpoint of a server whose certificate the authority of the tests has signed; it sends one line.
async fn start() -> String {
    let key = include_bytes!("../../../transport-http/tests/data/tls/localhost.key.pem");
    let own = include_bytes!("../../../transport-http/tests/data/tls/localhost.pem");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate(own)], PrivateKeyDer::from_pem_slice(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let mut connection = Connection::accept(stream).await;
                connection.greeting().await;
                connection.say(&line(1)).await;
                connection.say(&end()).await;
                connection.expect_close().await;
            }
        }
    });
    endpoint
}

#[tokio::test]
async fn only_a_trusted_server_is_spoken_to() {
    let endpoint = start().await;
    let error = open(&transport(&endpoint)).await.expect_err("nobody vouches for it");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut roots = RootCertStore::empty();
    roots.add(certificate(include_bytes!("../../../transport-http/tests/data/tls/authority.pem"))).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut stream = open(&transport(&endpoint).tls(config)).await.unwrap();
    assert_eq!(rest(&mut stream).await, (vec![document(1)], None));
}
