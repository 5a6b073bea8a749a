//! Postgres, or the process in it that feeds the server, goes down under the server while clients are connected.

use std::time::Instant;

use crate::figures::Figures;
use crate::postgres::Outage;
use crate::stack::Stack;
use crate::traffic::Traffic;
use crate::writes::every_write_arrived;

const OUTAGES: [Outage; 6] =
    [Outage::Restart, Outage::Crash, Outage::KillPostmaster, Outage::Restart, Outage::KillPostmaster, Outage::Crash];

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_walsender_is_replaced_in_time() {
    let mut stack = Stack::start(1_000).await;
    stack.serve(None).await;
    let ben = stack.client("ben").await;
    ben.agrees(&stack.postgres).await;
    let traffic = Traffic::start(&stack.postgres.url);
    let mut figures = Figures::new("walsender terminated");
    for _ in 0..8 {
        traffic.flows(3).await;
        let terminate = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE active";
        assert_eq!(stack.postgres.value(terminate).await, "1");
        figures.add(stack.recovery(Instant::now(), &ben).await);
    }
    traffic.stop().await;
    stack.converges(&[&ben]).await;
    figures.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_goes_down_is_followed_again_in_time() {
    let mut stack = Stack::start(1_000).await;
    stack.serve(None).await;
    let (mut anna, ben) = (stack.client("anna").await, stack.client("ben").await);
    anna.process().tells(1, "synced").await;
    ben.agrees(&stack.postgres).await;
    let slot = "SELECT slot_name, plugin FROM pg_replication_slots";
    let before = stack.postgres.rows(slot).await;
    let traffic = Traffic::start(&stack.postgres.url);
    let mut figures = Figures::new("Postgres down");
    for outage in OUTAGES {
        anna.write(10).await;
        traffic.flows(3).await;
        let began = Instant::now();
        stack.postgres.suffer(outage).await;
        println!("{outage:?}: connections are taken again after {:.1?}", began.elapsed());
        figures.add(stack.recovery(Instant::now(), &ben).await);
        assert_eq!(stack.postgres.rows(slot).await, before, "after {outage:?}");
        stack.history().await;
    }
    // Down for so long that the delays between attempts are at their longest.
    stack.postgres.crash();
    stack.server().mentions("retry_in_ms=1000").await;
    stack.postgres.start_again().await;
    figures.add(stack.recovery(Instant::now(), &ben).await);
    traffic.stop().await;
    anna.process().tells(10 * OUTAGES.len(), "wrote ").await;
    every_write_arrived(&stack, &anna).await;
    stack.converges(&[&anna, &ben]).await;
    figures.check();
}
