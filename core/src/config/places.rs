//! Where the text of a config names tables and columns, for what only a source can find wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lines::Lines;
use super::resolve::{Query, QuerySource, TableReference};
use super::span::Span;
use crate::table::{ConfigPlace, TablePlaces};

/// The first place of each table and of each of its columns.
#[derive(Debug)]
pub(super) struct Places<'a> {
    lines: Lines<'a>,
    tables: BTreeMap<TableReference, TablePlaces>,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: Lines::new(text), tables: BTreeMap::new() }
    }

    /// Takes note of what a query of `stream` names.
    pub(super) fn add(&mut self, stream: &Arc<str>, query: &Query) {
        let place = |span: Span| {
            let (line, column) = self.lines.at(span.start);
            ConfigPlace { stream: Arc::clone(stream), line, column }
        };
        for (number, source) in query.sources.iter().enumerate() {
            let QuerySource::Table { reference, span, .. } = source else { continue };
            let places = self.tables.entry(reference.clone()).or_default();
            places.table.get_or_insert_with(|| place(*span));
            for (of, name, span) in &query.named {
                if of.0 == number {
                    places.columns.entry(Arc::clone(name)).or_insert_with(|| place(*span));
                }
            }
        }
    }

    /// What is known of a table.
    pub(super) fn take(&mut self, table: &TableReference) -> TablePlaces {
        self.tables.remove(table).unwrap_or_default()
    }
}
