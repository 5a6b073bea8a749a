//! Passwords and TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postgres_fixture::{Cluster, ClusterOptions};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use syncline_core::ErrorKind;
use syncline_source_postgres::{PostgresSource, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bench_database::tables;
use crate::replica::Replica;

/// An authority and a certificate for 127.0.0.1 that it signed.
struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_certificate = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = own.signed_by(&own_key, &issuer).unwrap();
        Self { authority: issuer_certificate.pem(), certificate: certificate.pem(), key: own_key.serialize_pem() }
    }
}

async fn prepare(cluster: &Cluster) {
    let url = format!(
        "postgres://postgres@{}:{}/postgres",
        cluster.socket_directory().to_string_lossy().replace('/', "%2F"),
        cluster.port()
    );
    let client = cluster.connect(&url).await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION syncline FOR ALL TABLES")
        .await
        .unwrap();
}

static SLOT: AtomicU32 = AtomicU32::new(0);

async fn outcome(url: &str) -> Result<(), (ErrorKind, String)> {
    // Each is a store of its own, so each has a slot of its own.
    let slot = format!("slot_{}", SLOT.fetch_add(1, Ordering::Relaxed));
    let mut replica = Replica::new(PostgresSource::new(url).unwrap().slot(slot), tables(&["t"]));
    replica.start().await.map_err(|error| (error.kind(), error.to_string()))?;
    replica.catch_up().await;
    Ok(())
}

#[tokio::test]
async fn tls_in_each_mode_with_a_password() {
    let (certificates, stranger) = (Certificates::new(), Certificates::new());
    let cluster = ClusterOptions::new()
        .tls(&certificates.certificate, &certificates.key)
        .password("pässword'%")
        .hba("hostssl all all all scram-sha-256\n")
        .start()
        .await
        .unwrap();
    prepare(&cluster).await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let authority = file("ca.pem", &certificates.authority);
    let stranger = file("stranger.pem", &stranger.authority);
    let url = cluster.url();

    for mode in
        ["sslmode=require".to_owned(), "sslmode=prefer".into(), format!("sslmode=verify-full&sslrootcert={authority}")]
    {
        outcome(&format!("{url}?{mode}")).await.unwrap_or_else(|error| panic!("{mode}: {error:?}"));
    }
    let by_name = url.replace("127.0.0.1", "localhost");
    outcome(&format!("{by_name}?sslmode=verify-ca&sslrootcert={authority}")).await.unwrap();
    for wrong in [
        format!("{by_name}?sslmode=verify-full&sslrootcert={authority}"),
        format!("{url}?sslmode=verify-ca&sslrootcert={stranger}"),
        format!("{url}?sslmode=verify-full&sslrootcert={stranger}"),
    ] {
        let (_, told) = outcome(&wrong).await.unwrap_err();
        assert!(told.to_lowercase().contains("certificate"), "{wrong}: {told}");
    }
    let (kind, told) = outcome(&format!("{url}?sslmode=disable")).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unauthorized, "{told}");
    let (kind, told) = outcome(&format!("{}?sslmode=require", url.replace("%27", "x"))).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unauthorized, "{told}");
}

/// Passes on everything, decrypted and encrypted again: what somebody who can redirect connections is able to do where
/// certificates are not verified. Returns the port it listens on.
async fn man_in_the_middle(server: u16, own: &Certificates, authority: &Certificates) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let accept = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.authority.as_bytes()).unwrap()).unwrap();
    let connect = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (accept, connect) = (TlsAcceptor::from(Arc::new(accept)), TlsConnector::from(Arc::new(connect)));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (accept, connect) = (accept.clone(), connect.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                client.read_exact(&mut request).await?;
                let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                server.write_all(&request).await?;
                let answer = server.read_u8().await?;
                client.write_u8(answer).await?;
                let mut server = connect.connect("127.0.0.1".try_into().unwrap(), server).await?;
                let mut client = accept.accept(client).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

#[tokio::test]
async fn a_login_is_bound_to_its_tls_session() {
    let (certificates, stranger) = (Certificates::new(), Certificates::new());
    let cluster = ClusterOptions::new()
        .tls(&certificates.certificate, &certificates.key)
        .password("secret")
        .hba("hostssl all all all scram-sha-256\nhostnossl all all all trust\n")
        .start()
        .await
        .unwrap();
    prepare(&cluster).await;
    let url = cluster.url();
    let port = man_in_the_middle(cluster.port(), &stranger, &certificates).await;
    let passed_on = url.replace(&format!(":{}/", cluster.port()), &format!(":{port}/"));

    // It is in use wherever it can be: a login that somebody passes on is refused by the server.
    for binding in ["", "&channel_binding=prefer", "&channel_binding=require"] {
        let query = format!("?sslmode=require{binding}");
        outcome(&format!("{url}{query}")).await.unwrap_or_else(|error| panic!("{binding}: {error:?}"));
        connect(&format!("{url}{query}")).await.unwrap();
        let (kind, told) = outcome(&format!("{passed_on}{query}")).await.unwrap_err();
        assert_eq!(kind, ErrorKind::Unauthorized, "{told}");
        assert!(told.contains("channel binding check failed"), "{binding}: {told}");
        let error = connect(&format!("{passed_on}{query}")).await.unwrap_err();
        assert!(error.to_string().contains("channel binding check failed"), "{binding}: {error}");
    }
    // Without it nobody notices.
    let query = "?sslmode=require&channel_binding=disable";
    outcome(&format!("{passed_on}{query}")).await.unwrap();
    connect(&format!("{passed_on}{query}")).await.unwrap();
    // Required, every other login is refused.
    let query = "?sslmode=disable&channel_binding=require";
    let (kind, told) = outcome(&format!("{url}{query}")).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Invalid, "{told}");
    assert!(told.contains("the server does not ask for SCRAM, but channel_binding=require"), "{told}");
    assert!(connect(&format!("{url}{query}")).await.is_err());
}

/// A server that accepts and says nothing more.
#[tokio::test]
async fn an_attempt_to_connect_ends_when_the_url_says() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("postgres://u@{address}/db?connect_timeout=1");
    let began = Instant::now();
    let error = PostgresSource::new(&url).unwrap().check(&tables(&["t"])).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(error.to_string().contains(&format!("at {address}: Postgres did not answer within 1s")), "{error}");
    let error = connect(&url).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{address} did not accept a connection within 1s")), "{error}");
}

#[tokio::test]
async fn a_password_is_not_sent_where_others_can_read_it() {
    for method in ["password", "md5"] {
        let cluster = ClusterOptions::new()
            .setting("password_encryption", "md5")
            .password("secret")
            .hba(format!("host all all all {method}\n"))
            .start()
            .await
            .unwrap();
        prepare(&cluster).await;
        let (kind, told) = outcome(&cluster.url()).await.unwrap_err();
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(told.contains("others can read"), "{told}");
        let (kind, told) = outcome(&format!("{}?sslmode=require", cluster.url())).await.unwrap_err();
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(told.contains("no TLS"), "{told}");
    }
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let cluster = ClusterOptions::new().tcp(false).start().await.unwrap();
    prepare(&cluster).await;
    outcome(&cluster.url()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    for url in ["postgres://u@127.0.0.1:1/db", "postgres://u@localhost:1/db?sslmode=disable"] {
        let error = PostgresSource::new(url).unwrap().check(&tables(&["t"])).await.unwrap_err();
        let address = url.split(['@', '/']).nth(3).unwrap();
        let told = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(told.starts_with(&format!("cannot connect to Postgres at {address}: ")), "{told}");
        assert!(told.ends_with(": is it running, and is the address right?"), "{told}");
        assert_eq!(told.matches("refused").count(), 1, "{told}");
    }
    let error = PostgresSource::new("postgres://u@%2Fnowhere/db").unwrap().check(&tables(&["t"])).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to Postgres at /nowhere (port 5432): "), "{error}");
}
