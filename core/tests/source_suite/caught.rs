//! Each case fails on a source that breaks what the case is about, and says so.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use syncline_core::testing::source_suite::CASES;

use crate::broken_source::{BrokenHand, Fault};

const DIFFERS: &str = "what may be shown is not what the tables held";
/// The name of the threads in which cases fail.
const PROOF: &str = "proof";
const NEVER: &str = "this did not happen in time: ";

/// A case, what is wrong with the source, and what the case says.
const CAUGHT: &[(&str, Fault, &str)] = &[
    ("transactions_come_whole_and_in_the_order_of_their_commits", Fault::SplitsTransactions, DIFFERS),
    (
        "transactions_come_whole_and_in_the_order_of_their_commits",
        Fault::MergesTransactions,
        "each commit is to be seen",
    ),
    ("a_large_transaction_comes_whole", Fault::SplitsTransactions, DIFFERS),
    ("positions_rise_with_every_commit", Fault::LittleEndian, "positions must rise with every commit"),
    ("a_stream_goes_on_after_its_position", Fault::SkipsOne, "after the position of a commit"),
    ("a_stream_goes_on_after_its_position", Fault::RepeatsOne, "positions must rise with every commit"),
    ("what_is_not_confirmed_comes_again_as_it_was", Fault::ForgetsWhatItSent, NEVER),
    ("confirming_moves_nothing_but_what_may_be_forgotten", Fault::ResumesFromConfirmed, "positions must rise"),
    ("a_reader_that_pauses_gets_everything", Fault::DropsWhenSlow, "each commit is to be seen"),
    ("a_snapshot_is_what_the_tables_hold", Fault::NullIsEmpty, DIFFERS),
    ("a_snapshot_is_what_the_tables_hold", Fault::NeverPassesSnapshot, NEVER),
    ("a_snapshot_beside_writers_is_true_once_its_end_is_passed", Fault::StreamsFromTheEndOfTheSnapshot, DIFFERS),
    ("an_interrupted_snapshot_is_completed", Fault::ForgetsWhereTheSnapshotBegan, DIFFERS),
    ("a_row_has_one_key_in_snapshot_and_stream", Fault::KeysDiffer, "has two keys"),
    ("a_table_that_appears_later_is_read", Fault::IgnoresLateTables, "late_a/first is missing"),
    ("a_row_whose_key_changes_leaves_nothing_under_the_old_one", Fault::KeepsOldKeys, "a/1 is too many"),
    ("what_an_update_leaves_alone_is_never_null", Fault::UnchangedIsNull, "body: None"),
    ("a_truncation_empties_its_tables_at_its_place", Fault::RemovesLast, "a/1 is missing"),
    ("only_what_is_selected_is_sent", Fault::SendsAllTables, "is not among those that are wanted"),
    ("only_what_is_selected_is_sent", Fault::LeavesOutColumns, DIFFERS),
    ("rows_are_read_again_as_the_stream_has_them", Fault::RereadsFromCache, "each as the stream has it"),
    ("rows_are_read_again_as_the_stream_has_them", Fault::AnswersOnlyWhatIsThere, "one answer per key"),
    ("a_stream_passes_what_was_read_again", Fault::HoldsTooFar, "the stream passes what was read again"),
    ("a_marker_comes_after_what_was_committed_before_it", Fault::MarkersOvertake, "the marker overtook commit"),
    ("a_marker_that_is_sent_while_nobody_reads_waits", Fault::LosesMarkers, NEVER),
    ("a_stream_can_be_dropped_at_any_point", Fault::ForgetsWhatItSent, DIFFERS),
    ("lost_history_is_told", Fault::GoesOnAfterLostHistory, "goes on although its history is lost"),
    ("lost_history_is_told", Fault::StaysOpenAfterLostHistory, NEVER),
    ("a_position_of_another_source_is_refused", Fault::TakesAnyPosition, "from what it never handed out"),
    ("a_state_of_another_source_is_refused", Fault::TakesAnyState, "from what it never handed out"),
];

#[test]
fn every_case_catches_a_source_that_breaks_its_promise() {
    let cases: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
    let proven: BTreeSet<&str> = CAUGHT.iter().map(|(case, ..)| *case).collect();
    assert_eq!(cases, proven, "every case has a source that it catches");
    silence(PROOF);
    let mut complaints = Vec::new();
    for (name, fault, message) in CAUGHT {
        let said = outcome(name, *fault, if message.starts_with(NEVER) { 1 } else { 20 });
        if !said.contains(message) {
            complaints.push(format!("{name} on {fault:?}: {said}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
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

/// What a case says of a broken source, within a time.
fn outcome(name: &str, fault: Fault, patience: u64) -> String {
    let case = CASES.iter().find(|case| case.name == name).unwrap().run;
    let (sender, receiver) = mpsc::channel();
    // A case that hangs must not hang this test.
    let thread = std::thread::Builder::new().name(PROOF.to_owned()).spawn(move || {
        let hand = Arc::new(BrokenHand::new(fault, Duration::from_secs(patience)));
        let run = catch_unwind(AssertUnwindSafe(|| futures::executor::block_on(case(hand))));
        // Nobody listens any more if it took too long.
        let _ = sender.send(match run {
            Ok(()) => "it passed".to_owned(),
            Err(panic) => message(&*panic),
        });
    });
    thread.unwrap();
    receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| "it hangs".to_owned())
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without a message".to_owned(),
    }
}
