//! A stream under a new token.

use std::time::Duration;

use serde_json::json;
use syncline_core::protocol::{Framing, SyncRequest};
use syncline_core::{Clock, ErrorKind, Identity, WallTime};

use crate::bench::{Bench, Client, kind};

#[test]
fn a_stream_goes_on_under_a_new_token_of_the_same_identity_and_under_no_other() {
    let mut bench = Bench::new();
    bench.put("bulk", 1, 10);
    let wall = bench.clock.wall().0;
    let until = |seconds: i64| Identity::new("anna").claim("role", "x").expires_at(WallTime(wall + seconds * 1_000));
    let open = || bench.service.renewable_stream(until(60), SyncRequest::default(), Framing::Ndjson).unwrap();
    let ((renewed, renewal), (left, refused)) = (open(), open());
    let (mut renewed, mut left) = (Client::of(renewed), Client::of(left));
    assert!(!renewed.lines().is_empty() && !left.lines().is_empty());
    let forever = Identity::new("anna").claim("role", "x");
    for other in [
        Identity::new("anna"),
        Identity::new("ben").claim("role", "x"),
        forever.clone().claim("role", "y"),
        forever.clone().claim("more", 1),
    ] {
        assert_eq!(refused.renew(&other).unwrap_err().kind(), ErrorKind::Unauthorized);
    }
    bench.clock.advance(Duration::from_secs(45));
    let told = |client: &mut Client| client.lines().iter().map(kind).collect::<Vec<_>>();
    let last = |client: &mut Client| client.piece().unwrap().unwrap().iter().map(kind).collect::<Vec<_>>();
    assert_eq!(told(&mut renewed), ["token 15"]);
    assert_eq!(told(&mut left), ["token 15"]);
    renewal.renew(&until(120).claim("iat", 7).claim("jti", "a").claim("nbf", 1).claim("exp", json!(9))).unwrap();
    bench.clock.advance(Duration::from_secs(15));
    assert_eq!(last(&mut left), ["token 0"]);
    assert!(left.is_over(), "its token has ended");
    bench.put("bulk", 1, 10);
    assert_eq!(told(&mut renewed), ["checkpoint_diff", "bulk 1", "checkpoint_complete"], "it goes on");
    bench.clock.advance(Duration::from_secs(35));
    assert_eq!(told(&mut renewed), ["token 25"], "the new token is warned of as well");
    bench.clock.advance(Duration::from_secs(25));
    assert_eq!(last(&mut renewed), ["token 0"]);
    assert!(renewed.is_over(), "it ends with the new token");
    // A stream that is gone does not mind.
    renewal.renew(&forever).unwrap();
}
