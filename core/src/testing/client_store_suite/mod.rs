//! The conformance suite of [`ClientStore`](crate::ClientStore): one test per obligation, run by
//! [`client_store_tests!`](crate::client_store_tests).

mod checksums;
mod gate;
mod knowing;
mod partial;
mod publishing;
mod staging;
mod subject;
mod support;
mod uploads;

use std::future::Future;

pub use checksums::*;
pub use gate::*;
pub use knowing::*;
pub use partial::*;
pub use publishing::*;
pub use staging::*;
pub use subject::Subject;
pub use uploads::*;

/// Runs one case on a store of its own.
pub fn run<S, M, C>(make: impl Fn() -> M, case: impl FnOnce(Box<dyn Subject>) -> C)
where
    S: Subject + 'static,
    M: Future<Output = S>,
    C: Future<Output = ()>,
{
    futures::executor::block_on(async { case(Box::new(make().await)).await });
}

/// The tests that every [`ClientStore`](crate::ClientStore) must pass, as `#[test]` functions that need no runtime.
///
/// The argument makes a fresh, empty store each time it is evaluated: an expression, or an `async` block. It yields a
/// [`Subject`](crate::testing::client_store_suite::Subject), which says how an application writes to the store and reads it.
///
/// ```ignore
/// mod suite {
///     syncline_core::client_store_tests!(super::MySubject::new());
/// }
/// ```
#[macro_export]
macro_rules! client_store_tests {
    // The one list of all cases, for whichever rule wants it.
    (@cases $then:ident ($($given:tt)*)) => {
        $crate::client_store_tests! { @$then ($($given)*)
            a_lease_is_exclusive
            a_new_store_is_empty_and_keeps_its_id
            what_is_staged_is_invisible
            positions_say_what_is_stored
            what_was_staged_survives_reopening
            a_bucket_that_left_starts_from_the_beginning
            a_bucket_that_left_is_named_while_its_rows_are_shown
            a_publish_is_seen_all_at_once
            a_publish_is_complete
            the_newest_copy_of_a_row_is_shown
            a_removed_copy_gives_way_to_the_other
            a_bucket_that_left_takes_its_rows
            source_rows_of_one_row_are_told_apart
            a_clear_forgets_what_came_before
            a_moved_operation_is_only_a_sum
            what_was_published_survives_reopening
            unknown_tables_and_columns_block_nothing
            values_that_fit_no_type_block_nothing
            a_partial_publish_shows_its_priorities_alone
            a_partial_publish_never_deletes
            a_bucket_that_left_is_named_while_a_part_shows_it
            only_a_whole_checkpoint_counts_as_synced
            a_partial_publish_tests_no_other_sums
            a_local_write_holds_priorities_back
            the_highest_priority_passes_local_writes
            a_wrong_sum_is_told_and_shows_nothing
            a_wrong_bucket_is_discarded
            a_wrong_sum_costs_no_other_bucket
            a_bucket_that_never_came_counts_as_empty
            a_local_write_is_seen_at_once
            local_writes_survive_reopening
            a_local_transaction_is_uploaded_whole
            uploads_are_offered_in_order
            an_upload_is_offered_until_it_is_finished
            a_finished_upload_survives_reopening
            an_upload_is_finished_once
            a_rejected_upload_is_recorded
            numbers_of_writes_never_go_back
            nothing_that_sync_does_is_uploaded
            changes_of_the_queue_are_told
            a_queued_write_holds_back
            a_sent_write_holds_back_until_it_is_covered
            a_covered_write_holds_back_until_it_has_come
            what_was_held_back_is_kept
            a_carried_write_gives_way_to_the_server
            a_rejected_write_is_undone_with_its_checkpoint
            a_later_write_holds_back_again
            the_queue_says_what_waits_for_what
            a_cover_is_for_what_was_sent
            a_late_cover_leaves_later_writes_alone
            a_smaller_write_checkpoint_replaces_a_lost_one
            covers_survive_reopening
            the_time_of_the_last_sync_never_goes_back
            subscriptions_survive_reopening
            a_subscription_is_renewed_not_doubled
            a_subscription_ends
            subscriptions_know_when_they_were_complete
        }
    };
    (@names () $($case:ident)*) => {
        &[$(stringify!($case)),*]
    };
    (@named ($name:ident, $make:ident) $($case:ident)*) => {
        match $name {
            $(stringify!($case) => $crate::testing::client_store_suite::run($make, $case),)*
            other => panic!("the suite has no case {other}"),
        }
    };
    (@tests ($make:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::client_store_suite::run(|| $make, $crate::testing::client_store_suite::$case);
            }
        )*
    };
    (async move $make:block) => {
        $crate::client_store_tests!(@cases tests (async move $make));
    };
    (async $make:block) => {
        $crate::client_store_tests!(@cases tests (async $make));
    };
    ($make:expr) => {
        $crate::client_store_tests!(@cases tests (async { $make }));
    };
}

/// The names of all cases.
pub const CASES: &[&str] = client_store_tests!(@cases names ());

/// Runs the case of this name on a store of its own: for a harness that is not `#[test]`.
///
/// # Panics
/// If the store does not do what the case is about, or if there is no such case.
pub fn run_case<S, M>(name: &str, make: impl Fn() -> M)
where
    S: Subject + 'static,
    M: Future<Output = S>,
{
    client_store_tests!(@cases named (name, make));
}
