//! Each case fails on a transport that breaks what the case is about, and says so.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use syncline_core::testing::transport_suite::{CASES, NETWORK_CASES};

use crate::local_network::LocalNetwork;

/// What is wrong with a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A piece in the middle is lost.
    LosesAPiece,
    /// There is a blank line after each piece.
    AddsBlankLines,
    /// The parameters of a connection are left out.
    ForgetsParameters,
    /// The subscriptions of a request are left out.
    ForgetsSubscriptions,
    /// Lines of more than a megabyte are refused.
    LimitsLines,
    /// A stream gets nothing while another one is open.
    OneAtATime,
    /// No more than a few streams can be opened.
    FewStreams,
    /// All streams are opened with the token of the first.
    SharesTheFirstToken,
    /// A refusal is told as if the server was away.
    RefusalIsUnavailable,
    /// A stream that fails just ends.
    FailureIsAnEnd,
    /// The server never learns that a stream was dropped.
    KeepsDroppedStreams,
    /// The server never learns that a call was cancelled.
    LeavesCancelledOpens,
    /// The end of a stream is not told.
    NeverEnds,
    /// Each end of a stream is told as an error.
    EndsWithAnError,
    /// Every client has the same id.
    OneClientForAll,
    /// The first write checkpoint is the answer to all requests.
    RemembersNumbers,
    /// A server that is not there is taken for a mistake.
    AbsenceIsInvalid,
    /// A connection that breaks looks like the end of the stream.
    CutIsAnEnd,
    /// There is no limit to how long a silent server is waited for.
    WaitsForever,
}

const NEVER: &str = "this did not happen in time: ";
const LEFT_OPEN: &str = "streams are open at the service instead of 0";

/// A case, what is wrong with the transport, how many seconds the case has, and what it may say.
const CAUGHT: &[(&str, Fault, u64, &[&str])] = &[
    ("lines_are_those_of_the_service", Fault::LosesAPiece, 20, &["instead of"]),
    ("bytes_join_to_those_of_the_service", Fault::AddsBlankLines, 20, &["the first byte that differs"]),
    ("a_request_arrives_as_it_was_made", Fault::ForgetsParameters, 20, &["yields"]),
    ("a_request_arrives_as_it_was_made", Fault::ForgetsSubscriptions, 20, &["yields"]),
    ("a_large_line_arrives", Fault::LimitsLines, 20, &["this line is too long"]),
    ("a_slow_reader_gets_everything_and_holds_up_nobody", Fault::OneAtATime, 2, &[NEVER]),
    ("many_streams_are_open_at_once", Fault::FewStreams, 20, &["no more connections"]),
    ("many_streams_are_open_at_once", Fault::SharesTheFirstToken, 20, &["each gets what its own token allows"]),
    ("refused_credentials_are_unauthorized", Fault::RefusalIsUnavailable, 20, &["the server refused"]),
    ("a_stream_that_fails_is_no_end", Fault::FailureIsAnEnd, 20, &["ended as if all was well"]),
    ("dropping_a_stream_frees_its_session", Fault::KeepsDroppedStreams, 3, &[LEFT_OPEN]),
    ("a_cancelled_open_leaves_nothing", Fault::LeavesCancelledOpens, 3, &[LEFT_OPEN]),
    ("a_stream_ends_with_its_token", Fault::NeverEnds, 8, &[NEVER]),
    ("a_stream_ends_with_its_token", Fault::EndsWithAnError, 20, &["an ended token ends its stream without an error"]),
    ("closing_the_service_ends_its_streams", Fault::NeverEnds, 1, &[NEVER]),
    ("closing_the_service_ends_its_streams", Fault::EndsWithAnError, 20, &["ends its streams without an error"]),
    ("write_checkpoints_rise_and_come_back", Fault::RemembersNumbers, 20, &["numbers rise"]),
    // It depends on the time of day whether the other client's numbers are larger.
    ("write_checkpoints_rise_and_come_back", Fault::OneClientForAll, 2, &["it was another client's", NEVER]),
    ("an_absent_server_is_unavailable", Fault::AbsenceIsInvalid, 20, &["a stream from nobody"]),
    ("a_broken_connection_is_an_error_and_no_end", Fault::CutIsAnEnd, 20, &["was taken for the end"]),
    ("a_silent_server_is_given_up", Fault::WaitsForever, 2, &[NEVER]),
];

#[test]
fn every_case_catches_a_transport_that_breaks_its_promise() {
    let cases: BTreeSet<&str> = CASES.iter().chain(NETWORK_CASES).map(|case| case.name).collect();
    let proven: BTreeSet<&str> = CAUGHT.iter().map(|(case, ..)| *case).collect();
    assert_eq!(cases, proven, "every case has a transport that it catches");
    silence(PROOF);
    let mut complaints = Vec::new();
    for (name, fault, patience, messages) in CAUGHT {
        let said = outcome(name, *fault, *patience);
        if !messages.iter().any(|message| said.contains(message)) {
            complaints.push(format!("{name} on {fault:?}: {said}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The name of the threads in which cases fail.
const PROOF: &str = "proof";

/// What a case says of a broken transport, within a time.
fn outcome(name: &str, fault: Fault, patience: u64) -> String {
    let case = CASES.iter().chain(NETWORK_CASES).find(|case| case.name == name).unwrap().run;
    let (sender, receiver) = mpsc::channel();
    // A case that hangs must not hang this test.
    let thread = std::thread::Builder::new().name(PROOF.to_owned()).spawn(move || {
        let network = Arc::new(LocalNetwork::broken(fault, Duration::from_secs(patience)));
        let run = catch_unwind(AssertUnwindSafe(|| futures::executor::block_on(case(network))));
        // Nobody listens any more if it took too long.
        let _ = sender.send(match run {
            Ok(()) => "it passed".to_owned(),
            Err(panic) => message(&*panic),
        });
    });
    thread.unwrap();
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| "it hangs".to_owned())
}

/// Panics in threads of this name are expected, and need no backtrace.
fn silence(name: &'static str) {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(name) {
            others(panic);
        }
    }));
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without a message".to_owned(),
    }
}
