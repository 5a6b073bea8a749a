//! The `with` blocks: queries that other queries use by name, each use with rows of its own.

use std::cell::Cell;

use super::diagnostic::Report;
use super::scalar::Scalar;
use super::sql::ast::Select;

/// A named query.
#[derive(Debug)]
pub(super) struct Cte {
    pub(super) name: Scalar,
    pub(super) sql: Scalar,
    pub(super) select: Select,
    used: Cell<bool>,
}

impl Cte {
    pub(super) fn new(name: Scalar, sql: Scalar, select: Select) -> Self {
        Self { name, sql, select, used: Cell::new(false) }
    }
}

/// The named queries that a query may use: those of its stream hide those of the whole config.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ctes<'a> {
    pub(super) local: &'a [Cte],
    pub(super) global: &'a [Cte],
}

impl<'a> Ctes<'a> {
    /// The one of this name, without regard to case; it counts as used.
    pub(super) fn find(&self, name: &str) -> Option<&'a Cte> {
        let wanted = name.to_lowercase();
        let found = self.local.iter().chain(self.global).find(|cte| cte.name.text().to_lowercase() == wanted)?;
        found.used.set(true);
        Some(found)
    }
}

/// Warns of those that nothing uses.
pub(super) fn warn_of_unused(ctes: &[Cte], report: &mut Report) {
    for cte in ctes.iter().filter(|cte| !cte.used.get()) {
        report
            .warning("cte-unused", cte.name.span(), format!("nothing uses `{}`", cte.name.text()))
            .help("use it in FROM or after IN, or remove it");
    }
}
