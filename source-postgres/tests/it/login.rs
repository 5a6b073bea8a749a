//! Passwords and TLS.

use std::sync::atomic::{AtomicU32, Ordering};

use postgres_fixture::{Cluster, ClusterOptions};
use syncline_core::ErrorKind;
use syncline_source_postgres::PostgresSource;

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
    // Channel binding is in use: the server logs nothing of it, but it accepts only what it can verify.
    let client = cluster.log().unwrap();
    assert!(!client.contains("PANIC"), "{client}");
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
