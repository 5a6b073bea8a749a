//! What a request asks for again when something that it looked up has changed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use syncline_core::{ConfigLookup, ConfigRequest, Identity, LookupRows, RequestResolver, ResolveStep, SyncConfig};

const SYNC_CONFIG: &str = "
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

fn resolver() -> RequestResolver {
    let config = SyncConfig::parse(SYNC_CONFIG).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let (identity, parameters) = (Identity::new("anna"), serde_json::Map::new());
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
            ResolveStep::Lookups(wanted) => {
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
    let mut resolver = resolver();
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
    let config = SYNC_CONFIG.to_owned()
        + "
  notes:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE topic IN (SELECT id FROM topics WHERE team IN (SELECT team FROM teams WHERE user_id = auth.user_id()))
";
    let config = SyncConfig::parse(&config).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let (identity, parameters) = (Identity::new("anna"), serde_json::Map::new());
    let request =
        ConfigRequest { identity: &identity, parameters: &parameters, include_defaults: true, subscriptions: &[] };
    let mut resolver = config.resolver(&request, 1_000);
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
                ResolveStep::Lookups(wanted) => {
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
    let mut resolver = resolver();
    let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("it asks for the organisations") };
    resolver.answer(wanted, vec![rows("[\"anna\"]", &["a", "b"])]).unwrap();
    let ResolveStep::Lookups(wanted) = resolver.poll().unwrap() else { panic!("it asks for their projects") };
    assert_eq!(wanted.len(), 2);
    // Another checkpoint: nobody has watched what was asked for so far.
    assert!(resolver.invalidate(&BTreeSet::new()));
    let (asked, buckets) = resolve(&mut resolver, &["c"]);
    assert_eq!((asked, buckets), (vec!["[\"anna\"]".into(), "[\"c\"]".into()], 1));
}
