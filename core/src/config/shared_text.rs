//! Keys and parameters that many requests have in common.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use bytestring::ByteString;

use crate::shared_pool::{Pooled, SharedPool};

/// A text by a pointer: what a user of many buckets keeps of each is small.
#[derive(Debug, Clone)]
pub(super) struct SharedText(Arc<Pooled<ByteString, ()>>);

impl SharedText {
    pub(super) fn as_text(&self) -> &ByteString {
        &self.0.key
    }
}

impl Borrow<ByteString> for SharedText {
    fn borrow(&self) -> &ByteString {
        self.as_text()
    }
}

impl PartialEq for SharedText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.as_text() == other.as_text()
    }
}

impl Eq for SharedText {}

impl PartialOrd for SharedText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SharedText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_text().cmp(other.as_text())
    }
}

/// The texts of all requests to a config. A handle; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedTexts(Arc<SharedPool<ByteString, ()>>);

impl SharedTexts {
    pub(super) fn share(&self, texts: &[ByteString]) -> Vec<SharedText> {
        self.0.share(texts, |text| (text.clone(), ())).into_iter().map(SharedText).collect()
    }
}
