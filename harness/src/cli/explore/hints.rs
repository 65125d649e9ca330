//! What is recorded of two kernels that looks like a difference that was found.

use crate::diff::{Comparer, Side};
use crate::explore::{Difference, Shrunk};
use crate::known;
use crate::report::group::Difference as Recorded;
use crate::store::Store;

/// Hints that are shown of one difference.
const SHOWN: usize = 3;

/// What differs between the records of the two, if both are recorded.
pub(super) struct Hints(Vec<Recorded>);

impl Hints {
    /// Compares the records, if there is anything to explain. Without records there are no hints.
    pub(super) fn new(store: &Store, releases: &[String; 2], shrunk: &[Shrunk]) -> Self {
        let none = Self(Vec::new());
        if shrunk.is_empty() || releases[0] == releases[1] {
            return none;
        }
        let Ok(known) = known::load(store) else { return none };
        let place = |release: &String| {
            known.data.kernels().iter().position(|kernel| kernel.release == *release)
        };
        let (Some(a), Some(b)) = (place(&releases[0]), place(&releases[1])) else { return none };
        let side = |kernel| Side { data: &known.data, kernel };
        let compared = Comparer::new().kernels((side(a), side(b)), &|_| true);
        Self(compared.differences.into_iter().map(|(_, difference)| difference).collect())
    }

    /// The recorded differences of the same turn, one a reason: a case, and why.
    pub(super) fn like(&self, difference: &Difference) -> Vec<(String, Option<&str>)> {
        let [a, b] = &difference.values;
        let mut shown: Vec<(String, Option<&str>)> = Vec::new();
        let is_waiter = difference.signature().is_of_waiter();
        // A change of the mapping is called by several names; so is a waiter's fate.
        let is_change = difference.fact == difference.verb
            && !self.0.iter().any(|recorded| recorded.fact == difference.fact);
        let alike = self.0.iter().filter(|recorded| {
            let named = recorded.fact == difference.fact
                || (is_change && matches!(&*recorded.fact, "change" | "call" | "move"))
                || (is_waiter && matches!(&*recorded.fact, "waiter" | "rescued" | "touch"));
            named && (&recorded.values.0, &recorded.values.1) == (a, b)
        });
        for Recorded { probe, axes, reason, .. } in alike {
            let reason = reason.as_deref();
            if shown.len() < SHOWN && shown.iter().all(|(_, known)| *known != reason) {
                shown.push((format!("{probe}[{axes}]"), reason));
            }
        }
        shown
    }
}
