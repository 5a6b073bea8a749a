//! Diagnostics in the hands of an editor: where they point, and what their replacements do.
#![allow(clippy::unwrap_used, missing_docs)]

use syncline_core::{Diagnostic, EditorDiagnostic, EditorPosition, SourceSchema, SyncConfig};

/// Everything that is found, whether the config loads or not.
fn found(text: &str) -> Vec<Diagnostic> {
    let schema = SourceSchema::new().table("public", "lists", ["id", "owner_id", "näme"]);
    match SyncConfig::parse_with_schema(text, &schema) {
        Ok(config) => config.warnings().to_vec(),
        Err(problems) => problems.as_slice().to_vec(),
    }
}

/// The byte of a position, counted as an editor does.
fn byte(text: &str, at: EditorPosition) -> usize {
    let start = match at.line {
        0 => 0,
        line => text.match_indices('\n').nth(line - 1).unwrap().0 + 1,
    };
    let mut units = 0;
    let mut bytes = 0;
    for character in text[start..].chars() {
        if units == at.character {
            break;
        }
        units += character.len_utf16();
        bytes += character.len_utf8();
    }
    assert_eq!(units, at.character, "{at:?} is within a character");
    start + bytes
}

/// Each problem as an editor shows it: its kind and the text in its range.
fn marked(text: &str) -> Vec<(&'static str, String)> {
    let shown = EditorDiagnostic::all(text, &found(text));
    shown
        .iter()
        .map(|one| (one.code, text[byte(text, one.range.start)..byte(text, one.range.end)].to_owned()))
        .collect()
}

/// Takes every replacement, last first, as "fix all" does.
fn mended(text: &str) -> String {
    let mut text = text.to_owned();
    let mut shown = EditorDiagnostic::all(&text, &found(&text));
    shown.sort_by_key(|one| one.range.start);
    for one in shown.iter().rev() {
        if let Some(replacement) = &one.replacement {
            let range = byte(&text, one.range.start)..byte(&text, one.range.end);
            text.replace_range(range, replacement);
        }
    }
    text
}

/// A query with three problems, in every style of YAML that holds it in its own way.
fn styles() -> [String; 6] {
    let query = "SELECT id, nme FROM list WHERE owner_id = auth.user_di() AND 'ü🍎' != lowr(id)";
    let head = "# 🍎 before\nconfig: { edition: 3 }\nstreams:\n  's':\n    query: ";
    let folded = query.replace(" FROM", "\n      FROM").replace(" WHERE", "\n      WHERE");
    [
        format!("{head}{query}\n"),
        format!("{head}\"{query}\"\n"),
        format!("{head}'{}'\n", query.replace('\'', "''")),
        format!("{head}|\n      {folded}\n"),
        format!("{head}>-\n      {folded}\n"),
        format!(
            "{head}\"SELECT id, nme\\\n      \\ FROM list WHERE owner_id = auth.user_di() AND '\\xfc🍎' != lowr(id)\"\n"
        ),
    ]
}

#[test]
fn ranges_are_those_of_the_names_in_every_style() {
    for text in styles() {
        let kinds = marked(&text);
        assert!(kinds.contains(&("unknown-request-function", "auth.user_di".into())), "{text}\n{kinds:?}");
        assert!(kinds.contains(&("unknown-function", "lowr".into())), "{text}\n{kinds:?}");
        assert!(kinds.contains(&("table-not-found", "list".into())), "{text}\n{kinds:?}");
    }
}

#[test]
fn replacements_lead_to_a_config_without_problems() {
    for text in styles() {
        // A function's name is mended, and with it the query can be looked at further.
        let mut mended_once = mended(&text.replace("user_di", "user_id"));
        for _ in 0..3 {
            mended_once = mended(&mended_once);
        }
        let mended_once = mended_once.replace("nme", "näme");
        assert_eq!(marked(&mended_once), [], "{mended_once}");
        SyncConfig::parse(&mended_once).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn keys_and_values_are_mended_too() {
    let text =
        "confg: { edition: 3, timestamp_max_precision: milisecond }\nstreams:\n  s:\n    qeury: SELECT * FROM lists\n";
    let mended = mended(&mended(text));
    assert_eq!(
        mended,
        "config: { edition: 3, timestamp_max_precision: milliseconds }\nstreams:\n  s:\n    query: SELECT * FROM lists\n"
    );
    assert_eq!(marked(&mended), []);
}

#[test]
fn as_json_it_has_the_names_of_the_protocol() {
    let text = "config: { edition: 3 }\nstreams:\n  ü: { query: SELECT * FROM lists, auto_subscribe: maybe }";
    let json = serde_json::to_value(EditorDiagnostic::all(text, &found(text))).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "range": { "start": { "line": 2, "character": 51 }, "end": { "line": 2, "character": 56 } },
            "severity": 1,
            "code": json[0]["code"],
            "source": "syncline",
            "message": json[0]["message"],
        }])
    );
}

/// Finding and showing everything must not take the square of it: a generated config may have as many problems as lines.
#[test]
#[allow(clippy::disallowed_methods, reason = "how long it takes is what is looked at")]
fn many_problems_take_a_time_that_grows_as_they_do() {
    let time = |count: usize| {
        let mut text = String::from("config: { edition: 3 }\nstreams:\n");
        for number in 0..count {
            text.push_str(&format!("  s{number}: {{ query: SELECT lowr(id) AS id FROM lists }}\n"));
        }
        let once = || {
            let began = std::time::Instant::now();
            let problems = SyncConfig::parse(&text).unwrap_err();
            assert!(problems.as_slice().len() >= count);
            assert!(problems.to_string().len() > count * 100);
            assert_eq!(EditorDiagnostic::all(&text, problems.as_slice()).len(), problems.as_slice().len());
            began.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let (few, many) = (time(250), time(4_000));
    // Sixteen times as many; the square would be 256 times as long.
    assert!(many < few * 60, "{few:?} and {many:?}");
}
