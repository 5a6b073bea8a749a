//! The fuzz targets over their seeds and over mutations of them; `fuzz-campaign` says how to run others, and more.
#![cfg(feature = "testing")]
#![allow(missing_docs)]

/// A test per target, with how many inputs it is run over: about two seconds.
macro_rules! targets {
    ($($(#[$condition:meta])? $name:ident: $count:literal,)*) => {
        mod targets {
            $($(#[$condition])? #[test]
            fn $name() {
                fuzz_campaign::run(stringify!($name), syncline_core::fuzzing::$name, $count);
            })*
        }
    };
}

targets! {
    bson_lines: 5_000,
    client_session: 4_000,
    compact_lines: 5_000,
    local_transaction: 5_000,
    ndjson_lines: 5_000,
    #[cfg(feature = "jwt")]
    published_keys: 2_000,
    scenario: 25,
    server_session: 2_000,
    stored_chunk: 5_000,
    sync_config: 1_000,
    sync_config_sql: 1_000,
    sync_request: 5_000,
    #[cfg(feature = "jwt")]
    token: 2_000,
}
