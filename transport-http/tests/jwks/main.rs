//! Tokens by keys that an issuer publishes, fetched from a server of the test's own.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

mod issuer;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use syncline_core::{Authenticator, Clock, ErrorKind, SystemClock, Time, WallTime};
use syncline_transport_http::JwtAuthenticator;

use issuer::{Issuer, Key, claims};

/// A clock that is ahead by as much as a test wants.
#[derive(Debug, Clone, Default)]
struct Ahead(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Ahead {
    fn forward(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Time {
        SystemClock.now() + Duration::from_millis(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
    fn wall(&self) -> WallTime {
        SystemClock.wall()
    }
    fn sleep_until(&self, time: Time) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(time).boxed()
    }
}

fn authenticator(issuer: &Issuer) -> JwtAuthenticator {
    JwtAuthenticator::jwks(&issuer.url("/jwks.json")).unwrap().audience("app").allow_private_networks()
}

async fn refused(keys: &JwtAuthenticator, token: &str) -> (ErrorKind, Option<&'static str>) {
    let error = keys.authenticate(token).await.unwrap_err();
    (error.kind(), error.code())
}

#[tokio::test]
async fn tokens_by_published_keys_are_accepted_and_keys_are_fetched_once() {
    let issuer = Issuer::start(&[Key::Rsa, Key::P256, Key::Ed25519]).await;
    let keys = authenticator(&issuer);
    assert_eq!(issuer.requests(), 0, "nothing is fetched before the first token");
    for key in [Key::Rsa, Key::P256, Key::Ed25519] {
        let identity = keys.authenticate(&key.token(&claims())).await.unwrap();
        assert_eq!(identity.user_id(), "anna");
    }
    assert_eq!(issuer.requests(), 1);
    let other = json!({ "sub": "anna", "aud": "other", "iat": claims()["iat"], "exp": claims()["exp"] });
    assert_eq!(refused(&keys, &Key::Rsa.token(&other)).await, (ErrorKind::Unauthorized, Some("PSYNC_S2105")));
    assert_eq!(refused(&keys, "garbage").await, (ErrorKind::Unauthorized, Some("PSYNC_S2101")));
    assert_eq!(refused(&keys, "").await, (ErrorKind::Unauthorized, Some("PSYNC_S2106")));
    assert_eq!(issuer.requests(), 1, "garbage causes no fetch");
}

#[tokio::test]
async fn many_first_requests_share_one_fetch() {
    let issuer = Issuer::start(&[Key::Rsa]).await;
    let keys = authenticator(&issuer);
    let token = Key::Rsa.token(&claims());
    let all = futures::future::join_all((0..20).map(|_| keys.authenticate(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_new_key_is_known_at_once_and_invented_keys_cause_few_fetches() {
    let issuer = Issuer::start(&[Key::Rsa]).await;
    let keys = authenticator(&issuer);
    keys.authenticate(&Key::Rsa.token(&claims())).await.unwrap();
    issuer.publish(&[Key::Rsa, Key::P256]);
    // The very first look may come too soon after the one before; the allowance grows.
    let clock = Ahead::default();
    let keys = keys.clock(clock.clone());
    keys.authenticate(&Key::Rsa.token(&claims())).await.unwrap();
    issuer.publish(&[Key::Rsa, Key::P256, Key::Ed25519]);
    clock.forward(Duration::from_secs(2));
    keys.authenticate(&Key::Ed25519.token(&claims())).await.unwrap();
    let before = issuer.requests();
    for _ in 0..50 {
        assert_eq!(refused(&keys, &Key::P384.token(&claims())).await, (ErrorKind::Unauthorized, Some("PSYNC_S2101")));
    }
    assert!(issuer.requests() - before <= 1, "{} fetches", issuer.requests() - before);
}

#[tokio::test]
async fn keys_survive_an_outage_of_the_issuer_for_an_hour() {
    let issuer = Issuer::start(&[Key::Rsa]).await;
    let clock = Ahead::default();
    let keys = authenticator(&issuer).clock(clock.clone());
    let token = Key::Rsa.token(&claims());
    keys.authenticate(&token).await.unwrap();
    issuer.fail(true);
    clock.forward(Duration::from_secs(59 * 60));
    keys.authenticate(&token).await.unwrap();
    issuer.requests_reach(2).await; // the refresh beside it
    clock.forward(Duration::from_secs(2 * 60));
    assert_eq!(refused(&keys, &token).await, (ErrorKind::Unavailable, Some("PSYNC_S2204")));
    issuer.fail(false);
    clock.forward(Duration::from_secs(2 * 60));
    keys.authenticate(&token).await.unwrap();
}

#[tokio::test]
async fn withdrawn_keys_are_forgotten_with_the_next_refresh() {
    let issuer = Issuer::start(&[Key::Rsa, Key::P256]).await;
    let clock = Ahead::default();
    let keys = authenticator(&issuer).clock(clock.clone());
    let token = Key::Rsa.token(&claims());
    keys.authenticate(&token).await.unwrap();
    issuer.publish(&[Key::P256]);
    clock.forward(Duration::from_secs(6 * 60));
    keys.authenticate(&token).await.unwrap(); // still, while the refresh runs beside
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while keys.authenticate(&token).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the key is still accepted");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_a_set_of_public_keys_is_refused() {
    let issuer = Issuer::start(&[]).await;
    let unavailable = (ErrorKind::Unavailable, Some("PSYNC_S2204"));
    for path in ["/redirect", "/missing", "/not-json", "/no-keys", "/too-large"] {
        let keys = JwtAuthenticator::jwks(&issuer.url(path)).unwrap().audience("app").allow_private_networks();
        assert_eq!(refused(&keys, &Key::Rsa.token(&claims())).await, unavailable, "{path}");
    }
    // A secret that is published is none, even if a token is signed by it.
    let keys = JwtAuthenticator::jwks(&issuer.url("/secret")).unwrap().audience("app").allow_private_networks();
    let token = Key::Secret.token(&claims());
    assert_eq!(refused(&keys, &token).await, (ErrorKind::Unauthorized, Some("PSYNC_S2101")));
    // The same secret as configured key is one.
    let keys = JwtAuthenticator::hs256(issuer::SECRET).unwrap().audience("app");
    assert_eq!(keys.authenticate(&token).await.unwrap().user_id(), "anna");
    let base64 =
        JwtAuthenticator::hs256_base64("YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nIGVub3VnaA==").unwrap().audience("app");
    assert_eq!(base64.authenticate(&token).await.unwrap().user_id(), "anna");
}

#[tokio::test]
async fn inner_addresses_are_refused_unless_they_are_allowed() {
    let issuer = Issuer::start(&[Key::Rsa]).await;
    let port = issuer.url("").rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"] {
        let keys = JwtAuthenticator::jwks(&format!("http://{host}:{port}/jwks.json")).unwrap().audience("app");
        let error = keys.authenticate(&Key::Rsa.token(&claims())).await.unwrap_err();
        assert_eq!(error.code(), Some("PSYNC_S2204"));
        assert!(error.to_string().contains("public address"), "{host}: {error}");
    }
    assert_eq!(issuer.requests(), 0);
    for url in ["ftp://example.com/keys", "example.com/keys", "https://user:password@example.com/keys", ""] {
        assert_eq!(JwtAuthenticator::jwks(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
    }
}

#[tokio::test]
async fn several_sources_of_keys_work_beside_each_other() {
    let (here, there) = (Issuer::start(&[Key::Rsa]).await, Issuer::start(&[Key::P256]).await);
    there.fail(true);
    let keys = JwtAuthenticator::hs256(issuer::SECRET)
        .unwrap()
        .and(authenticator(&here))
        .and_jwks(&there.url("/jwks.json"))
        .unwrap()
        .allow_private_networks()
        .audience("app");
    // A source that fails is in nobody else's way.
    for key in [Key::Secret, Key::Rsa] {
        assert_eq!(keys.authenticate(&key.token(&claims())).await.unwrap().user_id(), "anna");
    }
    assert_eq!(refused(&keys, &Key::P256.token(&claims())).await, (ErrorKind::Unavailable, Some("PSYNC_S2204")));
}
