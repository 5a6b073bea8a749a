//! What one querier finds for one subscription, and what has changed of it.

use std::collections::BTreeSet;

use bytestring::ByteString;

use super::chain::{Chain, Changes};
use super::evaluate::Failure;
use super::plan::Querier;
use super::querying::{Answers, ConfigLookup, Querying, Stop};
use super::request::Budget;
use super::shared_text::SharedTexts;
use super::wish::Wish;
use crate::error::Result;

/// One querier at work for one subscription.
#[derive(Debug, Default)]
pub(super) enum Finder {
    /// It has not begun.
    #[default]
    New,
    /// It follows changes by their differences.
    Chain(Box<Chain>),
    /// It finds everything again whenever something has changed.
    Whole {
        found: Option<Found>,
        /// What it had found when it was last asked for changes.
        told: Option<Found>,
    },
}

/// Lookups whose rows are not known any more.
#[derive(Debug, Default)]
pub(super) struct Reopened {
    /// All their rows are needed.
    pub(super) whole: BTreeSet<ConfigLookup>,
    /// It is enough to know what has changed.
    pub(super) differences: BTreeSet<ConfigLookup>,
}

#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sorted, each once.
    parameters: Vec<ByteString>,
    /// Why there may be more.
    failure: Option<String>,
    used: BTreeSet<ConfigLookup>,
}

impl Finder {
    /// Whether everything is found that there is now.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::New => false,
            Self::Chain(chain) => chain.is_done(),
            Self::Whole { found, .. } => found.is_some(),
        }
    }

    /// Goes on as far as answers are there; what is missing is added to `missing`. Answers with why nothing can be found, if
    /// that is so.
    ///
    /// # Errors
    /// `Data` if an answer cannot be one of its index.
    pub(super) fn advance(
        &mut self,
        querier: &Querier,
        wish: Wish<'_>,
        texts: &SharedTexts,
        answers: &Answers,
        missing: &mut BTreeSet<ConfigLookup>,
    ) -> Result<Option<Failure>> {
        if matches!(self, Self::New) {
            let chain = Chain::fits(querier).then(|| Chain::begin(querier, &wish, texts));
            *self = match chain {
                Some(Ok(chain)) => Self::Chain(Box::new(chain)),
                Some(Err(failure)) => return Ok(Some(self.fail(failure, BTreeSet::new(), wish.budget))),
                None => Self::Whole { found: None, told: None },
            };
        }
        match self {
            Self::New => Ok(None),
            Self::Chain(chain) => {
                chain.advance(answers, wish.budget, missing)?;
                Ok(if chain.is_done() { chain.failure(wish.budget) } else { None })
            }
            Self::Whole { found, .. } => {
                let mut querying = Querying { querier, wish, answers, used: BTreeSet::new() };
                let result = querying.parameters();
                let used = querying.used;
                match result {
                    Ok(mut parameters) => {
                        parameters.sort_unstable();
                        parameters.dedup();
                        *found = Some(Found { parameters, failure: None, used });
                        Ok(None)
                    }
                    Err(Stop::Failure(failure)) => Ok(Some(self.fail(failure, used, wish.budget))),
                    Err(Stop::Missing(lookups)) => {
                        missing.extend(lookups);
                        Ok(None)
                    }
                }
            }
        }
    }

    fn fail(&mut self, failure: Failure, used: BTreeSet<ConfigLookup>, budget: &Budget) -> Failure {
        budget.spend(failure.message.len());
        let told = match std::mem::take(self) {
            Self::Whole { told, .. } => told,
            Self::New | Self::Chain(_) => None,
        };
        let found = Found { parameters: Vec::new(), failure: Some(failure.message.clone()), used };
        *self = Self::Whole { found: Some(found), told };
        failure
    }

    /// The rows of these lookups are not known any more; `None` stands for all. Those that it depends on are added to
    /// `asked`; whether there are any.
    pub(super) fn forget(&mut self, changed: Option<&BTreeSet<ConfigLookup>>, asked: &mut Reopened) -> bool {
        match self {
            Self::New => false,
            Self::Chain(chain) => match changed {
                None => {
                    asked.whole.extend(chain.lookups().cloned());
                    chain.reopen_all()
                }
                Some(changed) => {
                    let used: Vec<_> = changed.iter().filter(|lookup| chain.reopen(lookup)).collect();
                    asked.differences.extend(used.iter().copied().cloned());
                    !used.is_empty()
                }
            },
            Self::Whole { found, told } => {
                let Some(known) = found else { return false };
                let used = |lookup: &&ConfigLookup| known.used.contains(*lookup);
                let mut lookups = match changed {
                    None => known.used.clone(),
                    Some(changed) => changed.iter().filter(used).cloned().collect(),
                };
                if lookups.is_empty() {
                    return false;
                }
                asked.whole.append(&mut lookups);
                let before = found.take();
                if told.is_none() {
                    *told = before;
                }
                true
            }
        }
    }

    /// Whether it has found a bucket.
    pub(super) fn contains(&self, parameters: &ByteString) -> bool {
        match self {
            Self::New => false,
            Self::Chain(chain) => chain.contains(parameters),
            Self::Whole { found, .. } => {
                found.as_ref().is_some_and(|found| found.parameters.binary_search(parameters).is_ok())
            }
        }
    }

    /// The parameters of the buckets that it has found, in order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &ByteString> {
        let (chain, found) = self.parts();
        let of_chain = chain.map(|chain| chain.parameters()).into_iter().flatten();
        of_chain.chain(found.map(|found| &found.parameters).into_iter().flatten())
    }

    /// Why there may be more.
    pub(super) fn failure(&self, budget: &Budget) -> Option<String> {
        match self.parts() {
            (Some(chain), _) => chain.failure(budget).map(|failure| failure.message),
            (None, found) => found.and_then(|found| found.failure.clone()),
        }
    }

    /// Whether what it has found depends on the rows of a lookup.
    pub(super) fn uses(&self, lookup: &ConfigLookup) -> bool {
        match self.parts() {
            (Some(chain), _) => chain.uses(lookup),
            (None, found) => found.is_some_and(|found| found.used.contains(lookup)),
        }
    }

    /// The lookups that what it has found depends on.
    pub(super) fn lookups(&self) -> impl Iterator<Item = &ConfigLookup> {
        let (chain, found) = self.parts();
        let of_chain = chain.map(|chain| chain.lookups()).into_iter().flatten();
        of_chain.chain(found.map(|found| &found.used).into_iter().flatten())
    }

    /// The bytes that it keeps from one resolution to the next, about.
    pub(super) fn size(&self) -> usize {
        self.parts().0.map_or(0, Chain::size)
    }

    /// Lookups whose answers it needs again when others change.
    pub(super) fn needed_again(&self) -> Option<&BTreeSet<ConfigLookup>> {
        self.parts().1.map(|found| &found.used).filter(|used| used.len() > 1)
    }

    fn parts(&self) -> (Option<&Chain>, Option<&Found>) {
        match self {
            Self::New => (None, None),
            Self::Chain(chain) => (Some(chain), None),
            Self::Whole { found, .. } => (None, found.as_ref()),
        }
    }

    /// What has changed since this was last asked, or since the beginning.
    pub(super) fn take_changes(&mut self, budget: &Budget) -> Changes {
        match self {
            Self::New => Changes::default(),
            Self::Chain(chain) => chain.take_changes(budget),
            Self::Whole { found, told } => {
                let Some((told, found)) = told.take().zip(found.as_ref()) else { return Changes::default() };
                let gone = difference(&told.parameters, &found.parameters);
                let come = difference(&found.parameters, &told.parameters);
                let parameters = gone.chain(come).cloned().collect();
                let lookups = told.used.symmetric_difference(&found.used).cloned().collect();
                Changes { parameters, lookups }
            }
        }
    }
}

/// What is in one sorted list and not in another.
fn difference<'a>(one: &'a [ByteString], other: &'a [ByteString]) -> impl Iterator<Item = &'a ByteString> {
    let mut rest = other.iter().peekable();
    one.iter().filter(move |text| {
        while rest.next_if(|known| *known < *text).is_some() {}
        rest.next_if(|known| *known == *text).is_none()
    })
}
