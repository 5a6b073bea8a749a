//! What a service refuses, and when it says that it is not ready.

use futures::FutureExt;
use syncline_core::memory::{MemoryBucketStore, TokenIsUser};
use syncline_core::protocol::{Framing, RequestedStreams, RequestedSubscription, SyncRequest};
use syncline_core::{
    Bytes, Error, ErrorKind, Identity, Result, ServiceLimits, SyncService, WriteCheckpoint, WriteCheckpointRequest,
};

use crate::bench::{Bench, Client};
use crate::slow_store::{SlowStore, Troubles};

fn refusal<T>(answer: Result<T>) -> (ErrorKind, Option<&'static str>) {
    let error = answer.err().unwrap_or_else(|| Error::internal("it was not refused"));
    (error.kind(), error.code())
}

#[test]
fn one_stream_too_many_of_a_user_is_refused_and_others_are_not() {
    let limits = ServiceLimits { streams: 3, streams_per_user: 2, ..ServiceLimits::default() };
    let service = SyncService::with_limits(MemoryBucketStore::new(), TokenIsUser, limits);
    let open = |user: &str| service.stream(Identity::new(user), SyncRequest::default(), Framing::Ndjson);
    let too_many = (ErrorKind::Unavailable, Some("PSYNC_S2304"));
    let first = open("anna").unwrap();
    let _second = open("anna").unwrap();
    assert_eq!(refusal(open("anna")), too_many);
    let _third = open("ben").unwrap();
    assert_eq!(refusal(open("ben")), too_many);
    assert_eq!(service.readiness().streams, 3);
    drop(first);
    let _again = open("anna").unwrap();
}

#[test]
fn a_request_with_too_many_subscriptions_or_too_long_an_id_is_refused_at_once() {
    let service = SyncService::new(MemoryBucketStore::new(), TokenIsUser);
    let subscription = RequestedSubscription { stream: "s".into(), parameters: None, override_priority: None };
    let streams = RequestedStreams { include_defaults: true, subscriptions: vec![subscription; 1_001] };
    let request = SyncRequest { streams: Some(streams), ..SyncRequest::default() };
    let refused = refusal(service.stream(Identity::new("anna"), request, Framing::Ndjson));
    assert_eq!(refused, (ErrorKind::Invalid, Some("PSYNC_S2305")));
    let (long, malformed) = ("x".repeat(129), (ErrorKind::Invalid, Some("PSYNC_S2001")));
    let request = SyncRequest { client_id: Some(long.clone()), ..SyncRequest::default() };
    assert_eq!(refusal(service.stream(Identity::new("anna"), request, Framing::Ndjson)), malformed);
    let number = WriteCheckpointRequest::AtLeast(WriteCheckpoint(1));
    let anna = Identity::new("anna");
    let asked = service.request_write_checkpoint(&anna, Some(&long), number);
    assert_eq!(refusal(asked.now_or_never().unwrap()), malformed);
}

#[test]
fn a_store_that_has_failed_for_good_makes_the_service_unready() {
    let troubles = Troubles::default();
    let mut bench = Bench::with(|inner| SlowStore { inner, troubles: troubles.clone() });
    bench.put("bulk", 1, 10);
    assert!(bench.service.readiness().ready);
    troubles.break_down(true);
    assert!(bench.open(Identity::new("anna"), SyncRequest::default()).piece().unwrap().is_err());
    assert!(!bench.service.readiness().ready);
    troubles.break_down(false);
    bench.open(Identity::new("anna"), SyncRequest::default()).lines();
    assert!(bench.service.readiness().ready);
}

#[test]
fn clients_that_do_not_read_hold_no_more_than_the_budget_and_the_others_go_on_after_them() {
    let limits = ServiceLimits { buffered_bytes: 3 << 20, ..ServiceLimits::default() };
    let mut bench = Bench::limited(limits, |store| store);
    bench.put("bulk", 1, 1 << 20);
    let mut clients: Vec<_> =
        (0..20).map(|n| bench.open(Identity::new(n.to_string()), SyncRequest::default())).collect();
    let mut large = vec![0; clients.len()];
    // What each took of its stream and keeps, as a transport does whose client does not read.
    let mut take_all = |clients: &mut Vec<Client>| -> Vec<Bytes> {
        let mut kept = Vec::new();
        for (client, large) in clients.iter_mut().zip(&mut large) {
            while let Some(piece) = client.bytes() {
                *large += usize::from(piece.len() > 1 << 20);
                kept.push(piece);
            }
        }
        kept
    };
    let mut kept = take_all(&mut clients);
    let held: usize = kept.iter().map(Bytes::len).sum();
    assert!((1 << 20..4 << 20).contains(&held), "{held} bytes are held");
    assert!(kept.len() > clients.len(), "all have had their first line");
    // One that goes while it waits is not waited for.
    drop(clients.remove(10));
    for _ in 0..clients.len() {
        drop(kept);
        kept = take_all(&mut clients);
    }
    drop(kept);
    assert_eq!(large.iter().sum::<usize>(), clients.len(), "each got its row once: {large:?}");

    // A service that closes does not wait for who does not read.
    bench.put("bulk", 1, 1 << 20);
    let kept: Vec<Vec<Bytes>> =
        clients.iter_mut().map(|client| std::iter::from_fn(|| client.bytes()).collect()).collect();
    futures::executor::block_on(bench.service.close());
    bench.clock.advance(std::time::Duration::from_secs(20));
    assert!(clients.iter_mut().all(|client| client.is_over()));
    drop(kept);
}
