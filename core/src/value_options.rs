//! How values of the source become values of rows, as far as a config may choose.

use serde::{Deserialize, Serialize};

/// How a source maps the types of its columns: the options of `config` that change data. They are for the source to follow.
/// Other options than before are another content of every bucket: they are part of the forms of definitions and lookup indexes.
///
/// ```
/// use syncline_core::{SyncConfig, ValueOptions};
///
/// let config = SyncConfig::parse("bucket_definitions: { all: { data: [SELECT * FROM lists] } }")?;
/// assert!(!config.value_options().iso8601_timestamps);
/// let config = SyncConfig::parse("config: { edition: 3 }\nstreams: { all: { query: SELECT * FROM lists } }")?;
/// assert_eq!(*config.value_options(), ValueOptions::default());
/// # Ok::<(), syncline_core::Diagnostics>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ValueOptions {
    /// `timestamps_iso8601`: timestamps as `2024-01-02T03:04:05.000000Z`, and not with a blank and the fraction as it is
    /// sent. On from edition 2.
    pub iso8601_timestamps: bool,
    /// `custom_postgres_types`: domains as their base type, composites, ranges and arrays of them as JSON, and not as
    /// Postgres' text. On from edition 2.
    pub custom_types: bool,
    /// `timestamp_max_precision`: digits of fractions are cut or filled up to this, or to the precision of the source if that
    /// is less. `None` is the precision of the source.
    pub max_precision: Option<TimePrecision>,
}

/// How exact timestamps may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TimePrecision {
    /// No fraction.
    Seconds,
    /// Three digits.
    Milliseconds,
    /// Six digits, which is all that Postgres has.
    Microseconds,
    /// Nine digits.
    Nanoseconds,
}

impl TimePrecision {
    pub(crate) const NAMES: [&str; 4] = ["seconds", "milliseconds", "microseconds", "nanoseconds"];

    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "seconds" => Self::Seconds,
            "milliseconds" => Self::Milliseconds,
            "microseconds" => Self::Microseconds,
            "nanoseconds" => Self::Nanoseconds,
            _ => return None,
        })
    }

    /// The digits of a fraction.
    pub fn digits(self) -> usize {
        match self {
            Self::Seconds => 0,
            Self::Milliseconds => 3,
            Self::Microseconds => 6,
            Self::Nanoseconds => 9,
        }
    }
}

impl ValueOptions {
    /// What a config of this edition has if it says nothing else.
    pub(crate) fn of_edition(edition: i64) -> Self {
        let fixed = edition >= 2;
        Self { iso8601_timestamps: fixed, custom_types: fixed, max_precision: None }
    }

    /// What canonical forms of definitions say of it: nothing of the default.
    pub(crate) fn form(&self) -> Option<String> {
        let digits =
            self.max_precision.map_or(TimePrecision::Microseconds, |max| max.min(TimePrecision::Microseconds)).digits();
        let Self { iso8601_timestamps, custom_types, .. } = self;
        let form = format!("values: iso8601 {iso8601_timestamps}, custom types {custom_types}, {digits} digits");
        (!self.is_default()).then_some(form)
    }

    /// Whether rows look as they do by default: Postgres has six digits, so that six and nine cut nothing.
    pub fn is_default(&self) -> bool {
        let exact = self.max_precision.is_none_or(|precision| precision >= TimePrecision::Microseconds);
        self.iso8601_timestamps && self.custom_types && exact
    }
}

/// What editions 2 and 3 have.
impl Default for ValueOptions {
    fn default() -> Self {
        Self::of_edition(2)
    }
}
