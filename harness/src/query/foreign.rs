//! What must hold of any bytes that are read as an expression.

use super::parse::{Expr, Name, Term, parse, word};
use crate::foreign::{Held, must, plain, same};

/// An expression is what its own text gives again; a refusal points to a place and can be shown.
pub(crate) fn query(bytes: &[u8]) -> Held {
    let text = String::from_utf8_lossy(bytes);
    let expr = match parse(&text) {
        Ok(expr) => expr,
        Err(error) => {
            let words = error.to_string();
            plain("why an expression is refused", &words)?;
            must(words.contains('^'), || format!("{words:?} points to nothing"))?;
            return Ok(false);
        }
    };
    must(expr.terms().next().is_some(), || "an expression without terms".to_owned())?;
    let own = shown(&expr);
    match parse(&own) {
        Ok(again) => same("an expression", &format!("{again:?}"), &format!("{expr:?}"))?,
        // All its parentheses may be more than there may be.
        Err(error) => {
            must(error.to_string().contains("no more than"), || format!("{own}: {error}"))?;
        }
    }
    Ok(true)
}

/// An expression with all its parentheses.
fn shown(expr: &Expr) -> String {
    let join = |all: &[Expr], by: &str| {
        format!("({})", all.iter().map(shown).collect::<Vec<_>>().join(by))
    };
    match expr {
        Expr::Any(all) => join(all, " | "),
        Expr::All(all) => join(all, " & "),
        Expr::Not(expr) => format!("!{}", shown(expr)),
        Expr::Term(Term { name: name @ (Name::Changed | Name::Constant), .. }) => {
            word(*name).to_owned()
        }
        // What holds a quote was not quoted.
        Expr::Term(Term { name, argument, .. }) if argument.contains('"') => {
            format!("{}({argument})", word(*name))
        }
        Expr::Term(Term { name, argument, .. }) => format!("{}(\"{argument}\")", word(*name)),
    }
}
