//! Makes a sequence that shows a difference as short and plain as it can be: in rounds, each of which
//! asks everything a little simpler of all differences at once, since a round costs two boots.

use super::{Compared, Difference, Sides, compare};
use std::collections::{HashMap, HashSet};
use uffd_results::Outcome;
use uffd_suites::explore::Sequence;

/// Rounds after which what is left is taken as it is; a sequence takes a third of that.
const ROUNDS: usize = 30;

/// A difference as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// How many sequences have shown one with the same signature.
    pub(crate) count: usize,
    /// The shortest of them, as far as it matters.
    pub(crate) sequence: Sequence,
    /// In what the two differ.
    pub(crate) difference: Difference,
    /// What they have answered.
    pub(crate) outcomes: [Outcome; 2],
}

/// A difference with a sequence that can't be made any simpler.
#[derive(Clone, Debug)]
pub(crate) struct Shrunk {
    /// The difference, with its simplest sequence.
    pub(crate) found: Found,
    /// Whether it was there when it was asked for again.
    pub(crate) repeats: bool,
}

/// Shrinks differences; those that come out as one sequence are put together.
pub(crate) fn shrink(
    found: Vec<Found>,
    sides: &mut dyn Sides,
    round: &mut dyn FnMut(usize),
) -> anyhow::Result<Vec<Shrunk>> {
    let mut all: Vec<Shrunk> =
        found.into_iter().map(|found| Shrunk { found, repeats: false }).collect();
    let mut open: Vec<usize> = (0..all.len()).collect();
    let mut known: HashSet<(usize, Sequence)> = HashSet::new();
    for number in 0..ROUNDS {
        let mut asked: Vec<(usize, Sequence)> = Vec::new();
        for &n in &open {
            let sequence = &all[n].found.sequence;
            // The first round also asks each once more as it is.
            let same = (number == 0).then(|| sequence.clone());
            let simpler = same.into_iter().chain(sequence.simpler()).map(|simpler| (n, simpler));
            asked.extend(simpler.filter(|one| known.insert(one.clone())));
        }
        // Several differences may come to the same sequences.
        let mut places: HashMap<&Sequence, usize> = HashMap::new();
        let mut sequences: Vec<Sequence> = Vec::new();
        for (_, sequence) in &asked {
            places.entry(sequence).or_insert_with(|| {
                sequences.push(sequence.clone());
                sequences.len() - 1
            });
        }
        if sequences.is_empty() {
            break;
        }
        round(sequences.len());
        let answers = sides.ask(&sequences)?;
        let mut better = vec![false; all.len()];
        for (n, sequence) in &asked {
            let outcomes = &answers[places[sequence]];
            let Compared::Differ(difference) = compare(sequence, outcomes) else { continue };
            let now = &mut all[*n];
            if difference.signature() != now.found.signature() {
                continue;
            }
            now.repeats = true;
            let sequence = difference.relevant(sequence);
            if sequence.cost() < now.found.sequence.cost() {
                better[*n] = true;
                let (count, outcomes) = (now.found.count, outcomes.clone());
                now.found = Found { count, sequence, difference, outcomes };
            }
        }
        open.retain(|n| better[*n]);
    }
    Ok(together(all))
}

/// One of each sequence and step.
fn together(all: Vec<Shrunk>) -> Vec<Shrunk> {
    let mut kept: Vec<Shrunk> = Vec::new();
    for one in all {
        match kept.iter_mut().find(|k| k.found.sequence == one.found.sequence) {
            Some(known) => known.found.count += one.found.count,
            None => kept.push(one),
        }
    }
    kept.sort_by_key(|one| one.found.sequence.cost());
    kept
}
