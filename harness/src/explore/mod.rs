//! Two kernels, or one twice, held against each other by sequences that nobody has written down.
//!
//! `compare` finds the first fact in which two answers to a sequence differ, `shrink` makes a sequence
//! that shows a difference as short and plain as it can be. Both are pure but for [`Sides`], which
//! asks. Belongs here: what is made of answers. The sequences are the suites' (`uffd_suites::explore`);
//! processes and VMs are the command's.

mod compare;
mod shrink;
#[cfg(test)]
mod tests;

pub(crate) use compare::{Compared, Difference, compare};
pub(crate) use shrink::{Found, Shrunk, shrink};

use uffd_results::Outcome;
use uffd_suites::explore::Sequence;

/// Two kernels that can be asked.
pub(crate) trait Sides {
    /// What each of the two answers to each sequence, in their order.
    fn ask(&mut self, sequences: &[Sequence]) -> anyhow::Result<Vec<[Outcome; 2]>>;
}

/// What differs, each kind once: by its signature, with the shortest sequence that has shown it.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: Vec<Found>,
    /// Sequences without an answer, and why the first one has none.
    pub(crate) unanswered: (usize, Option<String>),
}

impl Findings {
    /// Takes what two kernels have answered to a sequence.
    pub(crate) fn take(&mut self, sequence: &Sequence, outcomes: [Outcome; 2]) {
        let difference = match compare(sequence, &outcomes) {
            Compared::Same => return,
            Compared::Unanswered(why) => {
                self.unanswered.0 += 1;
                self.unanswered.1.get_or_insert_with(|| format!("{why}: {sequence}"));
                return;
            }
            Compared::Differ(difference) => difference,
        };
        let sequence = difference.relevant(sequence);
        let found = Found { count: 1, sequence, difference, outcomes };
        match self.found.iter_mut().find(|f| f.signature() == found.signature()) {
            None => self.found.push(found),
            Some(known) if found.sequence.cost() < known.sequence.cost() => {
                *known = Found { count: known.count + 1, ..found };
            }
            Some(known) => known.count += 1,
        }
    }

    /// The differences, the shortest first.
    pub(crate) fn into_found(mut self) -> Vec<Found> {
        self.found.sort_by_key(|found| found.sequence.cost());
        self.found
    }
}
