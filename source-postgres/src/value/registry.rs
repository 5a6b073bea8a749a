//! Which mapping a type has: built-in ones by their oid, others by what the catalog says about them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::ValueOptions;
use tokio_postgres::types::{Kind, Type};

use super::mapping::{MAX_DEPTH, Mapping};
use super::time::TimeForm;
use crate::connection::Connection;
use crate::error::PgError;

/// Oids from here on belong to types that somebody created.
const FIRST_CUSTOM_OID: u32 = 16_384;

const LIMIT: Duration = Duration::from_secs(30);

/// Types that somebody created, as far as they were asked for. They are kept for good, since the stream may bring rows of
/// a type that has been dropped.
#[derive(Debug, Default)]
pub(crate) struct TypeRegistry {
    /// What the sync config chooses.
    options: ValueOptions,
    custom: HashMap<u32, Custom>,
}

#[derive(Debug, Clone)]
struct Custom {
    name: Arc<str>,
    kind: CustomKind,
}

#[derive(Debug, Clone)]
enum CustomKind {
    Text,
    Domain(u32),
    Array { element: u32, delimiter: u8 },
    Composite(Vec<(String, u32)>),
    Range(u32),
    Multirange(u32),
}

/// The name of a built-in type.
fn builtin_name(oid: u32) -> Option<Arc<str>> {
    Type::from_oid(oid).map(|found| found.name().into())
}

impl TypeRegistry {
    pub(crate) fn new(options: ValueOptions) -> Self {
        Self { options, custom: HashMap::new() }
    }

    /// The name of a type, for diagnostics.
    pub(crate) fn name(&self, oid: u32) -> Arc<str> {
        builtin_name(oid)
            .or_else(|| self.custom.get(&oid).map(|custom| custom.name.clone()))
            .unwrap_or_else(|| format!("oid {oid}").into())
    }

    /// The mapping of a type. A type that nothing is known of is text.
    pub(crate) fn mapping(&self, oid: u32) -> Mapping {
        self.resolve(oid, MAX_DEPTH).unwrap_or(Mapping::Text)
    }

    fn resolve(&self, oid: u32, depth: usize) -> Option<Mapping> {
        let depth = depth.checked_sub(1)?;
        let Some(custom) = self.custom.get(&oid) else { return Some(builtin(oid, &self.options)) };
        Some(match &custom.kind {
            _ if !self.options.custom_types => Mapping::Text,
            CustomKind::Text => Mapping::Text,
            CustomKind::Domain(base) => self.resolve(*base, depth)?,
            CustomKind::Array { element, delimiter } => {
                Mapping::Array { element: Arc::new(self.resolve(*element, depth)?), delimiter: *delimiter }
            }
            CustomKind::Composite(members) => {
                let resolved: Option<Vec<_>> =
                    members.iter().map(|(name, oid)| Some((name.clone(), self.resolve(*oid, depth)?))).collect();
                Mapping::Composite(resolved?.into())
            }
            CustomKind::Range(bound) => Mapping::Range(Arc::new(self.resolve(*bound, depth)?)),
            CustomKind::Multirange(bound) => Mapping::Multirange(Arc::new(self.resolve(*bound, depth)?)),
        })
    }

    /// Asks the catalog about those of these types that are neither built in nor known, and about the types in them.
    pub(crate) async fn load(
        &mut self,
        connection: &mut Connection,
        oids: impl IntoIterator<Item = u32>,
    ) -> Result<(), PgError> {
        let mut wanted: Vec<u32> = oids.into_iter().collect();
        for _ in 0..MAX_DEPTH {
            wanted.retain(|oid| *oid >= FIRST_CUSTOM_OID && !self.custom.contains_key(oid));
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.is_empty() {
                break;
            }
            wanted = self.load_some(connection, &wanted).await?;
        }
        Ok(())
    }

    async fn load_some(&mut self, connection: &mut Connection, oids: &[u32]) -> Result<Vec<u32>, PgError> {
        let list = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let sql = format!(
            "SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typdelim, \
                 t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 AS is_array, \
                 e.typdelim AS element_delimiter, r.rngsubtype, m.rngsubtype AS multi_subtype \
             FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem \
             LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid \
             LEFT JOIN pg_catalog.pg_range m ON m.rngmultitypid = t.oid WHERE t.oid IN ({list})"
        );
        let types = connection.query(&sql, LIMIT).await?;
        let sql = format!(
            "SELECT t.oid, a.attname, a.atttypid FROM pg_catalog.pg_type t \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid \
             WHERE t.oid IN ({list}) AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY t.oid, a.attnum"
        );
        let members = connection.query(&sql, LIMIT).await?;
        let mut inner = Vec::new();
        for row in 0..types.len() {
            let oid: u32 = types.parse(row, "oid")?;
            let kind = match types.text(row, "typtype")? {
                "d" => CustomKind::Domain(types.parse(row, "typbasetype")?),
                "r" => CustomKind::Range(types.parse(row, "rngsubtype")?),
                "m" => CustomKind::Multirange(types.parse(row, "multi_subtype")?),
                "c" => {
                    let mut found = Vec::new();
                    for member in 0..members.len() {
                        if members.parse::<u32>(member, "oid")? == oid {
                            found.push((
                                members.text(member, "attname")?.to_owned(),
                                members.parse(member, "atttypid")?,
                            ));
                        }
                    }
                    CustomKind::Composite(found)
                }
                _ if types.is_true(row, "is_array") => CustomKind::Array {
                    element: types.parse(row, "typelem")?,
                    delimiter: types.get(row, "element_delimiter").and_then(|text| text.bytes().next()).unwrap_or(b','),
                },
                _ => CustomKind::Text,
            };
            match &kind {
                CustomKind::Text => {}
                CustomKind::Domain(oid)
                | CustomKind::Array { element: oid, .. }
                | CustomKind::Range(oid)
                | CustomKind::Multirange(oid) => inner.push(*oid),
                CustomKind::Composite(members) => inner.extend(members.iter().map(|(_, oid)| *oid)),
            }
            self.custom.insert(oid, Custom { name: types.text(row, "typname")?.into(), kind });
        }
        // A type that is gone is text from now on.
        for oid in oids {
            self.custom
                .entry(*oid)
                .or_insert_with(|| Custom { name: format!("oid {oid}").into(), kind: CustomKind::Text });
        }
        Ok(inner)
    }
}

/// The mapping of a built-in type.
fn builtin(oid: u32, options: &ValueOptions) -> Mapping {
    let times = TimeForm::of(options);
    let Some(found) = Type::from_oid(oid) else { return Mapping::Text };
    match found {
        Type::BOOL => Mapping::Boolean,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Mapping::Integer,
        Type::FLOAT4 | Type::FLOAT8 => Mapping::Real,
        Type::BYTEA => Mapping::Bytes,
        Type::JSON | Type::JSONB => Mapping::Json,
        Type::DATE => Mapping::Date,
        Type::TIME => Mapping::Time(times),
        Type::TIMESTAMP => Mapping::Timestamp(times),
        Type::TIMESTAMPTZ => Mapping::TimestampTz(times),
        Type::PG_LSN => Mapping::Lsn,
        // Arrays in the catalog's sense only: these two have a text form of their own.
        Type::INT2_VECTOR | Type::OID_VECTOR => Mapping::Text,
        // Ranges count among custom types, though these are built in; so do arrays of them, and those of boxes.
        _ if !options.custom_types && is_nested(&found) => Mapping::Text,
        _ => match found.kind() {
            Kind::Array(element) => Mapping::Array {
                element: Arc::new(builtin(element.oid(), options)),
                delimiter: if *element == Type::BOX { b';' } else { b',' },
            },
            Kind::Range(bound) => Mapping::Range(Arc::new(builtin(bound.oid(), options))),
            Kind::Multirange(bound) => Mapping::Multirange(Arc::new(builtin(bound.oid(), options))),
            _ => Mapping::Text,
        },
    }
}

/// Whether it is a range, a list of ranges, or an array of either or of boxes.
fn is_nested(found: &Type) -> bool {
    match found.kind() {
        Kind::Array(element) => *element == Type::BOX || is_nested(element),
        Kind::Range(_) | Kind::Multirange(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
