//! The functions of the language, by name.

/// Names of scalar functions; calls ignore case, since names without quotes are folded.
pub(super) const NAMES: [&str; 23] = [
    "upper",
    "lower",
    "substring",
    "length",
    "instr",
    "hex",
    "base64",
    "typeof",
    "ifnull",
    "iif",
    "uuid_blob",
    "json_keys",
    "json_array_length",
    "json_extract",
    "unixepoch",
    "datetime",
    "st_asgeojson",
    "st_astext",
    "st_x",
    "st_y",
    "json_each",
    "json_valid",
    "random",
];

/// Whether the language has such a function.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}
