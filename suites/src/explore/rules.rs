//! The documented rules as a program: what a sequence's steps must have answered, whatever the kernel.
//!
//! A rule looks at one step: the state before it, as the facts have told it so far, what the step
//! returned, and what it has changed. It says nothing where the documents say nothing, or where the
//! state is not known for sure. So a kernel can be held against the rules as against another kernel:
//! [`corrected`] is the answer that it should have given.

mod call;
mod state;

use super::{Sequence, Step};
use state::{State, Words};
use uffd_results::{End, Facts, Outcome};

/// A fact that is not as a rule has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which step, from 0.
    pub step: usize,
    /// The fact's name, as in a step's words; `end` if the sequence did not come to its end.
    pub fact: String,
    /// What the rule wants: `asleep` of a thread that must not be woken, and then nothing is said of it.
    pub wanted: String,
    /// The rule, with its source.
    pub rule: &'static str,
}

/// What a rule says of a step: the fact, what it should be, and the rule.
type Objection = (String, String, &'static str);

const ENDS: &str = "a sequence of calls comes to its end: no thread hangs where nothing waits for it, and no \
                    kernel goes down";
const LOCAL: &str = "mmap(2), mremap(2), ioctl_userfaultfd(2): a call changes the registration of no page \
                     outside its range";
const ASLEEP: &str = "fs/userfaultfd.c: only ioctls, UNREGISTER and the last close wake who waits for a page; a \
                      change of mappings does not";
const CLOSE: &str =
    "userfaultfd(2), close(2): the last close unregisters all ranges, and wakes everybody";

/// The first fact of an answer that breaks a rule; none of an answer that says nothing.
pub fn first_breach(sequence: &Sequence, outcome: &Outcome) -> Option<Breach> {
    let mut state = State::default();
    for (n, step) in sequence.steps().iter().enumerate() {
        let Some(said) = outcome.facts.get(super::perform::NAMES[n]) else { break };
        let words = Words::new(said);
        let after = state.with_rows(&words);
        if let Some((fact, wanted, rule)) = object(&state, *step, &words, &after) {
            return Some(Breach { step: n, fact, wanted, rule });
        }
        state = after;
        state.follow(n + 1, *step, &words);
    }
    let ended = matches!(outcome.end, End::Hang | End::Killed | End::Panic);
    ended.then(|| Breach {
        step: sequence.steps().len(),
        fact: "end".to_owned(),
        wanted: End::Done.word().to_owned(),
        rule: ENDS,
    })
}

/// The answer as the rules want it: the same up to the first fact that breaks one.
pub fn corrected(sequence: &Sequence, outcome: &Outcome) -> Outcome {
    let mut corrected = outcome.clone();
    let Some(Breach { step, fact, wanted, .. }) = first_breach(sequence, outcome) else {
        return corrected;
    };
    if fact == "end" {
        corrected.end = End::Done;
        corrected.detail.clear();
        return corrected;
    }
    let name = super::perform::NAMES[step];
    corrected.facts = Facts::new();
    // Facts can be added, and none changed.
    for (n, _) in sequence.steps().iter().enumerate() {
        let known = super::perform::NAMES[n];
        let Some(said) = outcome.facts.get(known) else { break };
        if known == name {
            corrected.facts.set(known, Words::new(said).with(&fact, &wanted));
        } else {
            corrected.facts.set(known, said);
        }
    }
    if let Some(said) = outcome.facts.get(super::perform::AFTER) {
        corrected.facts.set(super::perform::AFTER, said);
    }
    corrected
}

/// What the rules have against a step, if anything.
fn object(before: &State, step: Step, words: &Words<'_>, after: &State) -> Option<Objection> {
    let said = words.get(step.verb())?;
    // A kernel may lack what opens a context; a touch is left out where its order would show.
    if matches!(said, "not-open" | "left-out") {
        return None;
    }
    elsewhere(before, step, after)
        .or_else(|| woken(before, step, said, words))
        .or_else(|| call::object(before, step, said, words, after))
}

/// Registration of pages that the step does not name.
fn elsewhere(before: &State, step: Step, after: &State) -> Option<Objection> {
    if matches!(step, Step::Close(_)) {
        return None;
    }
    let named = step.pages();
    let row = State::differing_registration(after, |page| {
        let is_named = named.iter().any(|pages| pages.overlaps(page.pages()));
        if is_named { after.registration(page) } else { before.registration(page) }
    })?;
    Some((row.0, row.1, LOCAL))
}

/// Who is woken that must not be, and who is not that must.
fn woken(before: &State, step: Step, said: &str, words: &Words<'_>) -> Option<Objection> {
    let is_told = |number: usize| words.get(&format!("w{number}")).is_some();
    match step {
        Step::Close(ctx) if said == "0" => {
            let left = before.waiting.iter().find(|w| w.ctx == Some(ctx) && !is_told(w.number))?;
            Some((format!("w{}", left.number), "woken".to_owned(), CLOSE))
        }
        Step::Call(..) | Step::Relocate(..) | Step::Close(_) => None,
        _ => {
            let roused = before.waiting.iter().find(|waiting| is_told(waiting.number))?;
            Some((format!("w{}", roused.number), state::ASLEEP.to_owned(), ASLEEP))
        }
    }
}

#[cfg(test)]
mod tests;
