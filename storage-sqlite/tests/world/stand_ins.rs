//! What a store draws at random or takes from the time of day, and what the world is told instead: the same in every run.

use std::collections::BTreeMap;
use std::sync::Arc;

use syncline_core::{Checkpoint, ClientKey, Clock, Generation, MarkerToken, WriteCheckpoint};

/// The stand-ins of one store. They outlive its processes.
#[derive(Debug)]
pub(crate) struct StandIns {
    clock: Arc<dyn Clock>,
    chance: u64,
    generations: BTreeMap<u32, Generation>,
    tokens: BTreeMap<MarkerToken, MarkerToken>,
    /// The store's own tokens by their stand-ins.
    real_tokens: BTreeMap<MarkerToken, MarkerToken>,
    numbers: BTreeMap<ClientKey, BTreeMap<WriteCheckpoint, WriteCheckpoint>>,
}

impl StandIns {
    pub(crate) fn new(clock: Arc<dyn Clock>, chance: u64) -> Self {
        Self {
            clock,
            chance,
            generations: BTreeMap::new(),
            tokens: BTreeMap::new(),
            real_tokens: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    pub(crate) fn generation(&mut self, real: Generation) -> Generation {
        let next = self.generations.len() as u64;
        *self.generations.entry(real.0).or_insert_with(|| {
            let mixed = (self.chance + next).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            Generation(u32::try_from(mixed).unwrap())
        })
    }

    pub(crate) fn checkpoint(&mut self, real: Checkpoint) -> Checkpoint {
        Checkpoint { generation: self.generation(real.generation), ..real }
    }

    pub(crate) fn token(&mut self, real: MarkerToken) -> MarkerToken {
        let next = self.tokens.len();
        let token = self.tokens.entry(real.clone()).or_insert_with(|| MarkerToken(format!("marker-{next}").into()));
        self.real_tokens.insert(token.clone(), real);
        token.clone()
    }

    /// The store's own token.
    pub(crate) fn real_token(&self, token: MarkerToken) -> MarkerToken {
        self.real_tokens.get(&token).cloned().unwrap_or(token)
    }

    /// Numbers in the order of the store's own, from the world's time of day on.
    pub(crate) fn given(&mut self, client: &ClientKey, real: WriteCheckpoint) -> WriteCheckpoint {
        let now = self.clock.wall().0;
        let numbers = self.numbers.entry(client.clone()).or_default();
        let last = numbers.last_key_value().map_or(0, |(_, last)| last.0);
        *numbers.entry(real).or_insert(WriteCheckpoint(now.max(last + 1)))
    }

    /// The number that stands for one which was given.
    pub(crate) fn shown(&self, client: &ClientKey, real: WriteCheckpoint) -> WriteCheckpoint {
        let given = self.numbers.get(client).and_then(|numbers| numbers.get(&real));
        *given.unwrap_or_else(|| panic!("write checkpoint {real} of {client:?} was never given"))
    }
}
