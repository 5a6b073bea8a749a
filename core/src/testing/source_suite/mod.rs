//! The conformance suite of [`Source`](crate::Source): one test per obligation, run by [`source_tests!`](crate::source_tests).
//!
//! A case writes to a database by a [`Hand`], follows the source as a replicator does, and compares what it could show at
//! each commit with what the tables held then.

mod bench;
mod endings;
mod hand;
mod markers;
mod model;
mod reader;
mod rows;
mod snapshots;
mod stored_row;
mod transactions;
mod transcript;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use endings::*;
pub use hand::{Change, Hand, Row};
pub use markers::*;
pub use rows::*;
pub use snapshots::*;
pub use transactions::*;

use super::RunningCase;

/// One obligation, and what checks it.
pub struct Case {
    /// What is owed.
    pub name: &'static str,
    /// Checks it on a database of its own.
    pub run: fn(Arc<dyn Hand>) -> RunningCase<'static>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// All cases that [`source_tests!`](crate::source_tests) makes a test of.
pub const CASES: &[Case] = &crate::source_tests!(@each table ());

/// Runs one case on a database of its own; `on` runs its future to the end.
pub fn run<H, M>(
    on: impl FnOnce(RunningCase<'_>),
    make: impl Fn() -> M,
    case: impl FnOnce(Arc<dyn Hand>) -> RunningCase<'static>,
) where
    H: Hand + 'static,
    M: Future<Output = H>,
{
    on(Box::pin(async { case(Arc::new(make().await)).await }));
}

/// The tests that every [`Source`](crate::Source) must pass, as `#[test]` functions.
///
/// The argument makes a [`Hand`](crate::testing::source_suite::Hand) on a fresh, empty database each time it is evaluated: an
/// expression, or an `async` block. A source that needs a runtime names a function before it that runs a
/// [`RunningCase`](crate::testing::RunningCase) to its end: `on: run_on_tokio,`.
///
/// ```ignore
/// mod suite {
///     syncline_core::source_tests!(super::MyHand::new());
/// }
/// ```
#[macro_export]
macro_rules! source_tests {
    (@each $what:ident $arguments:tt) => {
        $crate::source_tests! { @$what $arguments
            transactions_come_whole_and_in_the_order_of_their_commits
            a_large_transaction_comes_whole
            positions_rise_with_every_commit
            a_stream_goes_on_after_its_position
            what_is_not_confirmed_comes_again_as_it_was
            confirming_moves_nothing_but_what_may_be_forgotten
            a_reader_that_pauses_gets_everything
            a_snapshot_is_what_the_tables_hold
            a_snapshot_beside_writers_is_true_once_its_end_is_passed
            an_interrupted_snapshot_is_completed
            a_row_has_one_key_in_snapshot_and_stream
            a_table_that_appears_later_is_read
            a_row_whose_key_changes_leaves_nothing_under_the_old_one
            what_an_update_leaves_alone_is_never_null
            a_truncation_empties_its_tables_at_its_place
            only_what_is_selected_is_sent
            rows_are_read_again_as_the_stream_has_them
            a_stream_passes_what_was_read_again
            a_marker_comes_after_what_was_committed_before_it
            a_marker_that_is_sent_while_nobody_reads_waits
            a_stream_can_be_dropped_at_any_point
            lost_history_is_told
            a_position_of_another_source_is_refused
            a_state_of_another_source_is_refused
        }
    };
    (@table () $($case:ident)*) => {
        [$($crate::testing::source_suite::Case {
            name: stringify!($case),
            run: |hand| Box::pin($crate::testing::source_suite::$case(hand)),
        }),*]
    };
    (@tests ($on:expr, $make:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::source_suite::run($on, || $make, |hand| {
                    ::std::boxed::Box::pin($crate::testing::source_suite::$case(hand))
                });
            }
        )*
    };
    (on: $on:expr, async move $make:block) => {
        $crate::source_tests! { @each tests ($on, async move $make) }
    };
    (on: $on:expr, async $make:block) => {
        $crate::source_tests! { @each tests ($on, async $make) }
    };
    (on: $on:expr, $make:expr) => {
        $crate::source_tests! { @each tests ($on, async { $make }) }
    };
    (async move $make:block) => {
        $crate::source_tests! { @each tests ($crate::testing::run_here, async move $make) }
    };
    (async $make:block) => {
        $crate::source_tests! { @each tests ($crate::testing::run_here, async $make) }
    };
    ($make:expr) => {
        $crate::source_tests! { @each tests ($crate::testing::run_here, async { $make }) }
    };
}
