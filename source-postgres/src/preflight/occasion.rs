//! When something is checked, which decides what a complaint means.

use syncline_core::ErrorKind;

/// When a server, a login or tables are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It was never right before: whatever is wrong is for a person to mend.
    First,
    /// It was right before: a failover, a rotated password or a migration may be under way, which replication waits for.
    Again,
    /// As `Again`, while streaming; what was said at the start is not repeated.
    Poll,
}

impl Occasion {
    /// What is wrong at first ends replication; later it waits, so that the server goes on serving what it has.
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::First => ErrorKind::Invalid,
            Self::Again | Self::Poll => ErrorKind::Unavailable,
        }
    }
}
