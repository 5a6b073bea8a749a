//! From Postgres text to the values of a sync config.

mod mapping;
mod nested;
mod registry;
mod time;

pub(crate) use mapping::Mapping;
pub(crate) use registry::TypeRegistry;
