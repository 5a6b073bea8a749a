//! Carrying out a scenario.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::super::link::Mode;
use super::super::oracle::{Failure, Rule};
use super::super::process::Process;
use super::super::simulation::Simulation;
use super::super::stores::WorldStores;
use super::action::{Action, NetworkFault};
use super::{Report, Scenario, rule};
use crate::bucket::BucketPriority;
use crate::config::{StreamSubscription, SyncConfig};
use crate::identity::Identity;

/// Everything is in order so long after the end of all faults, in milliseconds.
const CURRENT_WITHIN: u64 = 30_000;
/// The same if nobody tells a client that its connection died: it learns that by silence.
const CURRENT_AFTER_SILENCE: u64 = 90_000;
/// An action comes so much later than planned, at most.
const NUDGED_BY: u64 = 50;
/// How often that is looked at.
const LOOK_EVERY: u64 = 250;

pub(super) fn run(scenario: &Scenario, stores: &Arc<dyn WorldStores>) -> Report {
    let mut run = Run::new(scenario, Arc::clone(stores));
    // A panic of the code under test is a failure like any other, and its seed is worth as much.
    let outcome = catch_unwind(AssertUnwindSafe(|| run.all()));
    let failure = match outcome {
        Ok(outcome) => outcome.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Failure { invariant: "panic", what: text.unwrap_or_default() })
        }
    };
    let Run { world, healed_in, .. } = run;
    let actions = scenario.steps.iter().map(|step| format!("{:>8} ms  {}", step.at, step.action));
    Report {
        seed: scenario.seed,
        failure,
        timeline: world.timeline.to_string(),
        fingerprint: world.timeline.fingerprint(),
        steps: world.steps,
        healed_in,
        actions: actions.collect(),
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    world: Simulation,
    /// The other config is deployed.
    switched: bool,
    healed_in: u64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, stores: Arc<dyn WorldStores>) -> Self {
        let config = SyncConfig::parse(rule::CONFIG).unwrap_or_else(|problems| panic!("{problems}"));
        let setup = &scenario.setup;
        let mut world = Simulation::new(config, scenario.seed, Some(rule::rows), stores);
        world.compact_every = Some(Duration::from_secs(setup.compact_every_s));
        world.limit_tokens(setup.token_life_s.map(Duration::from_secs));
        Self { scenario, world, switched: false, healed_in: 0 }
    }

    fn all(&mut self) -> Result<(), Failure> {
        let setup = &self.scenario.setup;
        for rows in setup.rows_before.chunks(7) {
            self.world.commit(rows);
        }
        self.world.start_replicator();
        self.world.start_server();
        for (user, team) in &setup.clients {
            let client = self.world.add_client(Identity::new(user.as_str()).claim("team", team.as_str()));
            self.world.start_client(client);
        }
        for step in &self.scenario.steps {
            self.world.run_until(step.at)?;
            for _ in 0..step.nudge {
                // When nothing goes on there is no middle of it, either.
                self.world.step(step.at + NUDGED_BY)?;
            }
            self.act(&step.action)?;
        }
        self.end_faults();
        self.recover()
    }

    fn act(&mut self, action: &Action) -> Result<(), Failure> {
        let world = &mut self.world;
        match action {
            Action::Commit(changes) => world.commit(changes),
            Action::Write(client, writes) => return world.write(*client, writes.clone()),
            Action::Subscribe(client, list, priority) => {
                let parameters = [("list".to_owned(), Json::String(list.clone()))].into_iter().collect();
                let subscription = StreamSubscription {
                    stream: "items".to_owned(),
                    parameters: Some(parameters),
                    override_priority: priority.map(BucketPriority),
                };
                let known = |one: &StreamSubscription| one.parameters == subscription.parameters;
                if !world.ends[*client].subscriptions.iter().any(|(one, _)| known(one)) {
                    world.subscribe(*client, subscription);
                }
            }
            Action::Unsubscribe(client, index) => world.unsubscribe(*client, *index),
            Action::Crash(process) => world.crash(*process),
            Action::CrashAmid(process) => {
                world.faults.lock().doomed.insert(*process);
            }
            Action::Restart(process) => world.restart(*process),
            Action::Network(client, fault) => self.network(*client, *fault),
            Action::SourceAway(away) => world.faults.set(|faults| faults.source_away = *away),
            Action::SourceCut => world.faults.set(|faults| faults.source_cuts += 1),
            Action::DropSlot => world.database.drop_slot(),
            Action::SwitchConfig => self.switch_config(),
            Action::Reword(revision) => self.reword(*revision),
            Action::ReadAnew(table) => world.database.read_anew(table),
            Action::MarkerAnswersLost(lost) => world.faults.set(|faults| faults.marker_answers_lost = *lost),
            Action::BucketDisk(delay, fails) => world.faults.set(|faults| {
                (faults.store_delay, faults.store_fails) = (*delay, *fails);
            }),
            Action::DeviceDisk(delay, fails) => world.faults.set(|faults| {
                (faults.device_delay, faults.device_fails) = (*delay, *fails);
            }),
            Action::SignalsLost(lost) => world.faults.set(|faults| faults.signals_lost = *lost),
            Action::ServerClock(offset) => world.server_wall.set(*offset),
            Action::ClientClock(client, offset) => world.ends[*client].wall.set(*offset),
        }
        self.world.ledger.note(format!("— {action}"));
        self.world.observe()
    }

    fn switch_config(&mut self) {
        for process in [Process::Replicator, Process::Server] {
            self.world.crash(process);
        }
        let (text, rule): (_, Rule) = match self.switched {
            false => (rule::OTHER_CONFIG, rule::rows_of_other),
            true => (rule::CONFIG, rule::rows),
        };
        self.switched = !self.switched;
        let config = SyncConfig::parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        self.world.switch_config(config, Some(rule));
        self.world.restart(Process::Host);
    }

    fn reword(&mut self, revision: u64) {
        for process in [Process::Replicator, Process::Server] {
            self.world.crash(process);
        }
        let (text, rule): (_, Rule) = match self.switched {
            false => (rule::CONFIG, rule::rows),
            true => (rule::OTHER_CONFIG, rule::rows_of_other),
        };
        let text = format!("# revision {revision}{text}");
        let config = SyncConfig::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        self.world.reword_config(config, Some(rule));
        self.world.restart(Process::Host);
    }

    fn network(&mut self, client: usize, fault: NetworkFault) {
        let link = &self.world.ends[client].link;
        match fault {
            NetworkFault::Up => {
                let mut state = link.lock();
                (state.answers_lost, state.repeats, state.damages, state.delay) = (0, 0, 0, 5);
                drop(state);
                link.set_mode(Mode::Up);
            }
            NetworkFault::Cut => link.set_mode(Mode::Cut),
            NetworkFault::Silent => link.set_mode(Mode::Silent),
            NetworkFault::HalfOpen => link.kill_silently(),
            NetworkFault::Slow(delay) => link.lock().delay = delay,
            NetworkFault::Unreliable(answers_lost, repeats, damages) => {
                let mut state = link.lock();
                (state.answers_lost, state.repeats, state.damages) = (answers_lost, repeats, damages);
            }
        }
    }

    /// Everything works again, except for a client that has stalled.
    fn end_faults(&mut self) {
        self.world.ledger.note("— all faults end");
        self.world.faults.set(|faults| {
            faults.source_away = false;
            (faults.marker_answers_lost, faults.store_fails, faults.device_fails, faults.signals_lost) = (0, 0, 0, 0);
            (faults.store_delay, faults.device_delay) = (1, 1);
            faults.doomed.clear();
        });
        self.world.server_wall.set(0);
        for client in 0..self.world.ends.len() {
            self.world.ends[client].wall.set(0);
            let fault =
                if self.scenario.setup.stalled == Some(client) { NetworkFault::Silent } else { NetworkFault::Up };
            self.network(client, fault);
            if self.scenario.setup.faults_end_in_sight {
                self.world.ends[client].link.reset();
            }
        }
        for process in self.world.down.clone() {
            self.world.restart(process);
        }
    }

    /// Within a bound everybody is current, and stays so.
    fn recover(&mut self) -> Result<(), Failure> {
        let began = self.world.time.now();
        let stalled = self.scenario.setup.stalled;
        self.wait(began, stalled)?;
        self.healed_in = self.world.time.now() - began;
        if let Some(client) = stalled {
            self.network(client, NetworkFault::Up);
            self.world.ends[client].link.reset();
            self.wait(self.world.time.now(), None)?;
        }
        self.world.ask(|oracle, view| oracle.c2_every_write_has_come_to_an_end(view))
    }

    fn wait(&mut self, began: u64, stalled: Option<usize>) -> Result<(), Failure> {
        let in_sight = self.scenario.setup.faults_end_in_sight;
        let limit = began + if in_sight { CURRENT_WITHIN } else { CURRENT_AFTER_SILENCE };
        loop {
            let now = self.world.time.now();
            let verdict = self.is_in_order(stalled);
            if verdict.is_ok() || now >= limit {
                return verdict;
            }
            self.world.run_until((now + LOOK_EVERY).min(limit))?;
        }
    }

    fn is_in_order(&mut self, stalled: Option<usize>) -> Result<(), Failure> {
        let clients = self.world.clients.len();
        self.world.ask(|oracle, view| {
            oracle.s10_every_commit_is_published(view)?;
            for client in (0..clients).filter(|client| Some(*client) != stalled) {
                match stalled {
                    None => oracle.c5_a_client_is_current(view, client)?,
                    Some(stalled) => oracle.s9_nobody_waits_for_a_stalled_client(view, client, stalled)?,
                }
            }
            Ok(())
        })
    }
}
