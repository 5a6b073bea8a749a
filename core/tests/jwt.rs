//! Tokens that are accepted and refused, and by which code. The cases follow what the official service was recorded to do.
#![cfg(feature = "jwt")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value as Json, json};
use syncline_core::jwt::{JwtOptions, KeySet};
use syncline_core::{Authenticator, Clock, ErrorKind, Identity, Result, StaticKeys, Time, WallTime};

const NOW: i64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of the tests, long enough for all";
const JWKS: &str = include_str!("data/keys/jwks.json");

fn now() -> WallTime {
    WallTime(NOW * 1000)
}

fn options() -> JwtOptions {
    JwtOptions { audiences: vec!["app".into(), "other-app".into()], ..JwtOptions::default() }
}

/// Claims that are in order.
fn claims() -> Json {
    json!({ "sub": "u1", "aud": "app", "iat": NOW - 10, "exp": NOW + 300 })
}

/// Claims that are in order but for one, which is removed if it is null.
fn claims_with(name: &str, value: Json) -> Json {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn sign_bytes(header: &Json, claims: &Json, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A token whose header states the algorithm that was used.
fn sign(algorithm: Algorithm, id: Option<&str>, key: &EncodingKey, claims: &Json) -> String {
    let mut header = json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" });
    if let Some(id) = id {
        header["kid"] = id.into();
    }
    sign_bytes(&header, claims, algorithm, key)
}

fn hs256(claims: &Json) -> String {
    sign(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET), claims)
}

fn secret_keys() -> KeySet {
    KeySet::from_secret(SECRET, None).unwrap()
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("data/keys/rsa.pem")).unwrap()
}

fn p256() -> EncodingKey {
    EncodingKey::from_ec_pem(include_bytes!("data/keys/p256.pem")).unwrap()
}

#[track_caller]
fn assert_refused(read: Result<Identity>, code: &str) {
    let error = read.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, Some(code)), "{error}");
}

#[track_caller]
fn assert_code(token: &str, code: &str) {
    assert_refused(secret_keys().verify(token, now(), &options()), code);
}

#[test]
fn a_genuine_token_yields_its_claims() {
    let mut all = claims();
    all["role"] = json!({ "admin": true });
    all["parameters"] = json!({ "list": 7 });
    let identity = secret_keys().verify(&hs256(&all), now(), &options()).unwrap();
    assert_eq!(Json::from(identity.claims().clone()), all);
    assert_eq!(identity.user_id(), "u1");
    assert_eq!(identity.expiry(), Some(WallTime((NOW + 300) * 1000)));
}

#[test]
fn claims_are_checked() {
    for (name, value, code) in [
        ("sub", Json::Null, "PSYNC_S2101"),
        ("iat", Json::Null, "PSYNC_S2101"),
        ("exp", Json::Null, "PSYNC_S2101"),
        ("aud", Json::Null, "PSYNC_S2105"),
        ("aud", json!("another"), "PSYNC_S2105"),
        ("aud", json!(["another"]), "PSYNC_S2105"),
        ("aud", json!([]), "PSYNC_S2105"),
        ("aud", json!({ "app": "app" }), "PSYNC_S2105"),
        ("exp", json!(NOW - 60), "PSYNC_S2103"),
        ("exp", json!(0), "PSYNC_S2103"),
        ("exp", json!(NOW + 86_391), "PSYNC_S2104"),
        ("exp", json!(1e300), "PSYNC_S2104"),
        ("exp", json!("soon"), "PSYNC_S2101"),
        ("iat", json!("now"), "PSYNC_S2101"),
        ("nbf", json!(NOW + 61), "PSYNC_S2101"),
        ("nbf", json!("later"), "PSYNC_S2101"),
        ("parameters", json!([]), "PSYNC_S2101"),
        ("parameters", json!("x"), "PSYNC_S2101"),
    ] {
        assert_code(&hs256(&claims_with(name, value)), code);
    }
    for (name, value) in [
        ("sub", json!(42)),
        ("sub", json!({ "a": 1 })),
        ("aud", json!("other-app")),
        ("aud", json!(["another", "app"])),
        ("exp", json!(NOW + 86_390)),
        ("exp", json!(NOW - 59)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("iat", json!(NOW + 1000)),
        ("nbf", json!(NOW + 60)),
    ] {
        secret_keys().verify(&hs256(&claims_with(name, value)), now(), &options()).unwrap();
    }
    // A subject must be there, but may be null.
    let mut null = claims();
    null["sub"] = Json::Null;
    let identity = secret_keys().verify(&hs256(&null), now(), &options()).unwrap();
    assert_eq!(identity.user_id(), "null");
    // Without an audience in the configuration, every token is for somebody else.
    assert_refused(secret_keys().verify(&hs256(&claims()), now(), &JwtOptions::default()), "PSYNC_S2105");
}

#[test]
fn the_longest_lifetime_can_be_changed() {
    let options = JwtOptions { max_lifetime: Duration::from_secs(309), ..options() };
    assert_refused(secret_keys().verify(&hs256(&claims()), now(), &options), "PSYNC_S2104");
    let options = JwtOptions { max_lifetime: Duration::from_secs(310), ..options };
    secret_keys().verify(&hs256(&claims()), now(), &options).unwrap();
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens_only() {
    let keys = KeySet::from_jwks(JWKS).unwrap().and(KeySet::from_secret(SECRET, Some("secret")).unwrap());
    assert_eq!(keys.len(), 6);
    let other_rsa = EncodingKey::from_rsa_pem(include_bytes!("data/keys/rsa-other.pem")).unwrap();
    let p384 = EncodingKey::from_ec_pem(include_bytes!("data/keys/p384.pem")).unwrap();
    let ed25519 = EncodingKey::from_ed_pem(include_bytes!("data/keys/ed25519.pem")).unwrap();
    let secret = EncodingKey::from_secret(SECRET);
    let makers = [
        ("rsa", &rsa(), &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512][..]),
        ("rsa-other", &other_rsa, &[Algorithm::RS512]),
        ("p256", &p256(), &[Algorithm::ES256]),
        ("p384", &p384, &[Algorithm::ES384]),
        ("ed25519", &ed25519, &[Algorithm::EdDSA]),
        ("secret", &secret, &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]),
    ];
    for (id, key, algorithms) in makers {
        for algorithm in algorithms {
            let token = sign(*algorithm, Some(id), key, &claims());
            keys.verify(&token, now(), &options()).unwrap();
            assert!(keys.has_key_for(&token));
            for (other, ..) in makers.iter().filter(|(other, ..)| *other != id) {
                let token = sign(*algorithm, Some(other), key, &claims());
                assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
            }
            // A key that has an id verifies no token without one.
            let token = sign(*algorithm, None, key, &claims());
            assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
            assert!(!keys.has_key_for(&token));
        }
    }
    // Its own algorithm alone, if it states one; and never PS*.
    let token = sign(Algorithm::RS256, Some("rsa-other"), &other_rsa, &claims());
    assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
    let token = sign(Algorithm::PS256, Some("rsa"), &rsa(), &claims());
    assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
}

#[test]
fn keys_without_an_id_are_tried_one_after_another() {
    let keys = KeySet::from_secret(b"another secret, which is long enough too", None).unwrap().and(secret_keys());
    for id in [None, Some("unknown")] {
        let token = sign(Algorithm::HS512, id, &EncodingKey::from_secret(SECRET), &claims());
        keys.verify(&token, now(), &options()).unwrap();
    }
    let only_256 = format!(r#"{{"kty":"oct","alg":"HS256","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(SECRET));
    let keys = KeySet::from_jwks(&only_256).unwrap();
    keys.verify(&hs256(&claims()), now(), &options()).unwrap();
    let token = sign(Algorithm::HS512, None, &EncodingKey::from_secret(SECRET), &claims());
    assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
    assert!(!keys.has_key_for(&token));
    // A key that the token names is the only one that counts, even if another fits.
    let keys = secret_keys().and(KeySet::from_secret(b"the secret of the key that is named", Some("named")).unwrap());
    let token = sign(Algorithm::HS256, Some("named"), &EncodingKey::from_secret(SECRET), &claims());
    assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
}

#[test]
fn an_algorithm_cannot_be_confused() {
    let keys = KeySet::from_jwks(JWKS).unwrap();
    let modulus = serde_json::from_str::<Json>(JWKS).unwrap()["keys"][0]["n"].as_str().unwrap().to_owned();
    // A public key, in any form that an attacker may know it, taken for a shared secret.
    for public in [
        include_bytes!("data/keys/rsa.public.pem").to_vec(),
        modulus.clone().into_bytes(),
        URL_SAFE_NO_PAD.decode(&modulus).unwrap(),
    ] {
        for id in [Some("rsa"), None] {
            let token = sign(Algorithm::HS256, id, &EncodingKey::from_secret(&public), &claims());
            assert_refused(keys.verify(&token, now(), &options()), "PSYNC_S2101");
        }
    }
    // No signature at all, under every name.
    for alg in ["none", "None", "NONE", "", "HS256", "RS256"] {
        for id in [json!("rsa"), Json::Null] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": id }).to_string());
            let token = format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims().to_string()));
            assert_refused(keys.clone().and(secret_keys()).verify(&token, now(), &options()), "PSYNC_S2101");
        }
    }
    // A header that demands what is not understood.
    let header = json!({ "alg": "HS256", "crit": ["b64"], "b64": true });
    let token = sign_bytes(&header, &claims(), Algorithm::HS256, &EncodingKey::from_secret(SECRET));
    assert_code(&token, "PSYNC_S2101");
}

#[test]
fn malformed_and_altered_tokens_are_refused() {
    let good = hs256(&claims());
    secret_keys().verify(&good, now(), &options()).unwrap();
    assert_code("", "PSYNC_S2106");
    for token in ["abc", "a.b", "a.b.c", "...", ".", "é.é.é", &good[1..], &good[..good.len() - 1], &format!("{good}.x")]
    {
        assert_code(token, "PSYNC_S2101");
    }
    assert_code(&"a".repeat(100_000), "PSYNC_S2101");
    let parts: Vec<&str> = good.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims_with("sub", json!("root")).to_string());
    assert_code(&format!("{}.{other}.{}", parts[0], parts[2]), "PSYNC_S2101");
    // Signed, but no object.
    for payload in [json!([]), json!("x"), json!(7)] {
        assert_code(&hs256(&payload), "PSYNC_S2101");
    }
    for byte in 0..good.len() {
        let mut altered = good.clone().into_bytes();
        altered[byte] = if altered[byte] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert_code(&altered, "PSYNC_S2101");
    }
}

#[test]
fn the_secret_of_a_supabase_project_has_rules_of_its_own() {
    let keys = KeySet::from_supabase_secret(std::str::from_utf8(SECRET).unwrap()).unwrap();
    let token = |aud: &str, lifetime: i64| {
        hs256(&json!({ "sub": "u", "aud": aud, "iat": NOW - 10, "exp": NOW - 10 + lifetime }))
    };
    keys.verify(&token("authenticated", 7 * 86_400 + 1200), now(), &options()).unwrap();
    assert_refused(keys.verify(&token("app", 300), now(), &options()), "PSYNC_S2105");
    assert_refused(keys.verify(&token("authenticated", 8 * 86_400), now(), &options()), "PSYNC_S2104");
    let published = KeySet::from_published_jwks(JWKS).unwrap().for_supabase();
    let claims = json!({ "sub": "u", "aud": "authenticated", "iat": NOW, "exp": NOW + 86_401 });
    published.verify(&sign(Algorithm::ES256, Some("p256"), &p256(), &claims), now(), &options()).unwrap();
}

#[test]
fn unusable_keys_are_errors_when_configured_and_ignored_when_published() {
    let keys = serde_json::from_str::<Json>(JWKS).unwrap();
    let altered = |index: usize, name: &str, value: Json| {
        let mut key = keys["keys"][index].clone();
        key[name] = value;
        key
    };
    let small = URL_SAFE_NO_PAD.encode([0xc3; 128]);
    for key in [
        altered(0, "use", json!("enc")),
        altered(0, "alg", json!("PS256")),
        altered(0, "alg", json!("HS256")),
        altered(0, "n", json!(small)),
        altered(0, "n", json!(URL_SAFE_NO_PAD.encode([0; 256]))),
        altered(0, "e", Json::Null),
        altered(2, "x", json!("AAAA")),
        altered(2, "x", keys["keys"][2]["y"].clone()),
        altered(2, "crv", json!("P-384")),
        altered(4, "key_ops", json!(["sign"])),
        altered(4, "x", json!("AAAA")),
        json!({ "kty": "oct", "k": "" }),
        json!({ "kty": "unheard-of" }),
        json!("no key"),
        serde_json::from_str(include_str!("data/keys/p521.json")).unwrap(),
    ] {
        let error = KeySet::from_jwks(&key.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(KeySet::from_published_jwks(&json!({ "keys": [key] }).to_string()).unwrap().is_empty());
    }
    // A shared secret is one only as long as nobody publishes it.
    let secret = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) }] }).to_string();
    assert!(KeySet::from_published_jwks(&secret).unwrap().is_empty());
    assert_eq!(KeySet::from_jwks(&secret).unwrap().len(), 1);
    for body in ["", "{}", "[]", "{\"keys\":{}}", "<html>"] {
        let error = KeySet::from_published_jwks(body).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, Some("PSYNC_S2204")));
        assert_eq!(KeySet::from_jwks(body).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let secret = "0123456789abcdef0123456789abcdef";
    for length in [0, 1, 31] {
        let short = &secret[..length];
        let jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(short) }).to_string();
        let refused =
            [KeySet::from_secret(short.as_bytes(), None), KeySet::from_supabase_secret(short), KeySet::from_jwks(&jwk)];
        for (number, error) in refused.into_iter().map(Result::unwrap_err).enumerate() {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            // An empty JWK is no JWK at all.
            let says_how = error.to_string().contains("openssl rand -base64 32");
            assert!(says_how || (number == 2 && length == 0), "{error}");
        }
    }
    KeySet::from_secret(secret.as_bytes(), None).unwrap();
}

#[test]
fn keys_are_not_shown() {
    let shown = format!("{:?}", secret_keys());
    assert!(!shown.contains("secret of the tests") && !shown.contains("97, 32, 115"), "{shown}");
}

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Time {
        Time(0)
    }
    fn wall(&self) -> WallTime {
        now()
    }
    fn sleep_until(&self, _: Time) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(futures::future::ready(()))
    }
}

#[test]
fn static_keys_authenticate() {
    let keys = StaticKeys::new(secret_keys()).audience("app").max_lifetime(Duration::from_secs(600)).clock(FixedClock);
    let authenticate = |token: String| {
        let keys = keys.clone();
        futures::executor::block_on(async move { keys.authenticate(&token).await })
    };
    assert_eq!(authenticate(hs256(&claims())).unwrap().user_id(), "u1");
    assert_refused(authenticate(hs256(&claims_with("exp", json!(NOW - 100)))), "PSYNC_S2103");
    assert_refused(authenticate(hs256(&claims_with("exp", json!(NOW + 591)))), "PSYNC_S2104");
    assert_refused(authenticate(String::new()), "PSYNC_S2106");
}
