//! The conformance suite of [`Transport`](crate::Transport): one test per obligation, run by
//! [`transport_tests!`](crate::transport_tests).
//!
//! A case sets up a service over a store in memory, reaches it by a [`Wire`], and compares what comes with what a client in
//! the same process gets.

mod breaks;
mod ends;
mod lines;
mod listener;
mod stage;
mod wire;
mod write_checkpoints;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use breaks::*;
pub use ends::*;
pub use lines::*;
pub use wire::{Network, Wire};
pub use write_checkpoints::*;

use super::RunningCase;

/// One obligation, and what checks it.
pub struct Case {
    /// What is owed.
    pub name: &'static str,
    /// Checks it on a wire of its own.
    pub run: fn(Arc<dyn Network>) -> RunningCase<'static>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// All cases that [`transport_tests!`](crate::transport_tests) makes a test of, for any wire.
pub const CASES: &[Case] = &crate::transport_tests!(@each table ());

/// Those that it makes a test of for a network besides.
pub const NETWORK_CASES: &[Case] = &crate::transport_tests!(@each_of_network table ());

/// Runs one case on a wire of its own; `on` runs its future to the end.
pub fn run<W, M>(
    on: impl FnOnce(RunningCase<'_>),
    make: impl Fn() -> M,
    case: impl FnOnce(Arc<W>) -> RunningCase<'static>,
) where
    M: Future<Output = W>,
{
    on(Box::pin(async { case(Arc::new(make().await)).await }));
}

/// The tests that every [`Transport`](crate::Transport) must pass, as `#[test]` functions.
///
/// The argument makes a [`Network`](crate::testing::transport_suite::Network) each time it is evaluated: an expression, or an
/// `async` block. For a transport that goes over no network, `in_process:` before it makes a
/// [`Wire`](crate::testing::transport_suite::Wire) do, and leaves out what is about networks. A transport that needs a runtime
/// names a function before that, which runs a [`RunningCase`](crate::testing::RunningCase) to its end:
/// `on: run_on_tokio,`.
///
/// ```ignore
/// mod suite {
///     syncline_core::transport_tests!(on: super::run_on_tokio, super::MyNetwork::new());
/// }
/// ```
#[macro_export]
macro_rules! transport_tests {
    (@each $what:ident $arguments:tt) => {
        $crate::transport_tests! { @$what $arguments
            lines_are_those_of_the_service
            bytes_join_to_those_of_the_service
            a_request_arrives_as_it_was_made
            a_large_line_arrives
            a_slow_reader_gets_everything_and_holds_up_nobody
            many_streams_are_open_at_once
            refused_credentials_are_unauthorized
            a_stream_that_fails_is_no_end
            dropping_a_stream_frees_its_session
            a_cancelled_open_leaves_nothing
            a_stream_ends_with_its_token
            closing_the_service_ends_its_streams
            write_checkpoints_rise_and_come_back
        }
    };
    (@each_of_network $what:ident $arguments:tt) => {
        $crate::transport_tests! { @$what $arguments
            an_absent_server_is_unavailable
            a_broken_connection_is_an_error_and_no_end
            a_silent_server_is_given_up
        }
    };
    (@table () $($case:ident)*) => {
        [$($crate::testing::transport_suite::Case {
            name: stringify!($case),
            run: |network| Box::pin($crate::testing::transport_suite::$case(network)),
        }),*]
    };
    (@tests ($on:expr, $make:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::transport_suite::run($on, || $make, |wire| {
                    ::std::boxed::Box::pin($crate::testing::transport_suite::$case(wire))
                });
            }
        )*
    };
    (on: $on:expr, in_process: async $make:block) => {
        $crate::transport_tests! { @each tests ($on, async $make) }
    };
    (on: $on:expr, in_process: $make:expr) => {
        $crate::transport_tests! { @each tests ($on, async { $make }) }
    };
    (on: $on:expr, async $make:block) => {
        $crate::transport_tests! { @each tests ($on, async $make) }
        $crate::transport_tests! { @each_of_network tests ($on, async $make) }
    };
    (on: $on:expr, $make:expr) => {
        $crate::transport_tests! { on: $on, async { $make } }
    };
    (in_process: async $make:block) => {
        $crate::transport_tests! { on: $crate::testing::run_here, in_process: async $make }
    };
    (in_process: $make:expr) => {
        $crate::transport_tests! { on: $crate::testing::run_here, in_process: async { $make } }
    };
    (async $make:block) => {
        $crate::transport_tests! { on: $crate::testing::run_here, async $make }
    };
    ($make:expr) => {
        $crate::transport_tests! { on: $crate::testing::run_here, async { $make } }
    };
}
