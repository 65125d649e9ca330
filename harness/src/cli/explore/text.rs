//! What is shown of what was found.

use super::hints::Hints;
use super::{ExploreArgs, Explored};
use crate::cli::out;
use crate::explore::{Found, Shrunk};
use anyhow::Result;
use serde_json::json;
use std::io::Write;
use uffd_results::Outcome;
use uffd_suites::explore::{Sequence, first_breach};

/// The answers to a sequence that was named.
pub(super) fn answers(
    sequence: &Sequence,
    names: &[String; 2],
    outcomes: &[Outcome; 2],
) -> Result<()> {
    let mut out = out::stdout();
    writeln!(out, "{}", out::bold(sequence))?;
    for (name, outcome) in names.iter().zip(outcomes) {
        writeln!(out, "  {name}: {outcome}")?;
    }
    Ok(())
}

/// For people.
pub(super) fn human(args: &ExploreArgs, explored: &Explored, hints: &Hints) -> Result<()> {
    let Explored { names: [a, b], sequences, steps, seconds, shrunk, rest, .. } = explored;
    let mut out = out::stdout();
    let count: usize =
        shrunk.iter().map(|s| s.found.count).chain(rest.iter().map(|f| f.count)).sum();
    let seed =
        if args.sequence.is_empty() { format!("seed {}, ", args.seed) } else { String::new() };
    let pair = out::bold(format!("{a} and {b}"));
    writeln!(
        out,
        "{pair}: {seed}{steps} steps in {sequences} sequences, {seconds:.1} s: {}",
        ways(count, shrunk.len() + rest.len())
    )?;
    if !explored.left_out.is_empty() {
        let words: Vec<&str> = explored.left_out.iter().map(|offer| offer.word()).collect();
        let text = format!("left out, for want of it on one of the two: {}", words.join(", "));
        writeln!(out, "  {}", out::dim(text))?;
    }
    if let (n, Some(why)) = &explored.unanswered {
        writeln!(out, "  {n} sequences had no answer; the first: {why}")?;
    }
    for (n, one) in shrunk.iter().enumerate() {
        difference(&mut out, n + 1, one, explored, hints)?;
    }
    if !rest.is_empty() {
        writeln!(out, "\nfound and not shrunk (--shrink N)")?;
    }
    for Found { count, sequence, difference, .. } in rest {
        writeln!(out, "  {count} × {}", difference.signature())?;
        writeln!(out, "      {}", out::dim(sequence))?;
    }
    Ok(())
}

fn ways(count: usize, ways: usize) -> String {
    match (count, ways) {
        (0, _) => "no difference".to_owned(),
        (1, _) => "one differs".to_owned(),
        (count, 1) => format!("{count} differ, all in one way"),
        (count, ways) => format!("{count} differ, in {ways} ways"),
    }
}

fn difference(
    out: &mut impl Write,
    number: usize,
    one: &Shrunk,
    explored: &Explored,
    hints: &Hints,
) -> Result<()> {
    let Shrunk { found, repeats } = one;
    let Found { count, sequence, difference, outcomes } = found;
    let [from, to] = &difference.values;
    let (verb, fact) = (&difference.verb, &difference.fact);
    let what = if verb == fact { fact.clone() } else { format!("{fact} of {verb}") };
    let of = out::dim(format!("({count} times; {} steps)", sequence.steps().len()));
    writeln!(out, "\n{} {of}", out::bold(format!("{number}. {what}: {from} → {to}")))?;
    if !repeats {
        writeln!(out, "   {}", out::warning("it was not there when the same was asked again"))?;
    }
    for (n, sentence) in sequence.recipe().iter().enumerate() {
        writeln!(out, "   {}. {sentence}", n + 1)?;
    }
    for (name, outcome) in explored.names.iter().zip(outcomes) {
        writeln!(out, "   {name}: {outcome}")?;
    }
    if let Some(rule) = rule(found, explored.is_model) {
        writeln!(out, "   the rule: {rule}")?;
    }
    let alike = hints.like(difference);
    if alike.is_empty() && !explored.is_model {
        writeln!(out, "   {}", out::dim("no recorded case differs like that"))?;
    }
    for (case, why) in alike {
        writeln!(
            out,
            "   {}",
            out::dim(format_args!(
                "recorded like that: {case}: {}",
                why.unwrap_or("no reason is noted")
            ))
        )?;
    }
    let words = &explored.words;
    writeln!(out, "   repeat: uffd-conform explore {words} --sequence '{sequence}'")?;
    writeln!(out, "   as a script of a probe:")?;
    for line in sequence.candidate() {
        writeln!(out, "     {}", out::dim(line))?;
    }
    Ok(())
}

/// The rule that the kernel breaks, if it is held against the documented ones.
fn rule(found: &Found, is_model: bool) -> Option<&'static str> {
    let breach = || first_breach(&found.sequence, &found.outcomes[1]);
    is_model.then(breach).flatten().map(|breach| breach.rule)
}

/// Version of the JSON Lines, as docs/formats.md says.
const SCHEMA: u32 = 1;

/// A JSON object a line: the run, then each difference.
pub(super) fn jsonl(args: &ExploreArgs, explored: &Explored, hints: &Hints) -> Result<()> {
    let mut out = out::stdout();
    let Explored { names: [a, b], sequences, steps, seconds, shrunk, rest, .. } = explored;
    let left_out: Vec<&str> = explored.left_out.iter().map(|offer| offer.word()).collect();
    let head = json!({
        "type": "explore", "schema": SCHEMA, "a": a, "b": b,
        "seed": args.sequence.is_empty().then_some(args.seed),
        "length": args.sequence.is_empty().then_some(args.length),
        "sequences": sequences, "steps": steps, "seconds": seconds, "left-out": left_out,
        "unanswered": explored.unanswered.0, "first-unanswered": explored.unanswered.1,
        "differences": shrunk.len() + rest.len(),
    });
    writeln!(out, "{head}")?;
    let line = |found: &Found, repeats: Option<bool>| {
        let Found { count, sequence, difference, outcomes: [a, b] } = found;
        let alike = hints.like(difference).into_iter();
        let alike: Vec<_> = alike.map(|(case, why)| json!({"case": case, "why": why})).collect();
        json!({
            "type": "difference", "sequence": sequence.to_string(), "shrunk": repeats.is_some(),
            "repeats": repeats, "count": count, "step": difference.step + 1,
            "verb": difference.verb, "fact": difference.fact,
            "a": difference.values[0], "b": difference.values[1],
            "outcomes": [a, b], "recipe": sequence.recipe(), "recorded": alike,
            "candidate": sequence.candidate(), "rule": rule(found, explored.is_model),
        })
    };
    for Shrunk { found, repeats } in shrunk {
        writeln!(out, "{}", line(found, Some(*repeats)))?;
    }
    for found in rest {
        writeln!(out, "{}", line(found, None))?;
    }
    Ok(())
}
