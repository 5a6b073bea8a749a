//! The parser of statements: select list, FROM with joins, WHERE, and the clauses that are refused.

use super::super::span::Span;
use super::ast::{FromItem, Join, JoinKind, Name, Relation, Select, SelectItem};
use super::lexer::{self, Token, TokenKind};
use crate::suggestion::nearest_name;

/// Why an SQL text is not a query of the language. One per text: what follows a syntax error cannot be trusted.
#[derive(Debug)]
pub(in crate::config) struct SyntaxError {
    pub(in crate::config) kind: &'static str,
    pub(in crate::config) span: Span,
    pub(in crate::config) message: String,
    pub(in crate::config) help: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(kind: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { kind, span, message: message.into(), help: None }
    }

    pub(super) fn syntax(span: Span, message: impl Into<String>) -> Self {
        Self::new("sql-syntax", span, message)
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Expressions and queries inside each other; the walks over the tree recurse, so this bounds their stack.
pub(super) const DEPTH: usize = 100;

/// Words that can stand neither as a column without quotes nor as an alias without AS.
pub(super) const RESERVED: [&str; 43] = [
    "select",
    "from",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "intersect",
    "except",
    "join",
    "inner",
    "left",
    "right",
    "full",
    "cross",
    "natural",
    "lateral",
    "on",
    "using",
    "and",
    "or",
    "not",
    "as",
    "case",
    "when",
    "then",
    "else",
    "end",
    "in",
    "is",
    "like",
    "ilike",
    "between",
    "null",
    "true",
    "false",
    "distinct",
    "with",
    "window",
];

/// Which language a query is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum SqlDialect {
    /// Streams of edition 3.
    Streams,
    /// Bucket definitions, events, and streams of edition 2: a query may select nothing.
    Rules,
}

/// Parses one query.
///
/// # Errors
/// One syntax error, or every clause that the languages do not have.
pub(in crate::config) fn parse(sql: &str, dialect: SqlDialect) -> Result<Select, Vec<SyntaxError>> {
    let tokens = lexer::tokens(sql).map_err(|error| vec![SyntaxError::syntax(error.span, error.message)])?;
    let mut parser = SqlParser { sql, tokens, at: 0, depth: 0, dialect, refused: Vec::new() };
    match parser.statement() {
        Ok(select) if parser.refused.is_empty() => Ok(select),
        Ok(_) => Err(parser.refused),
        Err(error) => {
            parser.refused.push(error);
            Err(parser.refused)
        }
    }
}

pub(super) struct SqlParser<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
    at: usize,
    pub(super) depth: usize,
    dialect: SqlDialect,
    /// Clauses that the languages do not have; they are read all the same, so that all of them are told.
    refused: Vec<SyntaxError>,
}

impl SqlParser<'_> {
    /// The whole text.
    fn statement(&mut self) -> Result<Select, SyntaxError> {
        let whole = Span::new(self.sql.len() - self.sql.trim_start().len(), self.sql.trim_end().len());
        match self.peek() {
            TokenKind::End => return Err(SyntaxError::syntax(whole, "the query is empty")),
            TokenKind::Word(word) if word == "select" => {}
            TokenKind::Word(word) if word == "with" => {
                return Err(SyntaxError::new("not-a-select", whole, "a query must be a plain SELECT, without WITH"));
            }
            TokenKind::Word(word) => {
                let error = SyntaxError::new("not-a-select", whole, "a query must be a SELECT");
                return Err(match nearest_name(word, &["select"]) {
                    Some(_) => error.help("did you mean `SELECT`?"),
                    None => error,
                });
            }
            _ => return Err(SyntaxError::new("not-a-select", whole, "a query must be a SELECT")),
        }
        let select = self.select()?;
        if self.eat_symbol(";") {
            if !matches!(self.peek(), TokenKind::End) {
                return Err(SyntaxError::new("multiple-statements", self.span(), "only one query may stand here")
                    .help("write each query as its own item of `queries`"));
            }
        } else if !matches!(self.peek(), TokenKind::End) {
            return Err(self.unexpected("the end of the query"));
        }
        Ok(select)
    }

    pub(super) fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    pub(super) fn peek_after(&self, count: usize) -> &TokenKind {
        &self.tokens[(self.at + count).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    /// The text of the current token.
    pub(super) fn text(&self) -> &str {
        self.span().of(self.sql)
    }

    /// The place just read.
    pub(super) fn previous(&self) -> Span {
        self.span_back(1)
    }

    /// The place of the token this many before the current one.
    pub(super) fn span_back(&self, count: usize) -> Span {
        self.tokens[self.at.saturating_sub(count)].span
    }

    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), TokenKind::Word(found) if found == word)
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol)
    }

    pub(super) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Result<(), SyntaxError> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), SyntaxError> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected(&word.to_uppercase())) }
    }

    pub(super) fn unexpected(&self, expected: &str) -> SyntaxError {
        let error = match self.peek() {
            TokenKind::End => SyntaxError::syntax(self.span(), format!("expected {expected}, and the query ends here")),
            _ => SyntaxError::syntax(self.span(), format!("expected {expected}, found `{}`", self.text())),
        };
        match self.peek() {
            TokenKind::Word(word) => match nearest_name(word, &["from", "where", "and", "as", "join"]) {
                Some(near) if near != word => error.help(format!("did you mean `{}`?", near.to_uppercase())),
                _ => error,
            },
            TokenKind::Symbol("==" | "=") => error.help("equality is written with one `=`"),
            _ => error,
        }
    }

    /// An identifier; a word only if it is not reserved.
    pub(super) fn name(&mut self, what: &str) -> Result<Name, SyntaxError> {
        let text = match self.peek() {
            TokenKind::Quoted(text) => text.clone(),
            TokenKind::Word(word) if !RESERVED.contains(&word.as_str()) => word.clone(),
            TokenKind::Word(word) => {
                let message = format!("expected {what}, found the keyword `{}`", word.to_uppercase());
                return Err(SyntaxError::syntax(self.span(), message)
                    .help(format!("if it is meant as a name, quote it: \"{word}\"")));
            }
            _ => return Err(self.unexpected(what)),
        };
        let span = self.span();
        self.advance();
        Ok(Name { text, span })
    }

    /// An identifier after a dot, where keywords are names too.
    pub(super) fn any_name(&mut self, what: &str) -> Result<Name, SyntaxError> {
        let text = match self.peek() {
            TokenKind::Quoted(text) | TokenKind::Word(text) => text.clone(),
            _ => return Err(self.unexpected(what)),
        };
        let span = self.span();
        self.advance();
        Ok(Name { text, span })
    }

    /// `AS name`, or a name that follows without AS.
    fn alias(&mut self) -> Result<Option<Name>, SyntaxError> {
        if self.eat_word("as") {
            return self.any_name("a name after AS").map(Some);
        }
        match self.peek() {
            TokenKind::Quoted(_) => self.name("a name").map(Some),
            TokenKind::Word(word) if !RESERVED.contains(&word.as_str()) => self.name("a name").map(Some),
            _ => Ok(None),
        }
    }

    /// Counts one more level of nesting while `parse` runs.
    pub(super) fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth >= DEPTH {
            return Err(SyntaxError::syntax(self.span(), "expressions are too deep inside each other"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    pub(super) fn select(&mut self) -> Result<Select, SyntaxError> {
        self.nested(Self::select_body)
    }

    fn select_body(&mut self) -> Result<Select, SyntaxError> {
        let start = self.span();
        self.expect_word("select")?;
        let distinct = self.is_word("distinct").then(|| self.span());
        if self.eat_word("distinct") && self.is_word("on") {
            return Err(self.clause("DISTINCT ON"));
        }
        self.eat_word("all");
        let nothing = matches!(self.peek(), TokenKind::End) || self.is_symbol(";");
        let nothing = nothing || self.is_word("from") || self.is_word("where");
        if nothing && (self.dialect == SqlDialect::Streams || distinct.is_some()) {
            return Err(SyntaxError::syntax(self.span(), "a SELECT needs columns").help("`*` stands for all of them"));
        }
        let mut columns = Vec::new();
        if !nothing {
            columns.push(self.select_item()?);
            while self.eat_symbol(",") {
                columns.push(self.select_item()?);
            }
        }
        let mut from = Vec::new();
        if self.eat_word("from") {
            from.push(self.relation(None)?);
            while let Some(join) = self.join()? {
                let mut item = self.relation(Some(join))?;
                self.join_condition(&mut item)?;
                from.push(item);
            }
        }
        let condition = if self.eat_word("where") { Some(self.expression(0)?) } else { None };
        let end = self.previous();
        while self.refused_clause()? {}
        let relations = from.iter().map(|item: &FromItem| match &item.relation {
            Relation::Table { .. } => 0,
            Relation::Function(call) => call.arguments.iter().map(|argument| argument.depth).max().unwrap_or(0),
            Relation::Subquery(select) => select.depth,
        });
        let conditions = from.iter().filter_map(|item| item.join.as_ref()?.on.as_ref()).chain(&condition);
        let depth = (columns.iter().map(|item| item.expr.depth))
            .chain(relations)
            .chain(conditions.map(|condition| condition.depth))
            .max()
            .unwrap_or(0);
        Ok(Select { span: start.to(end), columns, from, condition, distinct, depth })
    }

    fn select_item(&mut self) -> Result<SelectItem, SyntaxError> {
        let expr = self.expression(0)?;
        let alias = if matches!(expr.kind, super::ast::ExprKind::Star { .. }) { None } else { self.alias()? };
        Ok(SelectItem { expr, alias })
    }

    fn relation(&mut self, join: Option<Join>) -> Result<FromItem, SyntaxError> {
        let start = self.span();
        let relation = if self.is_symbol("(") {
            self.advance();
            let select = self.select()?;
            self.expect_symbol(")")?;
            Relation::Subquery(Box::new(select))
        } else {
            let first = self.name("a table")?;
            let (schema, name) = if self.eat_symbol(".") {
                (Some(first), self.any_name("a table after the dot")?)
            } else {
                (None, first)
            };
            if self.is_symbol(".") {
                return Err(SyntaxError::syntax(self.span(), "a table is named by itself or with its schema only"));
            }
            if self.is_symbol("(") {
                Relation::Function(self.call(schema, name)?)
            } else {
                Relation::Table { schema, name }
            }
        };
        let alias = self.alias()?;
        let mut columns = Vec::new();
        if alias.is_some() && self.eat_symbol("(") {
            columns.push(self.name("a column name")?);
            while self.eat_symbol(",") {
                columns.push(self.name("a column name")?);
            }
            self.expect_symbol(")")?;
        }
        Ok(FromItem { span: start.to(self.previous()), relation, alias, columns, join })
    }

    fn join(&mut self) -> Result<Option<Join>, SyntaxError> {
        let span = self.span();
        let kind = if self.eat_symbol(",") {
            return Ok(Some(Join { span, kind: JoinKind::Comma, on: None, using: None }));
        } else if self.eat_word("inner") {
            JoinKind::Inner
        } else if self.eat_word("left") {
            JoinKind::Left
        } else if self.eat_word("right") {
            JoinKind::Right
        } else if self.eat_word("full") {
            JoinKind::Full
        } else if self.eat_word("cross") {
            JoinKind::Cross
        } else if self.eat_word("natural") {
            JoinKind::Natural
        } else if self.is_word("join") {
            JoinKind::Inner
        } else {
            return Ok(None);
        };
        self.eat_word("outer");
        self.expect_word("join")?;
        Ok(Some(Join { span: span.to(self.previous()), kind, on: None, using: None }))
    }

    fn join_condition(&mut self, item: &mut FromItem) -> Result<(), SyntaxError> {
        let Some(join) = &mut item.join else { return Ok(()) };
        if join.kind == JoinKind::Comma {
            return Ok(());
        }
        let start = self.span();
        if self.eat_word("on") {
            join.on = Some(self.expression(0)?);
        } else if self.eat_word("using") {
            self.expect_symbol("(")?;
            self.name("a column")?;
            while self.eat_symbol(",") {
                self.name("a column")?;
            }
            self.expect_symbol(")")?;
            join.using = Some(start.to(self.previous()));
        }
        Ok(())
    }

    fn clause(&self, name: &str) -> SyntaxError {
        let message = format!("{name} is not supported: a query selects rows, one by one");
        SyntaxError::new("clause-not-supported", self.span(), message).help(match name {
            "ORDER BY" | "LIMIT" | "OFFSET" | "FETCH" => "order and limit the rows where the client reads them",
            "GROUP BY" | "HAVING" => "aggregate on the client, or keep the aggregate in a column by a trigger",
            _ => "remove it",
        })
    }

    /// Reads a clause that is refused; whether there was one.
    fn refused_clause(&mut self) -> Result<bool, SyntaxError> {
        let TokenKind::Word(word) = self.peek() else { return Ok(false) };
        let (name, words) = match word.as_str() {
            "group" => ("GROUP BY", 2),
            "having" => ("HAVING", 1),
            "order" => ("ORDER BY", 2),
            "limit" => ("LIMIT", 1),
            "offset" => ("OFFSET", 1),
            "fetch" => ("FETCH", 1),
            "for" => ("FOR", 1),
            "window" => ("WINDOW", 1),
            "union" | "intersect" | "except" => {
                let message = format!("{} is not supported: a query is a single SELECT", word.to_uppercase());
                return Err(SyntaxError::new("not-a-select", self.span(), message)
                    .help("write each SELECT as a query of its own"));
            }
            _ => return Ok(false),
        };
        let mut refused = self.clause(name);
        let start = self.span();
        for _ in 0..words {
            self.advance();
        }
        // What it says does not matter; the next clause begins with a word of its own.
        let mut depth = 0usize;
        loop {
            match self.peek() {
                TokenKind::End => break,
                TokenKind::Symbol("(") => depth += 1,
                TokenKind::Symbol(")") if depth == 0 => break,
                TokenKind::Symbol(")") => depth -= 1,
                TokenKind::Symbol(";") => break,
                TokenKind::Word(word) if depth == 0 => match word.as_str() {
                    "group" | "having" | "order" | "limit" | "offset" | "fetch" | "for" | "window" | "union"
                    | "intersect" | "except" => break,
                    _ => {}
                },
                _ => {}
            }
            self.advance();
        }
        refused.span = start.to(self.previous());
        self.refused.push(refused);
        Ok(true)
    }
}
