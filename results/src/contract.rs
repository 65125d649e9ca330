//! Contracts: what programs assume of the kernel, each assumption tied to the cases and facts that
//! decide it.
//!
//! Belongs here: the types as `contracts/*.toml` holds them, and the verdict of an assumption on a
//! kernel. The texts are data, made by reading the programs' sources.

use crate::dataset::{Case, Dataset};
use crate::lookup::Answer;
use crate::outcome::End;
use crate::pattern::{id_matches, value_matches};
use crate::release::Release;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What one program assumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Its name: lower-case words joined by `-`; the name of its file.
    #[serde(default)]
    pub name: String,
    /// The program.
    pub title: String,
    /// What it does with userfaultfd.
    pub about: String,
    /// Which version of its source was read.
    pub snapshot: String,
    /// Assumptions of the contract `shared` that it makes too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Assumptions of its own; [`Contract::all`] has the shared ones too.
    #[serde(default, rename = "assumption", skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<Assumption>,
}

/// An assumption that several programs make, and where this one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The id in the contract `shared`.
    pub id: String,
    /// Where it is relied on, as `file: function()`.
    pub r#where: Vec<String>,
    /// What happens if it does not hold.
    pub breaks: Breaks,
    /// The same in a sentence.
    pub effect: String,
}

/// One assumption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumption {
    /// Its id: lower-case words joined by `.` and `-`; unique over all contracts.
    pub id: String,
    /// What is assumed, in one sentence.
    pub says: String,
    /// Where it is relied on, as `file: function()`.
    pub r#where: Vec<String>,
    /// What happens if it does not hold.
    pub breaks: Breaks,
    /// The same in a sentence.
    pub effect: String,
    /// What must have been seen; empty only if `not_asked` says why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Why no case asks it.
    #[serde(default, rename = "not-asked", skip_serializing_if = "Option::is_none")]
    pub not_asked: Option<String>,
}

/// Cases and the facts that they must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Filters, as [`id_matches`] takes them.
    pub cases: Vec<String>,
    /// Filters of cases that don't count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Facts with the values that are allowed, joined by `|`; `?` is any one character, `*` any
    /// text, `(none)` a fact that was not observed.
    pub facts: BTreeMap<String, String>,
}

/// What happens to a program whose assumption does not hold, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Breaks {
    /// A guest or program reads wrong data.
    Corruption,
    /// A thread waits for ever.
    Hang,
    /// A process dies.
    Crash,
    /// A migration or restore is given up.
    Abort,
    /// It refuses to start.
    Refused,
    /// It is slower, or counts wrongly.
    Degraded,
    /// Nothing that a user would see.
    Nothing,
}

impl Breaks {
    /// Every kind, worst first.
    pub const ALL: [Self; 7] = [
        Self::Corruption,
        Self::Hang,
        Self::Crash,
        Self::Abort,
        Self::Refused,
        Self::Degraded,
        Self::Nothing,
    ];

    /// The word used in contracts and output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Corruption => "corruption",
            Self::Hang => "hang",
            Self::Crash => "crash",
            Self::Abort => "abort",
            Self::Refused => "refused",
            Self::Degraded => "degraded",
            Self::Nothing => "nothing",
        }
    }
}

impl fmt::Display for Breaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Whether a kernel keeps an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// Every case that answered showed what is assumed.
    Kept,
    /// Some case showed something else.
    Broken,
    /// The kernel lacks what the assumption is about.
    Unsupported,
}

impl Kept {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A case that shows something other than is assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The case.
    pub case: String,
    /// The fact; `end` if the case did not run to its end.
    pub fact: String,
    /// What was assumed.
    pub allowed: String,
    /// What was seen.
    pub seen: String,
}

/// An assumption with the cases of a dataset that decide it.
#[derive(Clone, Debug)]
pub struct Bound<'d, 'a> {
    /// The assumption.
    pub assumption: &'a Assumption,
    data: &'d Dataset,
    /// Each case with the place of the need that it decides.
    cases: Vec<(Case<'d>, usize)>,
}

impl Need {
    /// Whether a case is one of those that decide.
    pub fn takes(&self, id: &str) -> bool {
        self.cases.iter().any(|filter| id_matches(filter, id))
            && !self.except.iter().any(|filter| id_matches(filter, id))
    }
}

/// The name of the contract whose assumptions others share.
pub const SHARED: &str = "shared";

impl Contract {
    /// Everything that the program assumes, worst consequence first: its own [`assumptions`](Self::assumptions), and
    /// those of the contract [`SHARED`] among `contracts` that it shares, with where and how this program relies on
    /// them.
    ///
    /// ```
    /// # #[cfg(feature = "data")] {
    /// let contracts = uffd_results::contracts();
    /// let qemu = contracts.iter().find(|contract| contract.name == "qemu-postcopy").unwrap();
    /// let all = qemu.all(contracts);
    /// assert!(all.len() > qemu.assumptions.len());
    /// assert!(all.iter().any(|assumption| assumption.id == "copy.failed.no-wake"));
    /// # }
    /// ```
    #[must_use]
    pub fn all(&self, contracts: &[Self]) -> Vec<Assumption> {
        let shared = || contracts.iter().filter(|c| c.name == SHARED).flat_map(|c| &c.assumptions);
        let taken = self.shares.iter().filter_map(|share| {
            let Share { id, r#where, breaks, effect } = share.clone();
            let assumption = shared().find(|assumption| assumption.id == id)?.clone();
            Some(Assumption { r#where, breaks, effect, ..assumption })
        });
        let mut all: Vec<Assumption> = self.assumptions.iter().cloned().chain(taken).collect();
        all.sort_by_key(|assumption| assumption.breaks);
        all
    }
}

impl Assumption {
    /// Finds the cases that decide it.
    pub fn bind<'d, 'a>(&'a self, data: &'d Dataset) -> Bound<'d, 'a> {
        let mut cases = Vec::new();
        if !self.needs.is_empty() {
            for case in data.cases() {
                let id = case.id();
                let needs = self.needs.iter().enumerate().filter(|(_, need)| need.takes(&id));
                cases.extend(needs.map(|(need, _)| (case, need)));
            }
        }
        Bound { assumption: self, data, cases }
    }
}

impl<'d, 'a> Bound<'d, 'a> {
    /// The cases that decide, each with the facts that it must show.
    pub fn cases(&self) -> impl Iterator<Item = (Case<'d>, &'a BTreeMap<String, String>)> {
        self.cases.iter().map(|(case, need)| (*case, &self.assumption.needs[*need].facts))
    }

    /// Whether a kernel, by its place, keeps the assumption; `None` unless a case of each need answered there, or
    /// one that did breaks it.
    pub fn kept(&self, kernel: usize) -> Option<Kept> {
        let mut kept = None;
        for (case, facts) in self.cases() {
            let Some(outcome) = case.answer(kernel) else { continue };
            if outcome.end == End::Unsupported {
                kept = kept.or(Some(Kept::Unsupported));
            } else if breach(case, kernel, facts).is_some() {
                return Some(Kept::Broken);
            } else {
                kept = Some(Kept::Kept);
            }
        }
        kept.filter(|_| self.is_whole(kernel))
    }

    /// Whether a case of each of the assumption's needs answered on a kernel.
    fn is_whole(&self, kernel: usize) -> bool {
        let answered = |need: usize| {
            self.cases.iter().any(|(case, of)| *of == need && case.answer(kernel).is_some())
        };
        (0..self.assumption.needs.len()).all(answered)
    }

    /// The cases of a kernel that break the assumption, and how.
    pub fn breaches(&self, kernel: usize) -> Vec<Breach> {
        self.cases().filter_map(|(case, facts)| breach(case, kernel, facts)).collect()
    }

    /// Whether a kernel keeps the assumption, by its release string.
    pub fn on(&self, release: &Release) -> Answer<'d, Kept> {
        let answer = self.data.resolve(release, |kernel| self.kept(kernel));
        let place = |near| self.data.kernels().iter().position(|kernel| kernel == near);
        let places: Vec<usize> = answer.basis.iter().filter_map(|(near, _)| place(*near)).collect();
        answer.unless(release, self.data, |series| {
            let apart = |case: Case<'_>| self.data.apart_of(&case.id(), series).collect();
            places.iter().any(|kernel| self.kept(*kernel) != self.kept_if(*kernel, apart))
        })
    }

    /// What a kernel would do to the assumption if some facts of a case had other values, which are joined by `|` where
    /// several are possible: then all of them must be allowed.
    pub fn kept_if<F: AsRef<str>, V: AsRef<str>>(
        &self,
        kernel: usize,
        other: impl Fn(Case<'d>) -> Vec<(F, V)>,
    ) -> Option<Kept> {
        let is_broken = |(case, facts): (Case<'d>, &BTreeMap<String, String>)| {
            let answered = case.answer(kernel).filter(|seen| seen.end != End::Unsupported);
            let Some(seen) = answered else { return false };
            let other = other(case);
            let wrong = |(fact, allowed): (&String, &String)| match other
                .iter()
                .find(|(name, _)| name.as_ref() == fact)
            {
                Some((_, all)) => !all.as_ref().split('|').all(|v| value_matches(allowed, v)),
                None => !value_matches(allowed, seen.value(fact)),
            };
            facts.iter().any(wrong) || (seen.end != End::Done && !facts.contains_key("end"))
        };
        if self.cases().any(is_broken) {
            return Some(Kept::Broken);
        }
        // What a missing feature says of it stays.
        self.kept(kernel).map(|kept| if kept == Kept::Broken { Kept::Kept } else { kept })
    }
}

fn breach(case: Case<'_>, kernel: usize, facts: &BTreeMap<String, String>) -> Option<Breach> {
    let outcome = case.answer(kernel).filter(|outcome| outcome.end != End::Unsupported)?;
    let breach = |fact: &str, allowed: &str, seen: &str| {
        let [fact, allowed, seen] = [fact, allowed, seen].map(str::to_owned);
        Some(Breach { case: case.id(), fact, allowed, seen })
    };
    // What was seen before a hang may fit, the hang does not.
    if outcome.end != End::Done && !facts.contains_key("end") {
        return breach("end", End::Done.word(), outcome.end.word());
    }
    facts.iter().find_map(|(fact, allowed)| {
        let seen = case.fact(kernel, fact)?;
        if value_matches(allowed, seen) { None } else { breach(fact, allowed, seen) }
    })
}

#[cfg(test)]
mod tests;
