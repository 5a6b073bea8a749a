//! The mapping of types that a config asks for.

use syncline_core::{ErrorKind, TableSelection};

use super::Findings;

/// Refuses every mapping but the one that this source has, so that no client gets values of another form than its config says.
pub(crate) fn check_values(selection: &TableSelection, findings: &mut Findings) {
    let values = &selection.values;
    if values.is_default() {
        return;
    }
    let mut changes = Vec::new();
    if !values.iso8601_timestamps {
        changes.push("set `timestamps_iso8601: true`");
    }
    if !values.custom_types {
        changes.push("set `custom_postgres_types: true`");
    }
    if values.max_precision.is_some() {
        changes.push("remove `timestamp_max_precision`");
    }
    let message = format!(
        "the sync config asks for another mapping of types than this source has: under `config`, {} (`edition: 2` and \
         `edition: 3` have this mapping by themselves)",
        changes.join(", ")
    );
    findings.add(ErrorKind::Invalid, message);
}

#[cfg(test)]
mod tests {
    use syncline_core::SyncConfig;

    use super::*;

    fn problem(config: &str) -> Option<String> {
        let config = format!("{config}\nbucket_definitions: {{ all: {{ data: [SELECT * FROM lists] }} }}");
        let config = SyncConfig::parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
        let mut findings = Findings::default();
        check_values(config.selection(), &mut findings);
        findings.finish().err().map(|error| error.message().to_owned())
    }

    #[test]
    fn only_the_mapping_of_editions_2_and_3_is_read() {
        assert_eq!(problem("config: { edition: 2 }"), None);
        assert_eq!(problem("config: { timestamps_iso8601: true, custom_postgres_types: true }"), None);
        assert_eq!(problem("config: { edition: 2, timestamp_max_precision: nanoseconds }"), None);
        for (config, change) in [
            ("", "set `timestamps_iso8601: true`, set `custom_postgres_types: true`"),
            ("config: { edition: 2, custom_postgres_types: false }", "set `custom_postgres_types: true`"),
            ("config: { edition: 2, timestamp_max_precision: seconds }", "remove `timestamp_max_precision`"),
        ] {
            let problem = problem(config).unwrap_or_default();
            assert!(problem.contains(&format!("under `config`, {change} (")), "{config}: {problem}");
        }
    }
}
