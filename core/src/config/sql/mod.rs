//! SQL as sync queries are written in: Postgres' lexical rules, one SELECT, every construct understood, so that what is
//! not supported is refused by name and place.

pub(super) mod ast;
mod expression_parser;
mod lexer;
mod parser;

pub(super) use parser::{SqlDialect, parse};
