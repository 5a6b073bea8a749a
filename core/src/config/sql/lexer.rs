//! The lexer: Postgres' rules for identifiers, strings, numbers, comments and operators.

use super::super::span::Span;

/// A piece of SQL text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

/// What a [`Token`] is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// An identifier or keyword without quotes, folded to lower case.
    Word(String),
    /// An identifier in double quotes.
    Quoted(String),
    /// A string, its escapes resolved.
    Text(String),
    /// Digits.
    Integer,
    /// A number with a point.
    Decimal,
    /// `$1`, `:name` or `?`.
    Placeholder,
    /// An operator or a mark.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// What the lexer could not read.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) span: Span,
    pub(super) message: &'static str,
}

/// Longest first, so that the first that fits is the longest.
const SYMBOLS: [&str; 47] = [
    "->>", "!~~*", "!~~", "!~*", "#>>", "->", "::", "||", "&&", "<=", ">=", "<>", "!=", "==", "<<", ">>", "@>", "<@",
    "~~", "!~", "~*", "#>", "=>", ":=", "?|", "?&", "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "~", "#",
    "@", "!", "(", ")", "[", "]", ",", ".",
];

/// Splits `sql` into tokens; the last one is always [`TokenKind::End`].
pub(super) fn tokens(sql: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer { sql, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let start = lexer.at;
        let Some(kind) = lexer.next()? else {
            tokens.push(Token { kind: TokenKind::End, span: Span::new(start, start) });
            return Ok(tokens);
        };
        tokens.push(Token { kind, span: Span::new(start, lexer.at) });
    }
}

struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.sql[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error(&self, start: usize, message: &'static str) -> LexError {
        LexError { span: Span::new(start, self.sql.len()), message }
    }

    fn skip_while(&mut self, test: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !test(c)).unwrap_or(rest.len());
    }

    fn skip_blanks(&mut self) -> Result<(), LexError> {
        loop {
            self.skip_while(char::is_whitespace);
            if self.rest().starts_with("--") {
                self.skip_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                self.skip_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Block comments nest, as in Postgres.
    fn skip_comment(&mut self) -> Result<(), LexError> {
        let start = self.at;
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                match self.peek() {
                    Some(c) => self.at += c.len_utf8(),
                    None => return Err(self.error(start, "this comment has no end: `*/` is missing")),
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<TokenKind>, LexError> {
        let start = self.at;
        let Some(c) = self.peek() else { return Ok(None) };
        let next = self.rest()[c.len_utf8()..].chars().next();
        let kind = match c {
            '\'' => {
                self.at += 1;
                TokenKind::Text(self.string(start)?)
            }
            'e' | 'E' if next == Some('\'') => {
                self.at += 2;
                TokenKind::Text(self.escaped_string(start)?)
            }
            '"' => {
                self.at += 1;
                let name = self.delimited('"').ok_or_else(|| self.error(start, "this name has no closing `\"`"))?;
                if name.is_empty() {
                    return Err(LexError { span: Span::new(start, self.at), message: "a name cannot be empty" });
                }
                TokenKind::Quoted(name)
            }
            c if c.is_alphabetic() || c == '_' => {
                self.skip_while(|c| c.is_alphanumeric() || c == '_' || c == '$');
                TokenKind::Word(self.sql[start..self.at].to_lowercase())
            }
            c if c.is_ascii_digit() || (c == '.' && next.is_some_and(|c| c.is_ascii_digit())) => self.number()?,
            '$' if next.is_some_and(|c| c.is_ascii_digit()) => {
                self.at += 1;
                self.skip_while(|c| c.is_ascii_digit());
                TokenKind::Placeholder
            }
            '$' => return Err(self.error(start, "text in `$$` is not supported; write it in single quotes")),
            ':' if next.is_some_and(char::is_alphabetic) => {
                self.at += 1;
                self.skip_while(|c| c.is_alphanumeric() || c == '_');
                TokenKind::Placeholder
            }
            ';' => {
                self.at += 1;
                TokenKind::Symbol(";")
            }
            c => {
                if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest().starts_with(symbol)) {
                    self.at += symbol.len();
                    TokenKind::Symbol(symbol)
                } else if c == '?' {
                    self.at += 1;
                    TokenKind::Placeholder
                } else {
                    let span = Span::new(start, start + c.len_utf8());
                    return Err(LexError { span, message: "this character has no meaning in SQL" });
                }
            }
        };
        Ok(Some(kind))
    }

    fn number(&mut self) -> Result<TokenKind, LexError> {
        let start = self.at;
        self.skip_while(|c| c.is_ascii_digit());
        let mut kind = TokenKind::Integer;
        if self.peek() == Some('.') {
            self.at += 1;
            self.skip_while(|c| c.is_ascii_digit());
            kind = TokenKind::Decimal;
        }
        if self.peek().is_some_and(|c| c.is_alphabetic() || c == '_') {
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
            let span = Span::new(start, self.at);
            return Err(LexError { span, message: "this is neither a number nor a name" });
        }
        Ok(kind)
    }

    /// The text up to `quote`, which stands for itself when doubled.
    fn delimited(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find(quote)?;
            text.push_str(&rest[..end]);
            self.at += end + 1;
            if self.peek() != Some(quote) {
                return Some(text);
            }
            text.push(quote);
            self.at += 1;
        }
    }

    fn string(&mut self, start: usize) -> Result<String, LexError> {
        self.delimited('\'').ok_or_else(|| self.error(start, "this text has no closing `'`"))
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, LexError> {
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return Err(self.error(start, "this text has no closing `'`")) };
            self.at += c.len_utf8();
            match c {
                '\'' if self.peek() == Some('\'') => {
                    self.at += 1;
                    text.push('\'');
                }
                '\'' => return Ok(text),
                '\\' => text.push(self.escape(start)?),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, LexError> {
        let at = self.at - 1;
        let Some(c) = self.peek() else { return Err(self.error(start, "this text has no closing `'`")) };
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => {
                let octal = self.take_digits(2, 8);
                let first = c.to_digit(8).unwrap_or(0);
                let value = octal.chars().filter_map(|c| c.to_digit(8)).fold(first, |value, digit| value * 8 + digit);
                return self.character(at, value);
            }
            other => return Ok(other),
        };
        let hex = self.take_digits(digits, 16);
        match u32::from_str_radix(&hex, 16) {
            Ok(value) => self.character(at, value),
            Err(_) => Err(LexError { span: Span::new(at, self.at), message: "this escape lacks its digits" }),
        }
    }

    fn take_digits(&mut self, most: usize, radix: u32) -> String {
        let digits: String = self.rest().chars().take(most).take_while(|c| c.is_digit(radix)).collect();
        self.at += digits.len();
        digits
    }

    fn character(&self, start: usize, value: u32) -> Result<char, LexError> {
        let span = Span::new(start, self.at);
        let message = "this escape stands for no character";
        char::from_u32(value).filter(|c| *c != '\0').ok_or(LexError { span, message })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kinds(sql: &str) -> Vec<TokenKind> {
        tokens(sql).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn names_fold_and_quoted_ones_do_not() {
        assert_eq!(kinds("Owner"), [TokenKind::Word("owner".into()), TokenKind::End]);
        assert_eq!(kinds("\"Ow\"\"ner\""), [TokenKind::Quoted("Ow\"ner".into()), TokenKind::End]);
    }

    #[test]
    fn strings_comments_and_numbers() {
        assert_eq!(kinds("'it''s' -- no\n"), [TokenKind::Text("it's".into()), TokenKind::End]);
        assert_eq!(kinds("E'a\\n\\x41\\u00e9\\'\\101'"), [TokenKind::Text("a\nAé'A".into()), TokenKind::End]);
        assert_eq!(kinds("/* a /* b */ c */ .5"), [TokenKind::Decimal, TokenKind::End]);
        assert_eq!(kinds("1."), [TokenKind::Decimal, TokenKind::End]);
    }

    #[test]
    fn the_longest_operator_wins() {
        let symbols: Vec<_> =
            kinds("a->>b->c||d<=e").into_iter().filter(|k| matches!(k, TokenKind::Symbol(_))).collect();
        assert_eq!(symbols, ["->>", "->", "||", "<="].map(TokenKind::Symbol));
    }

    #[test]
    fn what_has_no_end_is_an_error_at_its_start() {
        for sql in ["a 'b", "a \"b", "a /* b", "a E'b\\", "a $$b$$"] {
            assert_eq!(tokens(sql).unwrap_err().span.start, 2, "{sql}");
        }
    }
}
