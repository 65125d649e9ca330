//! Sequences of operations that nobody has written down: what a program does when it compares two
//! kernels at random.
//!
//! A [`Sequence`] is a list of steps with a stable text form, which is how it travels into a VM, into
//! a report and back onto the command line. [`Generator`] makes valid ones from a seed, [`perform`]
//! asks them as a trial whose facts say what each step returned and changed, and [`first_breach`] holds an
//! answer against what is documented. Belongs here: the steps and their words. Comparing and shrinking is the
//! harness's part.

mod axes;
mod candidate;
mod generate;
mod offer;
mod pages;
mod perform;
mod rules;
mod simpler;
mod step;
mod words;

pub use axes::{Ctx, Extra, Feature, Memory, Mode, Op, Prot, Treat};
pub use generate::Generator;
pub use offer::Offer;
pub use pages::{Pages, Place};
pub use rules::{Breach, corrected, first_breach};
pub use step::Step;

use crate::probe::{Case, Probe};
use std::fmt;
use std::str::FromStr;

/// The most steps of one sequence: each may need one of a case's threads.
pub const LONGEST: usize = 24;

/// What every sequence belongs to. It stands in no list: its cases are made when they are asked.
static SEQUENCE: Probe = Probe {
    suite: "explore",
    name: "sequence",
    statement: "Two kernels answer a sequence of operations in the same way.",
    consumers: &[],
};

/// Steps that can be performed one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(Vec<Step>);

/// Why a text or a list of steps is no sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A step that can't be read.
    #[error("step {number}, {text:?}: {why}")]
    Step {
        /// Which step, from 1.
        number: usize,
        /// Its text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too few or too many.
    #[error("{0} steps: a sequence has 1 to {LONGEST}")]
    Length(usize),
}

impl Sequence {
    /// The steps as a sequence, if they can be performed in this order.
    pub fn new(steps: Vec<Step>) -> Result<Self, SequenceError> {
        if steps.is_empty() || steps.len() > LONGEST {
            return Err(SequenceError::Length(steps.len()));
        }
        let mut opened = [false; 2];
        let mut open = [false; 2];
        for (n, step) in steps.iter().enumerate() {
            let why = match (step.fault(), step.context()) {
                (Some(why), _) => Some(why),
                (None, Some(ctx)) if matches!(step, Step::Open(..)) => {
                    let again = std::mem::replace(&mut opened[ctx.index()], true);
                    open[ctx.index()] = true;
                    again.then(|| format!("context {ctx} was opened before"))
                }
                (None, Some(ctx)) => {
                    let closed = !open[ctx.index()];
                    open[ctx.index()] &= !matches!(step, Step::Close(_));
                    closed.then(|| format!("context {ctx} is not open"))
                }
                (None, None) => None,
            };
            if let Some(why) = why {
                return Err(SequenceError::Step { number: n + 1, text: step.to_string(), why });
            }
        }
        Ok(Self(steps))
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The id of its case.
    pub fn id(&self) -> String {
        format!("{SEQUENCE}[{self}]")
    }

    /// The sequence as a case of a probe that is in no list. It lives as long as the process.
    pub fn case(&self) -> Case {
        Case::trial(&SEQUENCE, perform::Explored(self.clone()), false)
    }

    /// The case with this id, if it is one of a sequence.
    pub fn case_of(id: &str) -> Option<Case> {
        let text = id.strip_prefix("explore/sequence[")?.strip_suffix(']')?;
        text.parse::<Self>().ok().map(|sequence| sequence.case())
    }

    /// What it does, a sentence a step.
    pub fn recipe(&self) -> Vec<String> {
        self.0.iter().copied().map(Step::sentence).collect()
    }

    /// The lines of a probe that would ask it, in Rust, as far as scripts have its steps.
    pub fn candidate(&self) -> Vec<String> {
        candidate::lines(self)
    }

    /// How much there is to understand in it: a step less counts for more than any simpler step.
    pub fn cost(&self) -> usize {
        self.0.iter().map(|step| 1000 + step.cost()).sum()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            write!(f, "{}{step}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl FromStr for Sequence {
    type Err = SequenceError;

    fn from_str(text: &str) -> Result<Self, SequenceError> {
        let texts = text.split([';', '\n']).map(str::trim).filter(|text| !text.is_empty());
        let read = |(n, text): (usize, &str)| {
            let fault = |why| SequenceError::Step { number: n + 1, text: text.to_owned(), why };
            text.parse::<Step>().map_err(fault)
        };
        Self::new(texts.enumerate().map(read).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests;
