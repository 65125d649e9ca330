//! Reading expressions: terms joined by `&` and `|`, denied by `!`, in parentheses.
//!
//! `&` binds closer than `|`. An argument is all up to its closing parenthesis, or in double quotes.

use crate::cli::which::Which;
use std::fmt;
use uffd_results::{Held, is_plain};

/// Parentheses and denials within each other.
const DEEP: usize = 64;

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    /// One of these.
    Any(Vec<Expr>),
    /// All of these.
    All(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// A term.
    Term(Term),
}

/// A term with its argument.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// Which term.
    pub(super) name: Name,
    /// The argument; empty for those that take none.
    pub(super) argument: String,
    /// The argument as a kernel, for those that take one.
    pub(super) version: Option<Which>,
}

impl Term {
    /// The axis that is meant, and its value; any value where only the axis is named.
    pub(super) fn axis(&self) -> (&str, &str) {
        match self.name {
            Name::Backing => ("backing", &self.argument),
            _ => self.argument.split_once('=').unwrap_or((&self.argument, "*")),
        }
    }
}

/// The terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Suite,
    Probe,
    Fact,
    Value,
    Backing,
    Axis,
    Changed,
    Constant,
    Since,
    Until,
    Only,
    DiffersBy,
    Held,
    Unsupported,
    Consumer,
    Contract,
    Text,
}

/// What a term takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Text,
    Axis,
    Version,
    Held,
}

const TERMS: [(&str, Name, Takes); 17] = [
    ("suite", Name::Suite, Takes::Text),
    ("probe", Name::Probe, Takes::Text),
    ("fact", Name::Fact, Takes::Text),
    ("value", Name::Value, Takes::Text),
    ("backing", Name::Backing, Takes::Text),
    ("axis", Name::Axis, Takes::Axis),
    ("changed", Name::Changed, Takes::Nothing),
    ("constant", Name::Constant, Takes::Nothing),
    ("since", Name::Since, Takes::Version),
    ("until", Name::Until, Takes::Version),
    ("only", Name::Only, Takes::Version),
    ("differs_by", Name::DiffersBy, Takes::Text),
    ("held", Name::Held, Takes::Held),
    ("unsupported", Name::Unsupported, Takes::Version),
    ("consumer", Name::Consumer, Takes::Text),
    ("contract", Name::Contract, Takes::Text),
    ("text", Name::Text, Takes::Text),
];

/// The word of a term.
pub(super) fn word(name: Name) -> &'static str {
    TERMS.iter().find(|(_, known, _)| *known == name).map_or("", |(word, ..)| word)
}

/// Why a text is no expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct QueryError {
    text: String,
    /// The byte at which something else was expected.
    at: usize,
    expected: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, at, expected } = self;
        // What is not shown as itself would move the caret.
        let shown = |part: &str| part.replace(|c: char| !is_plain(c), " ");
        let before = text.get(..*at).unwrap_or(text).chars().count();
        let caret = " ".repeat(before);
        let found = match text.get(*at..).unwrap_or_default().chars().next() {
            Some(_) => "",
            None => ", and the expression ends here",
        };
        write!(
            f,
            "can't read the expression\n  {}\n  {caret}^ expected {expected}{found}",
            shown(text)
        )
    }
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expr, QueryError> {
    let mut reader = Reader { text, at: 0 };
    let expr = reader.any(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.error("`&`, `|` or the end"));
    }
    Ok(expr)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, expected: impl Into<String>) -> QueryError {
        QueryError { text: self.text.to_owned(), at: self.at, expected: expected.into() }
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes a character if it is the next one.
    fn takes(&mut self, c: char) -> bool {
        self.space();
        let is_next = self.rest().starts_with(c);
        self.at += if is_next { c.len_utf8() } else { 0 };
        is_next
    }

    fn any(&mut self, depth: usize) -> Result<Expr, QueryError> {
        let mut all = vec![self.all(depth)?];
        while self.takes('|') {
            all.push(self.all(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::Any(all) })
    }

    fn all(&mut self, depth: usize) -> Result<Expr, QueryError> {
        let mut all = vec![self.one(depth)?];
        while self.takes('&') {
            all.push(self.one(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::All(all) })
    }

    fn one(&mut self, depth: usize) -> Result<Expr, QueryError> {
        self.space();
        if depth == DEEP {
            return Err(self.error(format!("no more than {DEEP} parentheses within each other")));
        }
        if self.takes('!') {
            return Ok(Expr::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes('(') {
            let expr = self.any(depth + 1)?;
            if !self.takes(')') {
                return Err(self.error("`&`, `|` or `)`"));
            }
            return Ok(expr);
        }
        self.term().map(Expr::Term)
    }

    fn term(&mut self) -> Result<Term, QueryError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let plain = word.to_ascii_lowercase().replace('-', "_");
        let Some((_, name, takes)) = TERMS.iter().find(|(term, ..)| *term == plain) else {
            let words: Vec<&str> = TERMS.iter().map(|(word, ..)| *word).collect();
            return Err(self.error(format!("`!`, `(` or one of {}", words.join(" "))));
        };
        self.at += word.len();
        let (name, takes) = (*name, *takes);
        if takes == Takes::Nothing {
            return Ok(Term { name, argument: String::new(), version: None });
        }
        if !self.takes('(') {
            return Err(self.error(format!("`(`: {plain}({})", takes.example())));
        }
        self.space();
        let start = self.at;
        let argument = self.argument()?;
        let end = std::mem::replace(&mut self.at, start);
        if argument.is_empty() {
            return Err(self.error(takes.example()));
        }
        let mut version = None;
        match takes {
            Takes::Axis if !argument.contains('=') => return Err(self.error(takes.example())),
            Takes::Held if !HELD.iter().any(|held| held.word() == argument) => {
                return Err(self.error(takes.example()));
            }
            Takes::Version => match argument.parse() {
                Ok(which) => version = Some(which),
                Err(_) => return Err(self.error(takes.example())),
            },
            _ => {}
        }
        self.at = end;
        if !self.takes(')') {
            return Err(self.error("`)`"));
        }
        Ok(Term { name, argument, version })
    }

    /// Text in double quotes, or all up to the closing parenthesis.
    fn argument(&mut self) -> Result<String, QueryError> {
        if self.takes('"') {
            let rest = self.rest();
            let Some(end) = rest.find('"') else {
                self.at = self.text.len();
                return Err(self.error("`\"`"));
            };
            self.at += end + 1;
            return Ok(rest[..end].to_owned());
        }
        let rest = self.rest();
        let mut open = 0_usize;
        for (at, c) in rest.char_indices() {
            match c {
                '(' => open += 1,
                ')' if open == 0 => {
                    self.at += at;
                    return Ok(rest[..at].trim_end().to_owned());
                }
                ')' => open -= 1,
                _ => {}
            }
        }
        self.at = self.text.len();
        Err(self.error("`)`"))
    }
}

const HELD: [Held; 4] = [Held::Holds, Held::Partly, Held::Fails, Held::Unsupported];

impl Takes {
    const fn example(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text => "a word, in which `*` is any text",
            Self::Axis => "an axis and its value, such as waiter=user-*",
            Self::Version => "a kernel, such as 6.12 or 6.12.43",
            Self::Held => "holds, partly, fails or unsupported",
        }
    }
}

impl Expr {
    /// The terms in it.
    pub(super) fn terms(&self) -> Box<dyn Iterator<Item = &Term> + '_> {
        match self {
            Self::Any(all) | Self::All(all) => Box::new(all.iter().flat_map(Self::terms)),
            Self::Not(expr) => expr.terms(),
            Self::Term(term) => Box::new(std::iter::once(term)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// An expression with all its parentheses.
    fn shown(expr: &Expr) -> String {
        let join = |all: &[Expr], by: &str| {
            format!("({})", all.iter().map(shown).collect::<Vec<_>>().join(by))
        };
        match expr {
            Expr::Any(all) => join(all, "|"),
            Expr::All(all) => join(all, "&"),
            Expr::Not(expr) => format!("!{}", shown(expr)),
            Expr::Term(Term { name, argument, .. }) => format!("{name:?}:{argument}"),
        }
    }

    #[rstest]
    #[case("changed", "Changed:")]
    #[case("since(6.12) & suite(copy) | changed", "((Since:6.12&Suite:copy)|Changed:)")]
    #[case("since(6.12)&(suite( copy )|!changed)", "(Since:6.12&(Suite:copy|!Changed:))")]
    #[case("value(unmap(0..6)) & ! ! constant", "(Value:unmap(0..6)&!!Constant:)")]
    #[case("text(\"a ) b\")", "Text:a ) b")]
    #[case("Differs-By(backing)", "DiffersBy:backing")]
    fn reads(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse(text).map(|expr| shown(&expr)).expect("an expression"), expected);
    }

    #[rstest]
    #[case("", 0, "one of suite")]
    #[case("since(6.12) & suit(copy)", 14, "one of suite")]
    #[case("since(6.12) suite(copy)", 12, "`&`, `|` or the end")]
    #[case("since", 5, "since(a kernel")]
    #[case("since(banana)", 6, "a kernel")]
    #[case("axis(waiter)", 5, "waiter=user-*")]
    #[case("held(maybe)", 5, "holds, partly")]
    #[case("suite()", 6, "a word")]
    #[case("(changed", 8, "`)`")]
    #[case("suite(copy", 10, "`)`")]
    #[case("text(\"a)", 8, "`\"`")]
    #[case("text(\"a\" b)", 9, "`)`")]
    #[case("changed &", 9, "ends here")]
    #[case("changed)", 7, "the end")]
    #[case("ä & changed", 0, "one of")]
    fn refuses_with_a_caret(#[case] text: &str, #[case] at: usize, #[case] words: &str) {
        let error = parse(text).expect_err("no expression").to_string();
        assert!(error.contains(words), "{error}");
        let caret = error.lines().last().and_then(|line| line.find('^'));
        assert_eq!(caret, Some(at + 2), "{error}");
    }

    #[test]
    fn what_lies_too_deep_is_refused() {
        let deep = |n: usize| format!("{}changed{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&deep(DEEP - 1)).is_ok());
        for text in [deep(DEEP), deep(100_000), "!".repeat(100_000)] {
            assert!(parse(&text).is_err_and(|error| error.expected.contains("no more than")));
        }
    }

    /// The same texts in every run: pieces of expressions in an order of a generator's.
    #[test]
    fn no_text_makes_it_panic() {
        let pieces = [
            "(",
            ")",
            "!",
            "&",
            "|",
            "\"",
            " ",
            "since",
            "changed",
            "suite",
            "axis",
            "6.12",
            "a=b",
            "held",
            "value",
            "copy",
            "é",
            "\u{7}",
            "(none)",
            "*",
            "text(",
            "&&",
            "\u{1f600}",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n as u64).unwrap_or(0)
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let length = next(12);
            let text: String = (0..length).map(|_| pieces[next(pieces.len())]).collect();
            match parse(&text) {
                Ok(expr) => read += usize::from(expr.terms().next().is_some()),
                Err(error) => assert!(error.to_string().contains('^'), "{text:?}"),
            }
        }
        assert!(read > 0, "none of them was an expression");
    }
}
