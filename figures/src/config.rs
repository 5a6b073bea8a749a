//! The sync config alone, in memory: rows evaluated, requests resolved, and what buckets weigh.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Map;
use syncline_core::{
    ConfigLookup, ConfigRequest, Evaluation, Identity, LookupRows, ResolveStep, ResolvedRequest, SourceColumn,
    SourceTable, SyncConfig, TableId, Value,
};

use crate::bench::{Bench, resident};
use crate::errand::{Errand, Process};
use crate::figure::{Figure, Name, median};

/// How long one run lasts, about.
const RUN: Duration = Duration::from_millis(500);
const STREAMS: usize = 20;
const COLUMNS: usize = 30;
const LOOKUPS: usize = 1_000;
const BUCKETS: usize = 100_000;

/// Rows of a table that one of twenty streams reads, with thirty columns.
pub(crate) fn evaluate(bench: &Bench) -> Result<Figure> {
    let mut text = String::from("config: { edition: 3 }\nstreams:\n");
    for stream in 0..STREAMS {
        text.push_str(&format!(
            "  s{stream}: {{ auto_subscribe: true, query: SELECT * FROM t{stream} WHERE owner = auth.user_id() AND NOT archived }}\n"
        ));
    }
    let config = parse(&text)?;
    let mut names = vec!["id".to_owned(), "owner".to_owned(), "archived".to_owned()];
    names.extend((names.len()..COLUMNS).map(|number| format!("column_{number}")));
    let column =
        |name: &String| SourceColumn { name: name.as_str().into(), key: name == "id", type_name: "text".into() };
    let columns = names.iter().map(column).collect();
    let table = SourceTable { id: TableId(1), schema: "public".into(), name: "t7".into(), columns };
    let evaluator = config.bind(&table);
    let mut values = vec![Value::text("0a1b2c3d-0000-4000-8000-000000000001"), Value::text("anna"), Value::Integer(0)];
    values.extend((3..COLUMNS).map(|number| match number % 3 {
        0 => Value::Integer(number as i64),
        1 => Value::Null,
        _ => Value::text(format!("the text of column {number}")),
    }));
    let mut evaluation = Evaluation::new();
    let rate = rate(bench, || {
        evaluation.clear();
        evaluator.evaluate(black_box(&values), &mut evaluation);
        ensure!(evaluation.rows.len() == 1, "the row is in one bucket");
        Ok(())
    })?;
    let note = format!("{STREAMS} streams, one matches; {COLUMNS} columns; against the aim, one core");
    Ok(Figure::against(Name::Evaluate, rate, 1_000_000.0, note))
}

/// Requests that make a thousand lookups each, against the same lookups alone.
pub(crate) fn resolve(bench: &Bench) -> Result<Figure> {
    let config = parse(
        "config: { edition: 3 }\nstreams:\n  tasks:\n    auto_subscribe: true\n    query: >\n      SELECT tasks.* FROM tasks \
         JOIN projects ON projects.id = tasks.project JOIN members ON members.org = projects.org \
         WHERE members.user_id = auth.user_id()\n",
    )?;
    let identity = Identity::new("anna");
    let parameters = Map::new();
    let request =
        ConfigRequest { identity: &identity, parameters: &parameters, include_defaults: true, subscriptions: &[] };
    // The organisations of the user, and one project in each.
    let organisations =
        LookupRows { rows: (0..LOOKUPS - 1).map(|number| format!("[\"org{number}\"]").into()).collect() };
    let mut known: HashMap<ConfigLookup, LookupRows> = HashMap::new();
    let answer = |known: &mut HashMap<ConfigLookup, LookupRows>, wanted: &ConfigLookup| {
        let next = known.len();
        let make = || match wanted.values.contains("anna") {
            true => organisations.clone(),
            false => LookupRows { rows: vec![format!("[\"project{next}\"]").into()] },
        };
        known.entry(wanted.clone()).or_insert_with(make).clone()
    };
    let mut resolve = || -> Result<ResolvedRequest> {
        let mut resolver = config.resolver(&request, 10_000);
        loop {
            match resolver.poll()? {
                ResolveStep::Done(resolved) => return Ok(resolved),
                ResolveStep::Lookups(wanted) | ResolveStep::Changed(wanted) => {
                    let answers = wanted.iter().map(|wanted| answer(&mut known, wanted)).collect();
                    resolver.answer(wanted, answers)?;
                }
            }
        }
    };
    ensure!(resolve()?.buckets.len() == LOOKUPS - 1, "each project is a bucket");
    let ours = rate(bench, || {
        black_box(resolve()?);
        Ok(())
    })?;
    let keys: Vec<ConfigLookup> = known.keys().cloned().collect();
    ensure!(keys.len() == LOOKUPS, "there are {} lookups", keys.len());
    let alone = rate(bench, || {
        let rows: usize = keys.iter().map(|key| known.get(key).cloned().unwrap_or_default().rows.len()).sum();
        ensure!(black_box(rows) > 0, "the lookups find rows");
        Ok(())
    })?;
    Ok(Figure::against(
        Name::Resolve,
        ours,
        alone,
        format!("{LOOKUPS} lookups each; against the lookups alone, in a map"),
    ))
}

/// The memory of the buckets of one request.
pub(crate) async fn buckets(bench: &Bench) -> Result<Figure> {
    let bytes = Process::start(&Errand::Buckets { runs: bench.runs })?.says().await?;
    let note = format!("resident bytes for each of {BUCKETS} buckets of a request, while it is resolved");
    Ok(Figure::against(Name::BucketBytes, bytes, 1_024.0, note))
}

/// Resident bytes for each bucket of a request; in a process that has done nothing else.
pub(crate) fn bytes_of_buckets(runs: usize) -> Result<f64> {
    let config = parse(
        "config: { edition: 3 }\nstreams:\n  notes:\n    auto_subscribe: true\n    query: >\n      SELECT * FROM notes \
         WHERE list IN (SELECT list FROM members WHERE user_id = auth.user_id())\n",
    )?;
    let identity = Identity::new("anna");
    let parameters = Map::new();
    let request =
        ConfigRequest { identity: &identity, parameters: &parameters, include_defaults: true, subscriptions: &[] };
    let mut sizes = Vec::new();
    for _ in 0..runs {
        let before = resident()?;
        let rows = (0..BUCKETS).map(|number| format!("[\"list{number:08}\"]").into()).collect();
        let mut resolver = config.resolver(&request, BUCKETS);
        let ResolveStep::Lookups(wanted) = resolver.poll()? else { bail!("the lists must be looked up") };
        resolver.answer(wanted, vec![LookupRows { rows }])?;
        let ResolveStep::Done(resolved) = resolver.poll()? else { bail!("nothing else is looked up") };
        ensure!(resolved.buckets.len() == BUCKETS, "each list is a bucket");
        sizes.push(resident()?.saturating_sub(before) as f64 / BUCKETS as f64);
        drop((black_box(resolver), black_box(resolved)));
    }
    // The first run has what later ones find in the allocator's hands.
    Ok(sizes.into_iter().fold(1.0, f64::max))
}

fn parse(text: &str) -> Result<SyncConfig> {
    SyncConfig::parse(text).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))
}

/// How often something can be done in a second: the median of all runs.
fn rate(bench: &Bench, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..bench.runs {
        let (began, mut count) = (Instant::now(), 0u32);
        while began.elapsed() < RUN {
            for _ in 0..16 {
                work()?;
            }
            count += 16;
        }
        rates.push(f64::from(count) / began.elapsed().as_secs_f64());
    }
    Ok(median(rates))
}
