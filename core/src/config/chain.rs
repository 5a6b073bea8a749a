//! A querier whose lookups form a chain, each one found by the rows of the one before: what a change of one answer adds and
//! takes away is found without looking at the others.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::evaluate::Failure;
use super::plan::{KeyValue, Querier, Stage};
use super::querying::{Answer, AnswerRows, Answers, ConfigLookup, too_many};
use super::request::Budget;
use super::shared_text::{SharedText, SharedTexts};
use super::wish::Wish;
use crate::error::{Error, Result};
use crate::sorted_list::SortedList;

/// What a lookup or a bucket costs beside its text, about, if no other request has it.
const LINK_BYTES: usize = 160;
/// The same of what a row leads to, which shares the text of the lookup or bucket.
const LEAD_BYTES: usize = size_of::<SharedText>();

/// The lookups of one querier for one subscription, with what they lead to.
#[derive(Debug)]
pub(super) struct Chain {
    /// One per lookup, then the parameters of the buckets.
    links: Vec<Link>,
    /// Texts that requests have in common.
    texts: SharedTexts,
    /// Lookups whose rows are not known, or not any more.
    open: BTreeSet<(usize, ConfigLookup)>,
    /// Whether each of these parameters was found before, of those for which that may have changed.
    changed: BTreeMap<ByteString, bool>,
    /// Lookups that have come or gone.
    moved: BTreeSet<ConfigLookup>,
    /// There are more buckets than one subscription may have, so it has none.
    over: bool,
    /// What it holds, about.
    bytes: usize,
}

/// What the rows of one lookup lead to: lookups of the next stage, or the parameters of buckets.
#[derive(Debug)]
struct Link {
    /// The parts of a key, or of the parameters.
    parts: Vec<Part>,
    nodes: Nodes,
}

#[derive(Debug)]
enum Nodes {
    Lookups {
        index: usize,
        nodes: BTreeMap<ConfigLookup, Node>,
    },
    /// Each as often as there are lookups that lead to it.
    Parameters(SortedList<SharedText>),
}

/// What the rows of a lookup lead to, each as often as there are rows that do.
type Leads = SortedList<SharedText>;

/// A lookup.
#[derive(Debug, Default)]
struct Node {
    /// How many lookups have rows that lead to it.
    support: usize,
    /// What its own rows lead to; `None` until it is answered.
    leads_to: Option<Leads>,
}

/// A part of a key: it has these values, or that of an output of the stage before.
#[derive(Debug)]
enum Part {
    Values(Vec<ByteString>),
    Output(usize),
}

/// What has changed since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Parameters that were found before and are not now, or the other way round.
    pub(super) parameters: Vec<ByteString>,
    /// Lookups that may have come or gone.
    pub(super) lookups: BTreeSet<ConfigLookup>,
}

impl Chain {
    /// Whether the lookups of a querier form a chain.
    pub(super) fn fits(querier: &Querier) -> bool {
        let stages = &querier.wanted.stages;
        let of_chain = |number: usize, values: &[Vec<KeyValue>]| {
            let before = number.checked_sub(1);
            let single = values.iter().all(|values| match values.as_slice() {
                [KeyValue::Request(_)] => true,
                [KeyValue::Output { stage, .. }] => Some(*stage) == before,
                _ => false,
            });
            let leads = |value: &KeyValue| matches!(value, KeyValue::Output { .. });
            single && (number == 0 || values.iter().flatten().any(leads))
        };
        let mut numbered = stages.iter().enumerate();
        let all = numbered.all(|(number, stage)| match stage {
            Stage::Lookup { keys, .. } => of_chain(number, keys),
            Stage::Each { .. } => false,
        });
        all && !stages.is_empty() && of_chain(stages.len(), &querier.parameters)
    }

    /// Begins with what the request says.
    pub(super) fn begin(querier: &Querier, wish: &Wish<'_>, texts: &SharedTexts) -> Result<Self, Failure> {
        let parts = |values: &[Vec<KeyValue>]| {
            let part = |value: &KeyValue| match value {
                KeyValue::Request(side) => wish.values(side).map(Part::Values),
                KeyValue::Output { output, .. } => Ok(Part::Output(*output)),
            };
            values.iter().flatten().map(part).collect::<Result<Vec<_>, _>>()
        };
        let mut links = Vec::new();
        for stage in &querier.wanted.stages {
            if let Stage::Lookup { index, keys } = stage {
                links.push(Link {
                    parts: parts(keys)?,
                    nodes: Nodes::Lookups { index: *index, nodes: BTreeMap::new() },
                });
            }
        }
        links.push(Link { parts: parts(&querier.parameters)?, nodes: Nodes::Parameters(SortedList::default()) });
        // What a row leads to is as many whatever the row, since each of its outputs is one value.
        if links.iter().any(|link| link.width() > wish.budget.combinations) {
            return Err(too_many(wish.budget));
        }
        let (open, changed, moved) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let texts = texts.clone();
        let mut chain = Self { links, texts, open, changed, moved, over: false, bytes: 0 };
        if wish.satisfies(&querier.wanted.filters)? {
            let mut first = Vec::new();
            chain.links[0].texts(&[], &mut first)?;
            let mut first = chain.texts.share(&first);
            first.sort();
            first.dedup();
            chain.support(0, first);
        }
        Ok(chain)
    }

    /// Whether all of its lookups are answered.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Goes on as far as answers are there; what is missing is added to `missing`.
    ///
    /// # Errors
    /// `Data` if an answer has not the columns that its index has.
    pub(super) fn advance(
        &mut self,
        answers: &Answers,
        budget: &Budget,
        missing: &mut BTreeSet<ConfigLookup>,
    ) -> Result<()> {
        let mut unanswered: BTreeSet<(usize, ConfigLookup)> = BTreeSet::new();
        while let Some((stage, lookup)) = self.open.pop_first() {
            if unanswered.first().is_some_and(|(first, _)| *first < stage) {
                // An answer that is missing may take it away.
                self.open.insert((stage, lookup));
                break;
            }
            let known = match answers.get(&lookup) {
                Some(Answer::Rows(rows)) => self.answered(stage, &lookup, rows, budget).map(|()| true)?,
                Some(Answer::Difference { gone, come }) => self.differs(stage, &lookup, (gone, come), budget)?,
                None => false,
            };
            if !known {
                missing.insert(lookup.clone());
                unanswered.insert((stage, lookup));
            }
            if !budget.allows(self.bytes) {
                break;
            }
        }
        self.open.append(&mut unanswered);
        budget.spend(self.bytes);
        Ok(())
    }

    /// All rows of a lookup.
    fn answered(&mut self, stage: usize, lookup: &ConfigLookup, rows: &AnswerRows, budget: &Budget) -> Result<()> {
        let Some(mut now) = self.texts(stage + 1, rows, budget)? else { return Ok(()) };
        now.sort();
        let Some(node) = self.node(stage, lookup) else { return Ok(()) };
        let before = node.leads_to.get_or_insert_default();
        let gone = before.without(&now).map(|text| text.as_text().clone()).collect();
        let come = before.missing(now);
        self.change(stage, lookup, come, gone)
    }

    /// What has changed of the rows of a lookup; `false` if all of them must be known first.
    fn differs(
        &mut self,
        stage: usize,
        lookup: &ConfigLookup,
        (gone, come): (&AnswerRows, &AnswerRows),
        budget: &Budget,
    ) -> Result<bool> {
        if self.node(stage, lookup).is_some_and(|node| node.leads_to.is_none()) {
            return Ok(false);
        }
        let texts = self.texts(stage + 1, gone, budget)?.zip(self.texts(stage + 1, come, budget)?);
        let Some((gone, come)) = texts else { return Ok(true) };
        self.change(stage, lookup, come, gone).map(|()| true)
    }

    /// What rows of the stage before lead to; `None` if that is too much, which ends the whole resolution.
    fn texts(&self, stage: usize, rows: &AnswerRows, budget: &Budget) -> Result<Option<Vec<ByteString>>> {
        let mut texts = Vec::with_capacity(rows.len());
        for row in rows {
            self.links[stage].texts(row, &mut texts).map_err(|failure| Error::data(failure.message))?;
            if !budget.allows(self.bytes.saturating_add(texts.len().saturating_mul(LINK_BYTES))) {
                budget.spend(usize::MAX);
                return Ok(None);
            }
        }
        Ok(Some(texts))
    }

    /// Rows of a lookup have come, and others have gone, with what they lead to.
    fn change(
        &mut self,
        stage: usize,
        lookup: &ConfigLookup,
        come: Vec<ByteString>,
        gone: Vec<ByteString>,
    ) -> Result<()> {
        let come = self.texts.share(&come);
        let Some(leads_to) = self.node(stage, lookup).and_then(|node| node.leads_to.as_mut()) else { return Ok(()) };
        let before = leads_to.len();
        let mut new: Vec<SharedText> = come.iter().filter(|text| !leads_to.contains(text.as_text())).cloned().collect();
        new.sort();
        new.dedup();
        leads_to.add(come);
        let Some(mut lost) = leads_to.subtract(gone) else {
            return Err(Error::data("a row of a lookup has gone that was never there"));
        };
        lost.dedup();
        lost.retain(|text| !leads_to.contains(text.as_text()));
        let now = leads_to.len();
        self.bytes = (self.bytes + now * LEAD_BYTES).saturating_sub(before * LEAD_BYTES);
        // First what comes, so that what is in both never goes.
        self.support(stage + 1, new);
        self.release(stage + 1, lost);
        Ok(())
    }

    fn node(&mut self, stage: usize, lookup: &ConfigLookup) -> Option<&mut Node> {
        match &mut self.links.get_mut(stage)?.nodes {
            Nodes::Lookups { nodes, .. } => nodes.get_mut(lookup),
            Nodes::Parameters(_) => None,
        }
    }

    /// One lookup more leads to each of these, which are in order.
    fn support(&mut self, stage: usize, texts: Vec<SharedText>) {
        match &mut self.links[stage].nodes {
            Nodes::Parameters(found) => {
                for text in texts.iter().filter(|text| !found.contains(text.as_text())) {
                    self.bytes += text.as_text().len() + LINK_BYTES;
                    self.changed.entry(text.as_text().clone()).or_insert(false);
                }
                found.add(texts);
            }
            Nodes::Lookups { index, nodes } => {
                for text in texts {
                    let lookup = ConfigLookup { index: *index, values: text.as_text().clone() };
                    let node = nodes.entry(lookup.clone()).or_default();
                    node.support += 1;
                    if node.support == 1 {
                        self.bytes += lookup.values.len() + LINK_BYTES;
                        self.moved.insert(lookup.clone());
                        self.open.insert((stage, lookup));
                    }
                }
            }
        }
    }

    /// One lookup less leads to each of these, which are in order.
    fn release(&mut self, stage: usize, texts: Vec<SharedText>) {
        match &mut self.links[stage].nodes {
            Nodes::Parameters(found) => {
                let texts = texts.iter().map(|text| text.as_text().clone()).collect();
                let taken = found.subtract(texts).unwrap_or_default();
                for text in taken.iter().filter(|text| !found.contains(text.as_text())) {
                    self.bytes = self.bytes.saturating_sub(text.as_text().len() + LINK_BYTES);
                    self.changed.entry(text.as_text().clone()).or_insert(true);
                }
            }
            Nodes::Lookups { index, nodes } => {
                let mut orphans = Vec::new();
                for text in texts {
                    let lookup = ConfigLookup { index: *index, values: text.as_text().clone() };
                    let Some(node) = nodes.get_mut(&lookup) else { continue };
                    node.support -= 1;
                    if node.support == 0 {
                        let leads_to = std::mem::take(&mut node.leads_to).unwrap_or_default();
                        nodes.remove(&lookup);
                        let bytes = lookup.values.len() + LINK_BYTES + leads_to.len() * LEAD_BYTES;
                        self.bytes = self.bytes.saturating_sub(bytes);
                        self.open.remove(&(stage, lookup.clone()));
                        self.moved.insert(lookup);
                        orphans.push(leads_to);
                    }
                }
                for leads_to in orphans {
                    let mut texts: Vec<_> = leads_to.into_iter().collect();
                    texts.dedup();
                    // As deep as there are lookups in the query.
                    self.release(stage + 1, texts);
                }
            }
        }
    }

    /// What it holds, about.
    pub(super) fn size(&self) -> usize {
        self.bytes
    }

    /// Whether it depends on the rows of a lookup.
    pub(super) fn uses(&self, lookup: &ConfigLookup) -> bool {
        self.lookup_nodes().any(|nodes| nodes.contains_key(lookup))
    }

    /// The lookups that it depends on; one may come once for each stage.
    pub(super) fn lookups(&self) -> impl Iterator<Item = &ConfigLookup> {
        self.lookup_nodes().flat_map(BTreeMap::keys)
    }

    fn lookup_nodes(&self) -> impl Iterator<Item = &BTreeMap<ConfigLookup, Node>> {
        self.links.iter().filter_map(|link| match &link.nodes {
            Nodes::Lookups { nodes, .. } => Some(nodes),
            Nodes::Parameters(_) => None,
        })
    }

    /// The rows of a lookup are not known any more. Whether it depends on them.
    pub(super) fn reopen(&mut self, lookup: &ConfigLookup) -> bool {
        let mut any = false;
        for (stage, link) in self.links.iter().enumerate() {
            if let Nodes::Lookups { nodes, .. } = &link.nodes
                && nodes.contains_key(lookup)
            {
                self.open.insert((stage, lookup.clone()));
                any = true;
            }
        }
        any
    }

    /// The same of all lookups. Whether there are any.
    pub(super) fn reopen_all(&mut self) -> bool {
        for (stage, link) in self.links.iter().enumerate() {
            if let Nodes::Lookups { nodes, .. } = &link.nodes {
                self.open.extend(nodes.keys().map(|lookup| (stage, lookup.clone())));
            }
        }
        !self.open.is_empty()
    }

    /// Whether a bucket was found.
    pub(super) fn contains(&self, parameters: &ByteString) -> bool {
        !self.over && self.found().contains(parameters)
    }

    /// The parameters of all buckets that were found, in order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &ByteString> {
        (!self.over).then(|| self.found().distinct().map(SharedText::as_text)).into_iter().flatten()
    }

    fn found(&self) -> &SortedList<SharedText> {
        static NONE: SortedList<SharedText> = SortedList::new();
        match self.links.last().map(|link| &link.nodes) {
            Some(Nodes::Parameters(found)) => found,
            _ => &NONE,
        }
    }

    /// Why it finds nothing, if it would find too much.
    pub(super) fn failure(&self, budget: &Budget) -> Option<Failure> {
        let found = self.found();
        // Those that several lookups lead to are counted once, if it comes to that.
        let is_over = found.len() > budget.combinations && found.distinct().count() > budget.combinations;
        is_over.then(|| too_many(budget))
    }

    /// What has changed since this was last asked.
    pub(super) fn take_changes(&mut self, budget: &Budget) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        let lookups = std::mem::take(&mut self.moved);
        let is_over = self.failure(budget).is_some();
        let was_over = std::mem::replace(&mut self.over, is_over);
        let flipped = |text: &ByteString, before: bool| (before && !was_over) != self.contains(text);
        let of_changed = changed.iter().filter(|(text, before)| flipped(text, **before)).map(|(text, _)| text);
        let mut parameters: Vec<_> = of_changed.cloned().collect();
        if was_over != is_over {
            let found = self.found().distinct().map(SharedText::as_text);
            let others = found.filter(|text| !changed.contains_key(*text) && flipped(text, true));
            parameters.extend(others.cloned());
        }
        Changes { parameters, lookups }
    }
}

impl Link {
    /// How many keys, or parameters, each row leads to.
    fn width(&self) -> usize {
        self.parts.iter().fold(1, |width, part| match part {
            Part::Values(values) => width.saturating_mul(values.len()),
            Part::Output(_) => width,
        })
    }

    /// The keys, or parameters, that a row of the stage before leads to, as compact JSON arrays.
    fn texts(&self, row: &[ByteString], into: &mut Vec<ByteString>) -> Result<(), Failure> {
        let mut texts = vec!["[".to_owned()];
        for (at, part) in self.parts.iter().enumerate() {
            let values = match part {
                Part::Values(values) => values.as_slice(),
                Part::Output(output) => row.get(*output).map(std::slice::from_ref).ok_or_else(|| {
                    Failure::new("bad-lookup", "an answer to a lookup has fewer columns than its index")
                })?,
            };
            let separator = if at > 0 { "," } else { "" };
            if let [value] = values {
                for text in &mut texts {
                    text.push_str(separator);
                    text.push_str(value);
                }
                continue;
            }
            let with =
                |head: &String| values.iter().map(|value| format!("{head}{separator}{value}")).collect::<Vec<_>>();
            texts = texts.iter().flat_map(with).collect();
        }
        into.extend(texts.into_iter().map(|text| ByteString::from(text + "]")));
        Ok(())
    }
}
