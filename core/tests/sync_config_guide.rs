//! The user's guide: every config in it compiles, and what it shows of errors is what one sees.

use syncline_core::{EditorDiagnostic, SourceSchema, SyncConfig};

const GUIDE: &str = include_str!("../../docs/sync-config.md");

// region: check
fn check(text: &str) -> String {
    match SyncConfig::parse(text) {
        Ok(config) => config.warnings().iter().map(|warning| format!("{}\n", warning.message)).collect(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}
// endregion: check

// region: editor
fn shown(text: &str, schema: &SourceSchema) -> Vec<EditorDiagnostic> {
    match SyncConfig::parse_with_schema(text, schema) {
        Ok(config) => EditorDiagnostic::all(text, config.warnings()),
        Err(diagnostics) => EditorDiagnostic::all(text, &diagnostics),
    }
}
// endregion: editor

#[test]
fn an_editor_is_shown_errors_and_warnings() {
    let schema = SourceSchema::new().table("public", "lists", ["id"]);
    let codes = |text| shown(text, &schema).iter().map(|one| one.code).collect::<Vec<_>>();
    assert_eq!(codes("config: { edition: 3 }\nstreams: { s: { query: SELECT * FROM lits } }"), ["table-not-found"]);
    assert_eq!(codes("config: { edition: 3 }\nstreams: { s: { qery: SELECT * FROM lists } }").len(), 2);
}

fn blocks<'a>(language: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    GUIDE.split("\n```").filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

#[test]
fn every_config_of_the_guide_compiles_without_a_warning() {
    let configs: Vec<_> = blocks("yaml").collect();
    assert!(configs.len() >= 7, "the guide has lost its examples");
    for config in configs {
        assert_eq!(check(config), "", "{config}");
    }
}

#[test]
fn the_error_of_the_guide_is_what_one_sees() {
    let shown =
        check("config: { edition: 3 }\nstreams:\n  s:\n    qeury: SELECT * FROM lists\n    query: SELECT * FROM t\n");
    let block = blocks("text").next().unwrap_or_default();
    assert_eq!(shown.trim(), block.trim());
}
