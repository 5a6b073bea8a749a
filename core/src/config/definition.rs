//! Bucket definitions: what is in the buckets of one kind, apart from who may see them.

use bytestring::ByteString;

use super::plan::RowEvaluator;

/// What fills the buckets of one kind: row evaluators that share their parameters.
#[derive(Debug)]
pub struct Definition {
    name: ByteString,
    form: ByteString,
    evaluators: Vec<RowEvaluator>,
}

impl Definition {
    pub(super) fn new(name: ByteString, form: ByteString, evaluators: Vec<RowEvaluator>) -> Self {
        Self { name, form, evaluators }
    }

    /// The name for logs: `<stream>|<number>`, of the first stream that uses it.
    pub fn name(&self) -> &ByteString {
        &self.name
    }

    /// The content of its buckets depends on this as well.
    pub(super) fn add_to_form(&mut self, text: &str) {
        self.form = format!("{}\n{text}", self.form).into();
    }

    /// The canonical, versioned form. Two definitions with equal forms have buckets of the same content for the same
    /// parameters; tables, filters, keys and outputs are in it, while names, priorities, automatic subscription and
    /// conditions on the request are not.
    pub fn form(&self) -> &ByteString {
        &self.form
    }

    pub(super) fn evaluators(&self) -> &[RowEvaluator] {
        &self.evaluators
    }
}
