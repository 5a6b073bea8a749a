//! The parser of expressions: operator precedence climbing over the whole grammar.

use super::super::span::Span;
use super::ast::{BinaryOperator, Call, Expr, ExprKind, IsWhat, Name};
use super::lexer::TokenKind;
use super::parser::{DEPTH, SqlParser, SyntaxError};

// Binding strengths, weakest first.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const EQUALITY: u8 = 4;
const COMPARISON: u8 = 5;
const OTHER: u8 = 6;
const SUM: u8 = 7;
const PRODUCT: u8 = 8;
const SIGN: u8 = 9;
const CAST: u8 = 10;
const ARROW: u8 = 11;

/// What stands between two operands.
enum Infix {
    And,
    Or,
    Binary(BinaryOperator),
    Unknown,
    Is,
    Between,
    In,
    Like,
    Cast,
}

impl SqlParser<'_> {
    fn node(&self, kind: ExprKind, span: Span, depth: usize) -> Result<Expr, SyntaxError> {
        if depth >= DEPTH {
            return Err(SyntaxError::syntax(span, "this expression has too many operators inside each other"));
        }
        Ok(Expr { span, kind, depth: depth + 1 })
    }

    /// An expression whose operators bind at least as strongly as `weakest`.
    pub(super) fn expression(&mut self, weakest: u8) -> Result<Expr, SyntaxError> {
        self.nested(|parser| {
            let mut left = parser.prefix()?;
            while let Some((strength, infix, negated)) = parser.infix() {
                if strength < weakest {
                    break;
                }
                left = parser.combine(left, strength, infix, negated)?;
            }
            Ok(left)
        })
    }

    /// The operator that comes next, without reading it, and whether a NOT stands before it.
    fn infix(&self) -> Option<(u8, Infix, bool)> {
        use BinaryOperator as B;
        let infix = match self.peek() {
            TokenKind::Symbol(symbol) => match *symbol {
                "=" => (EQUALITY, Infix::Binary(B::Equal)),
                "!=" | "<>" => (EQUALITY, Infix::Binary(B::NotEqual)),
                "<" => (COMPARISON, Infix::Binary(B::Less)),
                ">" => (COMPARISON, Infix::Binary(B::Greater)),
                "<=" => (COMPARISON, Infix::Binary(B::LessOrEqual)),
                ">=" => (COMPARISON, Infix::Binary(B::GreaterOrEqual)),
                "&&" => (OTHER, Infix::Binary(B::Overlap)),
                "+" => (SUM, Infix::Binary(B::Add)),
                "-" => (SUM, Infix::Binary(B::Subtract)),
                "||" => (SUM, Infix::Binary(B::Concat)),
                "*" => (PRODUCT, Infix::Binary(B::Multiply)),
                "/" => (PRODUCT, Infix::Binary(B::Divide)),
                "%" => (PRODUCT, Infix::Unknown),
                "->" => (ARROW, Infix::Binary(B::Arrow)),
                "->>" => (ARROW, Infix::Binary(B::ArrowText)),
                "::" => (CAST, Infix::Cast),
                "(" | ")" | "[" | "]" | "," | "." | ";" | "==" | ":=" | "=>" | "!" | "@" => return None,
                _ => (OTHER, Infix::Unknown),
            },
            TokenKind::Word(word) => match word.as_str() {
                "and" => (AND, Infix::And),
                "or" => (OR, Infix::Or),
                "is" => (OTHER, Infix::Is),
                "between" => (OTHER, Infix::Between),
                "in" => (OTHER, Infix::In),
                "like" | "ilike" => (OTHER, Infix::Like),
                "isnull" | "notnull" | "collate" | "similar" => (OTHER, Infix::Unknown),
                "not" => {
                    let infix = match self.peek_after(1) {
                        TokenKind::Word(word) if word == "between" => Infix::Between,
                        TokenKind::Word(word) if word == "in" => Infix::In,
                        TokenKind::Word(word) if word == "like" || word == "ilike" => Infix::Like,
                        _ => return None,
                    };
                    return Some((OTHER, infix, true));
                }
                _ => return None,
            },
            _ => return None,
        };
        Some((infix.0, infix.1, false))
    }

    fn combine(&mut self, left: Expr, strength: u8, infix: Infix, negated: bool) -> Result<Expr, SyntaxError> {
        if negated {
            self.advance();
        }
        let operator = self.text().to_lowercase();
        let operator_span = self.span();
        self.advance();
        let start = left.span;
        match infix {
            Infix::And | Infix::Or => {
                let and = matches!(infix, Infix::And);
                let right = self.expression(strength + 1)?;
                let span = start.to(right.span);
                // A chain of ANDs is one node, however long.
                let (mut all, deepest) = match (left.kind, and) {
                    (ExprKind::And(all), true) | (ExprKind::Or(all), false) => (all, left.depth - 1),
                    (kind, _) => (vec![Expr { kind, span: left.span, depth: left.depth }], left.depth),
                };
                let depth = deepest.max(right.depth);
                all.push(right);
                self.node(if and { ExprKind::And(all) } else { ExprKind::Or(all) }, span, depth)
            }
            Infix::Binary(operator) => {
                let right = self.expression(strength + 1)?;
                let arrow = matches!(operator, BinaryOperator::Arrow | BinaryOperator::ArrowText);
                if arrow && !matches!(right.kind, ExprKind::Text(_) | ExprKind::Integer(_)) {
                    let message = "the right side of `->` and `->>` must be a key in quotes or a number";
                    return Err(SyntaxError::syntax(right.span, message));
                }
                let (span, depth) = (start.to(right.span), left.depth.max(right.depth));
                self.node(ExprKind::Binary { operator, left: Box::new(left), right: Box::new(right) }, span, depth)
            }
            Infix::Unknown => {
                if operator == "isnull" || operator == "notnull" {
                    let message = format!("`{operator}` is not supported");
                    return Err(SyntaxError::syntax(operator_span, message).help("write IS NULL or IS NOT NULL"));
                }
                let right = self.expression(strength + 1)?;
                let (span, depth) = (start.to(right.span), left.depth.max(right.depth));
                self.node(ExprKind::Unknown { operator, operands: vec![left, right] }, span, depth)
            }
            Infix::Is => {
                let negated = self.eat_word("not");
                let what = if self.eat_word("null") {
                    IsWhat::Null
                } else if self.eat_word("true") {
                    IsWhat::True
                } else if self.eat_word("false") {
                    IsWhat::False
                } else {
                    return Err(self.unexpected("NULL, TRUE or FALSE after IS"));
                };
                let (span, depth) = (start.to(self.previous()), left.depth);
                self.node(ExprKind::Is { operand: Box::new(left), negated, what }, span, depth)
            }
            Infix::Between => {
                let low = self.expression(SUM)?;
                self.expect_word("and")?;
                let high = self.expression(SUM)?;
                let (span, depth) = (start.to(high.span), left.depth.max(low.depth).max(high.depth));
                let (operand, low, high) = (Box::new(left), Box::new(low), Box::new(high));
                self.node(ExprKind::Between { operand, negated, low, high }, span, depth)
            }
            Infix::In => {
                let list = self.expression(SUM)?;
                let (span, depth) = (start.to(list.span), left.depth.max(list.depth));
                self.node(ExprKind::In { operand: Box::new(left), negated, list: Box::new(list) }, span, depth)
            }
            Infix::Like => {
                let pattern = self.expression(SUM)?;
                let (span, depth) = (start.to(pattern.span), left.depth.max(pattern.depth));
                self.node(ExprKind::Like { operand: Box::new(left), pattern: Box::new(pattern) }, span, depth)
            }
            Infix::Cast => {
                let target = self.type_name()?;
                let (span, depth) = (start.to(target.span), left.depth);
                self.node(ExprKind::Cast { operand: Box::new(left), target }, span, depth)
            }
        }
    }

    fn prefix(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.span();
        if self.eat_word("not") {
            let operand = self.expression(NOT)?;
            let (span, depth) = (start.to(operand.span), operand.depth);
            return self.node(ExprKind::Not(Box::new(operand)), span, depth);
        }
        if self.is_symbol("-") || self.is_symbol("+") {
            let negative = self.is_symbol("-");
            self.advance();
            if negative && matches!(self.peek(), TokenKind::Integer | TokenKind::Decimal) {
                let number = format!("-{}", self.text());
                let kind = match self.peek() {
                    TokenKind::Integer => ExprKind::Integer(number),
                    _ => ExprKind::Decimal(number),
                };
                self.advance();
                return self.node(kind, start.to(self.previous()), 0);
            }
            let operand = self.expression(SIGN)?;
            let (span, depth) = (start.to(operand.span), operand.depth);
            return self.node(ExprKind::Sign { negative, operand: Box::new(operand) }, span, depth);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.span();
        let leaf = |kind| Ok(Expr { span: start, kind, depth: 1 });
        match self.peek().clone() {
            TokenKind::Text(text) => {
                self.advance();
                leaf(ExprKind::Text(text))
            }
            TokenKind::Integer | TokenKind::Decimal => {
                let text = self.text().to_owned();
                let kind = match self.peek() {
                    TokenKind::Integer => ExprKind::Integer(text),
                    _ => ExprKind::Decimal(text),
                };
                self.advance();
                leaf(kind)
            }
            TokenKind::Placeholder => {
                self.advance();
                leaf(ExprKind::Placeholder)
            }
            TokenKind::Symbol("*") => {
                self.advance();
                leaf(ExprKind::Star { table: None })
            }
            TokenKind::Symbol("(") => self.parenthesised(),
            TokenKind::Word(word) => match word.as_str() {
                "null" => {
                    self.advance();
                    leaf(ExprKind::Null)
                }
                "true" | "false" => {
                    self.advance();
                    leaf(ExprKind::Boolean(word == "true"))
                }
                "case" => self.case(),
                "exists" if matches!(self.peek_after(1), TokenKind::Symbol("(")) => {
                    self.advance();
                    self.advance();
                    let select = self.select()?;
                    self.expect_symbol(")")?;
                    self.node(ExprKind::Exists, start.to(select.span).to(self.previous()), 0)
                }
                "cast" if matches!(self.peek_after(1), TokenKind::Symbol("(")) => self.cast(),
                "array" if matches!(self.peek_after(1), TokenKind::Symbol("[")) => {
                    self.advance();
                    self.advance();
                    self.list("]")
                }
                "row" if matches!(self.peek_after(1), TokenKind::Symbol("(")) => {
                    self.advance();
                    self.advance();
                    self.list(")")
                }
                _ => self.named(),
            },
            TokenKind::Quoted(_) => self.named(),
            TokenKind::End | TokenKind::Symbol(_) => Err(self.unexpected("an expression")),
        }
    }

    /// The members of `ARRAY[…]` or `ROW(…)`, whose opening bracket was read.
    fn list(&mut self, close: &str) -> Result<Expr, SyntaxError> {
        let start = self.span_back(2);
        let (members, depth) = self.members(close)?;
        self.node(ExprKind::List(members), start.to(self.previous()), depth)
    }

    /// Expressions up to `close`, and the greatest depth among them.
    fn members(&mut self, close: &str) -> Result<(Vec<Expr>, usize), SyntaxError> {
        let mut members = Vec::new();
        if !self.is_symbol(close) {
            members.push(self.expression(0)?);
            while self.eat_symbol(",") {
                members.push(self.expression(0)?);
            }
        }
        self.expect_symbol(close)?;
        let depth = members.iter().map(|member| member.depth).max().unwrap_or(0);
        Ok((members, depth))
    }

    fn parenthesised(&mut self) -> Result<Expr, SyntaxError> {
        self.advance();
        if self.is_word("select") {
            let start = self.span();
            let select = self.select()?;
            self.expect_symbol(")")?;
            let (span, depth) = (start.to(select.span), select.depth);
            return self.node(ExprKind::Subquery(Box::new(select)), span, depth);
        }
        let first = self.expression(0)?;
        if !self.is_symbol(",") {
            self.expect_symbol(")")?;
            return Ok(first);
        }
        let start = first.span;
        let mut members = vec![first];
        while self.eat_symbol(",") {
            members.push(self.expression(0)?);
        }
        let depth = members.iter().map(|member| member.depth).max().unwrap_or(0);
        let span = members.last().map_or(start, |last| start.to(last.span));
        self.expect_symbol(")")?;
        self.node(ExprKind::Tuple(members), span, depth)
    }

    fn case(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.span();
        self.advance();
        let operand = if self.is_word("when") { None } else { Some(Box::new(self.expression(0)?)) };
        let mut branches = Vec::new();
        while self.eat_word("when") {
            let condition = self.expression(0)?;
            self.expect_word("then")?;
            branches.push((condition, self.expression(0)?));
        }
        if branches.is_empty() {
            return Err(self.unexpected("WHEN"));
        }
        let otherwise = if self.eat_word("else") { Some(Box::new(self.expression(0)?)) } else { None };
        self.expect_word("end")?;
        let depth = (branches.iter().flat_map(|(when, then)| [when.depth, then.depth]))
            .chain(operand.iter().map(|operand| operand.depth))
            .chain(otherwise.iter().map(|otherwise| otherwise.depth))
            .max();
        self.node(ExprKind::Case { operand, branches, otherwise }, start.to(self.previous()), depth.unwrap_or(0))
    }

    fn cast(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.span();
        self.advance();
        self.advance();
        let operand = self.expression(0)?;
        self.expect_word("as")?;
        let target = self.type_name()?;
        self.expect_symbol(")")?;
        let depth = operand.depth;
        self.node(ExprKind::Cast { operand: Box::new(operand), target }, start.to(self.previous()), depth)
    }

    /// A type as it is written, `double precision` and `numeric(10, 2)[]` included.
    fn type_name(&mut self) -> Result<Name, SyntaxError> {
        let mut name = self.any_name("a type")?;
        if (name.text == "double" && self.is_word("precision")) || (name.text == "character" && self.is_word("varying"))
        {
            let second = self.any_name("a type")?;
            name.text = format!("{} {}", name.text, second.text);
            name.span = name.span.to(second.span);
        }
        while self.is_symbol("(") || self.is_symbol("[") {
            let close = if self.is_symbol("(") { ")" } else { "]" };
            self.advance();
            let (_, _) = self.members(close)?;
            name.span = name.span.to(self.previous());
            name.text.push_str(if close == ")" { "(…)" } else { "[]" });
        }
        Ok(name)
    }

    /// A column, `table.*` or a call.
    fn named(&mut self) -> Result<Expr, SyntaxError> {
        let first = self.name("an expression")?;
        if matches!(self.peek(), TokenKind::Text(_)) {
            // `interval '1 day'`: a literal of a type that values here do not have.
            let message = format!("literals of type `{}` are not supported", first.text);
            return Err(SyntaxError::new("bad-cast", first.span, message).help("write the text alone"));
        }
        let mut names = vec![first];
        while self.eat_symbol(".") {
            if self.is_symbol("*") {
                self.advance();
                let span = names[0].span.to(self.previous());
                let Some(table) = names.pop().filter(|_| names.is_empty()) else {
                    return Err(SyntaxError::syntax(span, "`*` is written after a table's name or alias alone"));
                };
                return Ok(Expr { span, kind: ExprKind::Star { table: Some(table) }, depth: 1 });
            }
            names.push(self.any_name("a name after the dot")?);
            if names.len() > 3 {
                return Err(SyntaxError::syntax(self.previous(), "a name has at most three parts"));
            }
        }
        let Some(name) = names.pop() else { return Err(self.unexpected("an expression")) };
        let table = names.pop();
        if self.is_symbol("(") {
            if !names.is_empty() {
                return Err(SyntaxError::syntax(name.span, "a function is named by itself or with its schema only"));
            }
            let call = self.call(table, name)?;
            let depth = call.arguments.iter().map(|argument| argument.depth).max().unwrap_or(0);
            let span = call.span;
            return self.node(ExprKind::Call(call), span, depth);
        }
        let span = names.first().or(table.as_ref()).map_or(name.span, |first| first.span.to(name.span));
        Ok(Expr { span, kind: ExprKind::Column { schema: names.pop(), table, name }, depth: 1 })
    }

    /// The arguments of a function whose name was read.
    pub(super) fn call(&mut self, schema: Option<Name>, name: Name) -> Result<Call, SyntaxError> {
        let start = schema.as_ref().map_or(name.span, |schema| schema.span);
        self.expect_symbol("(")?;
        let mut call = Call { schema, name, arguments: Vec::new(), aggregate: None, span: start };
        if self.is_word("distinct") {
            call.aggregate = Some(self.span());
            self.advance();
        }
        if !self.is_symbol(")") {
            call.arguments.push(self.expression(0)?);
            loop {
                if call.name.text == "substring" && (self.is_word("from") || self.is_word("for")) {
                    // `substring(x FROM a FOR b)`; without FROM it begins at 1.
                    if self.is_word("for") && call.arguments.len() == 1 {
                        let kind = ExprKind::Integer("1".into());
                        call.arguments.push(Expr { span: self.span(), kind, depth: 1 });
                    }
                    self.advance();
                } else if !self.eat_symbol(",") {
                    break;
                }
                call.arguments.push(self.expression(0)?);
            }
        }
        if self.is_word("order") {
            let clause = self.span();
            self.advance();
            self.expect_word("by")?;
            self.expression(0)?;
            while self.eat_word("asc") || self.eat_word("desc") || self.eat_symbol(",") {}
            call.aggregate = Some(clause);
        }
        self.expect_symbol(")")?;
        while self.is_word("filter") || self.is_word("over") {
            call.aggregate = Some(self.span());
            self.advance();
            self.expect_symbol("(")?;
            self.eat_word("where");
            if !self.is_symbol(")") {
                self.expression(0)?;
            }
            self.expect_symbol(")")?;
        }
        call.span = start.to(self.previous());
        Ok(call)
    }
}
