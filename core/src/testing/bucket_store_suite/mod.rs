//! The conformance suite of [`BucketStore`](crate::BucketStore): one test per obligation, run by
//! [`bucket_store_tests!`](crate::bucket_store_tests).

mod appending;
mod compaction;
mod confirmed_numbers;
mod lookups;
mod publishing;
mod reading;
mod subscribing;
mod support;
mod write_checkpoints;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use appending::*;
pub use compaction::*;
pub use confirmed_numbers::*;
pub use lookups::*;
pub use publishing::*;
pub use reading::*;
pub use subscribing::*;
pub use write_checkpoints::*;

use crate::bucket_store::BucketStore;

/// A store under test, and what must outlive it.
pub struct Subject {
    store: Arc<dyn BucketStore>,
    guard: Box<dyn Any>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("store", &self.store).finish_non_exhaustive()
    }
}

impl<S: BucketStore + 'static> From<S> for Subject {
    fn from(store: S) -> Self {
        Self { store: Arc::new(store), guard: Box::new(()) }
    }
}

/// A store, and what must be dropped after it: a folder, a server.
impl<S: BucketStore + 'static, G: 'static> From<(S, G)> for Subject {
    fn from((store, guard): (S, G)) -> Self {
        Self { store: Arc::new(store), guard: Box::new(guard) }
    }
}

/// Runs one case on a store of its own.
pub fn run<S, M, C>(make: impl Fn() -> M, case: impl FnOnce(Arc<dyn BucketStore>) -> C)
where
    S: Into<Subject>,
    M: Future<Output = S>,
    C: Future<Output = ()>,
{
    futures::executor::block_on(async {
        let Subject { store, guard } = make().await.into();
        case(store).await;
        drop(guard);
    });
}

/// The tests that every [`BucketStore`](crate::BucketStore) must pass, as `#[test]` functions that need no runtime.
///
/// The argument makes a fresh, empty store each time it is evaluated: an expression, or an `async` block. It yields the
/// store, or a pair of the store and what must outlive it.
///
/// ```ignore
/// mod suite {
///     syncline_core::bucket_store_tests!(super::MyStore::new());
/// }
/// ```
#[macro_export]
macro_rules! bucket_store_tests {
    // The one list of all cases, for whichever rule wants it. Those after the semicolon make several stores.
    (@cases $then:ident ($($given:tt)*)) => {
        $crate::bucket_store_tests! { @$then ($($given)*)
            what_is_appended_is_invisible_before_its_commit
            what_was_not_committed_is_forgotten_by_resume
            a_commit_keeps_position_and_states
            operations_come_back_as_they_were_appended
            operation_ids_rise_and_are_never_given_twice
            current_rows_see_what_is_not_committed
            a_truncation_removes_every_membership_and_lookup
            a_truncation_leaves_other_tables_alone
            an_append_that_fails_spoils_the_commit
            readers_are_not_disturbed_by_a_large_open_append
            nothing_changed_makes_no_checkpoint
            commits_that_are_not_published_stay_hidden
            every_checkpoint_has_its_own_rising_id
            a_checkpoint_needs_a_config
            a_definition_number_is_never_used_again
            a_reset_forgets_everything_but_order
            a_checkpoint_after_a_reset_is_none_of_before
            a_subscriber_gets_the_newest_checkpoint_then_what_changed
            a_slow_subscriber_gets_merged_changes
            a_waiting_subscriber_is_woken
            changes_of_hidden_commits_are_named_when_published
            after_a_reset_everything_may_have_changed
            checksums_are_known_at_older_checkpoints
            a_read_is_cut_to_its_range
            a_read_is_limited_in_bytes
            reads_are_answered_in_order
            nothing_above_the_checkpoint_is_read
            many_buckets_of_one_commit_are_kept_apart
            lookups_are_known_at_older_checkpoints
            a_lookup_entry_belongs_to_its_row
            changes_of_a_lookup_lead_from_checkpoint_to_checkpoint
            changes_of_a_lookup_are_right_or_whole_after_compaction
            write_checkpoint_numbers_never_fall
            a_named_write_checkpoint_keeps_the_larger_number
            a_user_has_a_bounded_number_of_clients
            a_write_checkpoint_is_shown_from_its_marker_on
            a_request_never_joins_a_marker_that_was_taken
            an_unconfirmed_request_gets_a_new_marker
            a_marker_confirms_smaller_numbers_of_its_client_alone
            pending_markers_come_again_to_a_new_subscriber
            an_unknown_marker_changes_nothing
            a_marker_in_a_hidden_commit_waits_for_the_checkpoint
            a_reset_keeps_write_checkpoints_rising_and_waiting
            write_checkpoints_are_requested_while_an_append_is_open
            endless_requests_are_answered_in_the_end
            a_confirmed_number_is_shown_from_its_commit_on
            a_confirmed_number_is_a_change_by_itself
            a_confirmed_number_never_falls
            confirmed_numbers_and_requests_share_a_record
            a_confirmed_number_in_a_hidden_commit_waits_for_the_checkpoint
            a_confirmed_number_is_forgotten_with_what_was_appended
            confirmed_numbers_of_a_user_are_bounded_and_not_refused
            a_reset_lets_confirmed_numbers_wait
            compaction_names_the_checkpoint_that_it_requires
            compaction_leaves_the_present_alone
            compaction_drops_what_is_superseded
            compaction_stays_within_its_limit
            ;
            compaction_keeps_every_reduction
        }
    };
    (@names () $($case:ident)* ; $($law:ident)*) => {
        &[$(stringify!($case),)* $(stringify!($law)),*]
    };
    (@named ($name:ident, $make:ident) $($case:ident)* ; $($law:ident)*) => {
        match $name {
            $(stringify!($case) => $crate::testing::bucket_store_suite::run($make, $case),)*
            $(stringify!($law) => $crate::testing::bucket_store_suite::$law($make),)*
            other => panic!("the suite has no case {other}"),
        }
    };
    (@tests ($make:expr) $($case:ident)* ; $($law:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::bucket_store_suite::run(|| $make, $crate::testing::bucket_store_suite::$case);
            }
        )*
        $(
            #[test]
            fn $law() {
                $crate::testing::bucket_store_suite::$law(|| $make);
            }
        )*
    };
    (async move $make:block) => {
        $crate::bucket_store_tests!(@cases tests (async move $make));
    };
    (async $make:block) => {
        $crate::bucket_store_tests!(@cases tests (async $make));
    };
    ($make:expr) => {
        $crate::bucket_store_tests!(@cases tests (async { $make }));
    };
}

/// The names of all cases.
pub const CASES: &[&str] = bucket_store_tests!(@cases names ());

/// Runs the case of this name, on a store of its own: for a harness that is not `#[test]`.
///
/// # Panics
/// If the store does not do what the case is about, or if there is no such case.
pub fn run_case<S, M>(name: &str, make: impl Fn() -> M)
where
    S: Into<Subject>,
    M: Future<Output = S>,
{
    bucket_store_tests!(@cases named (name, make));
}
