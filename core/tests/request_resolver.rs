//! What a request asks for again when something that it looked up has changed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use syncline_core::{
    ConfigLookup, ConfigRequest, Identity, LookupChange, LookupDifference, LookupRows, RequestResolver, ResolveStep,
    ResolvedChanges, SyncConfig,
};

/// Lookups that form a chain.
const CHAIN: &str = "
config: { edition: 3 }
streams:
  tasks:
    auto_subscribe: true
    query: >
      SELECT tasks.* FROM tasks
      JOIN projects ON projects.id = tasks.project
      JOIN members ON members.org = projects.org
      WHERE members.user_id = auth.user_id()
";

/// The same lookups, beside something that is no lookup: everything is found again when one of them has changed.
const WHOLE: &str = "
config: { edition: 3 }
streams:
  tasks:
    auto_subscribe: true
    query: >
      SELECT tasks.* FROM tasks
      JOIN projects ON projects.id = tasks.project
      JOIN members ON members.org = projects.org
      JOIN json_each(connection.parameter('kinds')) AS kind ON kind.value = tasks.kind
      WHERE members.user_id = auth.user_id()
";

fn parse(config: &str) -> SyncConfig {
    SyncConfig::parse(config).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn resolver(config: &SyncConfig) -> RequestResolver {
    let identity = Identity::new("anna");
    let parameters = serde_json::from_str(r#"{"kinds":["k"]}"#).unwrap();
    let request =
        ConfigRequest { identity: &identity, parameters: &parameters, include_defaults: true, subscriptions: &[] };
    config.resolver(&request, 1_000)
}

/// The organisations of the user, in each of which a project has the same name.
fn rows(key: &str, organisations: &[&str]) -> LookupRows {
    let one = |text: &str| format!("[\"{text}\"]").into();
    match key {
        "[\"anna\"]" => LookupRows { rows: organisations.iter().map(|name| one(name)).collect() },
        organisation => LookupRows { rows: vec![one(organisation.trim_matches(['[', ']', '"']))] },
    }
}

/// Resolves to the end: the keys that it asks for, and how many buckets there are.
fn resolve(resolver: &mut RequestResolver, organisations: &[&str]) -> (Vec<String>, usize) {
    let mut asked = Vec::new();
    loop {
        match resolver.poll().unwrap() {
            ResolveStep::Done(resolved) => return (asked, resolved.buckets.len()),
            ResolveStep::Lookups(wanted) | ResolveStep::Changed(wanted) => {
                let answers = wanted.iter().map(|lookup| rows(&lookup.values, organisations)).collect();
                asked.extend(wanted.iter().map(|lookup| lookup.values.to_string()));
                resolver.answer(wanted, answers).unwrap();
            }
        }
    }
}

/// The lookups that it made with a key.
fn those_of(resolver: &RequestResolver, key: &str) -> BTreeSet<ConfigLookup> {
    resolver.lookups().filter(|lookup| *lookup.values == format!("[\"{key}\"]")).cloned().collect()
}

#[test]
fn only_lookups_that_have_changed_are_asked_for_again() {
    for config in [CHAIN, WHOLE] {
        only_changed_lookups_are_asked_for(config);
    }
}

fn only_changed_lookups_are_asked_for(config: &str) {
    let mut resolver = resolver(&parse(config));
    let (asked, buckets) = resolve(&mut resolver, &["a", "b", "c"]);
    assert_eq!((asked, buckets), (vec!["[\"anna\"]".into(), "[\"a\"]".into(), "[\"b\"]".into(), "[\"c\"]".into()], 3));
    assert_eq!(resolver.lookups().count(), 4);

    assert!(!resolver.invalidate(&BTreeSet::new()));
    assert_eq!(resolve(&mut resolver, &[]), (vec![], 3));

    assert!(resolver.invalidate(&those_of(&resolver, "b")));
    assert_eq!(resolve(&mut resolver, &[]), (vec!["[\"b\"]".into()], 3));

    // One has gone and one has come: the two that stay are known.
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    assert_eq!(resolve(&mut resolver, &["a", "c", "d"]), (vec!["[\"anna\"]".into(), "[\"d\"]".into()], 3));
    assert!(!resolver.invalidate(&those_of(&resolver, "b")), "it depends on what it does not ask for");

    // What it no longer asked for was not watched: it is asked for when it comes back.
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    assert_eq!(resolve(&mut resolver, &["a", "b"]), (vec!["[\"anna\"]".into(), "[\"b\"]".into()], 2));
}

/// An answer that nobody depends on is not watched: it must not be taken for one when it is needed again.
#[test]
fn what_nobody_depends_on_is_forgotten_whatever_else_is_known() {
    // Another stream with four lookups, whose answers are lost when the first one is interrupted.
    let config = WHOLE.to_owned()
        + "
  notes:
    auto_subscribe: true
    query: >
      SELECT notes.* FROM notes
      JOIN topics ON topics.id = notes.topic
      JOIN teams ON teams.team = topics.team
      JOIN json_each(connection.parameter('kinds')) AS kind ON kind.value = notes.kind
      WHERE teams.user_id = auth.user_id()
";
    let config = parse(&config);
    let mut resolver = resolver(&config);
    let teams = |key: &str, rows: LookupRows, index: usize, first: usize| match (key, index == first) {
        ("[\"anna\"]", false) => LookupRows { rows: ["x", "y", "z"].map(|team| format!("[\"{team}\"]").into()).into() },
        _ => rows,
    };
    let first = {
        let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("both ask for what anna has") };
        assert_eq!(wanted.len(), 2);
        // The one that leads to organisations is that of the first stream.
        let resolved = |index: usize| config.lookup_forms().nth(index).unwrap().contains("members");
        wanted.iter().find(|lookup| resolved(lookup.index)).unwrap().index
    };
    resolver.invalidate_all();
    let resolve = |resolver: &mut RequestResolver, organisations: &[&str]| {
        let mut asked = Vec::new();
        loop {
            match resolver.poll().unwrap() {
                ResolveStep::Done(_) => return asked,
                ResolveStep::Lookups(wanted) | ResolveStep::Changed(wanted) => {
                    let answer = |lookup: &ConfigLookup| {
                        teams(&lookup.values, rows(&lookup.values, organisations), lookup.index, first)
                    };
                    let answers = wanted.iter().map(answer).collect();
                    asked.extend(wanted.iter().map(|lookup| lookup.values.to_string()));
                    resolver.answer(wanted, answers).unwrap();
                }
            }
        }
    };
    resolve(&mut resolver, &["a", "b"]);
    let of_first = |resolver: &RequestResolver, keys: &[&str]| -> BTreeSet<ConfigLookup> {
        let known = resolver.lookups().filter(|lookup| keys.iter().any(|key| *lookup.values == format!("[\"{key}\"]")));
        known.filter(|lookup| lookup.index == first || !lookup.values.contains("anna")).cloned().collect()
    };
    // Interrupted, the first stream starts over and what the other one knew is gone.
    assert!(resolver.invalidate(&of_first(&resolver, &["b"])));
    assert!(resolver.invalidate(&BTreeSet::new()));
    resolve(&mut resolver, &["a", "b"]);
    assert_eq!(resolver.lookups().count(), 3 + 4);
    // `b` is asked for, since it changed, and is not needed any more; `c` is.
    assert!(resolver.invalidate(&of_first(&resolver, &["anna", "b"])));
    assert_eq!(resolve(&mut resolver, &["a", "c"]).len(), 3);
    assert!(resolver.invalidate(&of_first(&resolver, &["anna"])));
    assert_eq!(resolve(&mut resolver, &["a", "b"]), ["[\"anna\"]", "[\"b\"]"]);
}

#[test]
fn a_resolution_that_is_interrupted_starts_over() {
    for config in [CHAIN, WHOLE] {
        an_interrupted_resolution_starts_over(config);
    }
}

fn an_interrupted_resolution_starts_over(config: &str) {
    let mut resolver = resolver(&parse(config));
    let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("it asks for the organisations") };
    resolver.answer(wanted, vec![rows("[\"anna\"]", &["a", "b"])]).unwrap();
    let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("it asks for their projects") };
    assert_eq!(wanted.len(), 2);
    // Another checkpoint: nobody has watched what was asked for so far.
    assert!(resolver.invalidate(&BTreeSet::new()));
    let (asked, buckets) = resolve(&mut resolver, &["c"]);
    assert_eq!((asked, buckets), (vec!["[\"anna\"]".into(), "[\"c\"]".into()], 1));
}

const NOTES: &str = "
config: { edition: 3 }
streams:
  notes:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE list IN (SELECT list FROM members WHERE user_id = auth.user_id())
  shared:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE list IN (SELECT list FROM shares WHERE user_id = auth.user_id())
";

/// A user whose lists are answered: those of `members`, and those of `shares`.
struct Anna {
    resolver: RequestResolver,
    members: Vec<usize>,
    shares: Vec<usize>,
    /// Which lookup index is which.
    index_of_members: usize,
}

/// The parameters of buckets that came or changed, with the number of their reasons, and of those that have gone.
type Told = (Vec<(String, usize)>, Vec<String>);

impl Anna {
    fn new(limit: usize, members: Vec<usize>, shares: Vec<usize>) -> Self {
        let config = parse(NOTES);
        let (identity, parameters) = (Identity::new("anna"), serde_json::Map::new());
        let request =
            ConfigRequest { identity: &identity, parameters: &parameters, include_defaults: true, subscriptions: &[] };
        let index_of_members = config.lookup_forms().position(|form| form.contains("members")).unwrap();
        Self { resolver: config.resolver(&request, limit), members, shares, index_of_members }
    }

    fn changes(&mut self) -> syncline_core::Result<ResolvedChanges> {
        self.resolver.invalidate_all();
        loop {
            match self.resolver.poll_changes()? {
                ResolveStep::Done(changes) => return Ok(changes),
                ResolveStep::Lookups(wanted) | ResolveStep::Changed(wanted) => {
                    let answer = |lookup: &ConfigLookup| {
                        let of_members = lookup.index == self.index_of_members;
                        let lists = if of_members { &self.members } else { &self.shares };
                        LookupRows { rows: lists.iter().map(|list| format!("[{list}]").into()).collect() }
                    };
                    let answers = wanted.iter().map(answer).collect();
                    self.resolver.answer(wanted, answers)?;
                }
            }
        }
    }

    fn told(&mut self) -> Told {
        let changes = self.changes().unwrap();
        let buckets = changes.buckets.iter().map(|bucket| (bucket.parameters.to_string(), bucket.reasons.len()));
        (buckets.collect(), changes.gone.iter().map(|(_, parameters)| parameters.to_string()).collect())
    }
}

#[test]
fn a_change_of_rights_is_told_as_what_differs() {
    let mut anna = Anna::new(100, vec![1, 2], vec![]);
    assert_eq!(anna.told(), (vec![("[1]".into(), 1), ("[2]".into(), 1)], vec![]));
    assert_eq!(anna.told(), (vec![], vec![]));
    // Another way to the same bucket is another reason; it goes with the last one.
    (anna.members, anna.shares) = (vec![2, 3], vec![2]);
    assert_eq!(anna.told(), (vec![("[2]".into(), 2), ("[3]".into(), 1)], vec!["[1]".into()]));
    anna.members = vec![3];
    assert_eq!(anna.told(), (vec![("[2]".into(), 1)], vec![]));
    anna.shares = vec![];
    assert_eq!(anna.told(), (vec![], vec!["[2]".into()]));
}

#[test]
fn one_bucket_too_many_is_an_error_however_it_comes() {
    let mut anna = Anna::new(3, vec![1, 2], vec![1, 2]);
    assert_eq!(anna.told().0.len(), 2);
    anna.shares = vec![2, 3];
    assert_eq!(anna.told().0.len(), 2);
    anna.shares = vec![2, 3, 4];
    let error = anna.changes().unwrap_err();
    assert_eq!(error.code(), Some("PSYNC_S2305"));
    assert!(error.to_string().contains("stream `shared`"), "{error}");
    assert_eq!(anna.changes().unwrap_err().to_string(), error.to_string(), "it stays so");
    anna.shares = vec![];
    assert_eq!(anna.told().0.len(), 2, "everything is told after an error");
}

/// What one stream may have of one kind has a limit of its own, beyond which the stream has nothing and says why.
#[test]
fn a_stream_with_too_many_buckets_loses_them_all_and_gets_them_back() {
    let mut anna = Anna::new(10_000, (0..10_000).collect(), vec![5]);
    assert_eq!(anna.changes().unwrap().buckets.len(), 10_000);
    anna.members.push(10_000);
    let changes = anna.changes().unwrap();
    assert_eq!((changes.buckets.len(), changes.gone.len()), (1, 9_999));
    assert_eq!(changes.streams.iter().map(|stream| stream.errors.len()).collect::<Vec<_>>(), [1, 0]);
    anna.members.remove(7);
    let changes = anna.changes().unwrap();
    assert_eq!((changes.buckets.len(), changes.gone.len()), (10_000, 0));
    assert!(changes.streams.iter().all(|stream| stream.errors.is_empty()));
}

fn difference(gone: &[&str], come: &[&str]) -> LookupChange {
    let rows = |names: &[&str]| names.iter().map(|name| format!("[\"{name}\"]").into()).collect();
    LookupChange::Difference(LookupDifference { gone: rows(gone), come: rows(come) })
}

#[test]
fn a_difference_of_a_lookup_is_enough_for_a_chain() {
    let mut resolver = resolver(&parse(CHAIN));
    resolve(&mut resolver, &["a", "b", "b"]);
    // One of two rows that lead to `b` has gone, and nothing else is asked for.
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    let ResolveStep::Changed(wanted) = resolver.poll().unwrap() else { panic!("what has changed is enough") };
    resolver.answer(wanted, vec![difference(&["b"], &[])]).unwrap();
    assert_eq!(resolve(&mut resolver, &[]), (vec![], 2));
    // The other one too, and there is a new one, whose rows are not known: of those a difference says nothing.
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    let ResolveStep::Changed(wanted) = resolver.poll().unwrap() else { panic!("what has changed is enough") };
    resolver.answer(wanted, vec![difference(&["b"], &["c"])]).unwrap();
    let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("`c` was never answered") };
    assert_eq!(wanted.iter().map(|lookup| &*lookup.values).collect::<Vec<_>>(), ["[\"c\"]"]);
    resolver.answer(wanted.clone(), vec![difference(&[], &["c"])]).unwrap();
    assert_eq!(resolver.poll().unwrap(), ResolveStep::Lookups(wanted), "a difference from nothing is no answer");
    assert_eq!(resolve(&mut resolver, &[]), (vec!["[\"c\"]".into()], 2));
}

#[test]
fn a_row_that_goes_without_having_been_there_is_an_error() {
    let mut resolver = resolver(&parse(CHAIN));
    resolve(&mut resolver, &["a"]);
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    let ResolveStep::Changed(wanted) = resolver.poll().unwrap() else { panic!("what has changed is enough") };
    resolver.answer(wanted, vec![difference(&["b"], &[])]).unwrap();
    assert_eq!(resolver.poll().unwrap_err().kind(), syncline_core::ErrorKind::Data);
}

#[test]
fn whoever_finds_everything_again_needs_all_rows() {
    let mut resolver = resolver(&parse(WHOLE));
    resolve(&mut resolver, &["a"]);
    assert!(resolver.invalidate(&those_of(&resolver, "anna")));
    assert!(matches!(resolver.poll().unwrap(), ResolveStep::Lookups(_)));
}
