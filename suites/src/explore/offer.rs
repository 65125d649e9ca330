//! What not every kernel has, and how that is found out: by asking.

use super::Sequence;
use super::axes::{Extra, Feature, Memory, Op, Treat};
use super::step::Step;
use crate::point::axis;
use uffd_results::{End, Outcome};

axis! {
    /// An operation, option or kind of memory that some kernels lack.
    Offer {
        /// Write protection of shared and private memory (5.19).
        Wp = "wp",
        /// Minor faults of shared memory (5.14).
        Minor = "minor",
        /// `UFFDIO_CONTINUE` that write-protects (6.4).
        ContinueWp = "continue-wp",
        /// `UFFDIO_POISON` (6.6).
        Poison = "poison",
        /// `UFFDIO_MOVE` (6.8).
        Move = "move",
        /// Write protection that the kernel lifts itself (6.7).
        WpAsync = "wp-async",
        /// Write protection of what is not populated (6.4).
        WpUnpopulated = "wp-unpopulated",
        /// Guard regions (6.13; of files since 6.15).
        Guard = "guard",
        /// `mseal(2)` (6.10).
        Seal = "seal",
        /// Memory that the kernel may drop (6.11).
        Droppable = "droppable",
        /// A regular file that is on no tmpfs.
        File = "file",
    }
}

impl Offer {
    /// The sequence whose last step succeeds where there is such a thing.
    ///
    /// # Panics
    /// Never: a test reads all of the texts.
    pub fn question(self) -> Sequence {
        let text = match self {
            Self::Wp => "map shmem a0..6; open 1; register 1 wp a0..6",
            Self::Minor => "map shmem a0..6; open 1; register 1 minor a0..6",
            Self::ContinueWp => {
                "map shmem a0..6; map shmem b0..6; user-write b0; open 1; register 1 minor+wp a0..6; \
                 continue 1 a0 wp"
            }
            Self::Poison => "map anon a0..6; open 1; register 1 missing a0..6; poison 1 a0",
            Self::Move => {
                "map anon a0..6; map anon b0..6; user-write b0; open 1; register 1 missing a0..6; \
                 move 1 a0 from b0"
            }
            Self::WpAsync => "open 1 wp-async",
            Self::WpUnpopulated => "open 1 wp-unpopulated",
            Self::Guard => "map shmem a0..6; guard a0",
            Self::Seal => "map anon a0..6; seal a0",
            Self::Droppable => "map droppable a0..6",
            Self::File => "map file a0..6",
        };
        text.parse().unwrap_or_else(|e| unreachable!("{text}: {e}"))
    }

    /// Whether the answer to [`Offer::question`] says that there is such a thing.
    pub fn is_in(self, answer: &Outcome) -> bool {
        let question = self.question();
        let last = question.steps().len();
        let verb = question.steps()[last - 1].verb();
        let said = answer.facts.get(super::perform::NAMES[last - 1]).unwrap_or_default();
        answer.end == End::Done && said.split(';').next() == Some(&format!("{verb}=0"))
    }

    /// What a step needs.
    pub fn of(step: Step) -> Option<Self> {
        Some(match step {
            Step::Open(_, Feature::WpAsync) => Self::WpAsync,
            Step::Open(_, Feature::WpUnpopulated) => Self::WpUnpopulated,
            Step::Map(Memory::Droppable, _) => Self::Droppable,
            Step::Map(Memory::File, _) => Self::File,
            Step::Treat(Treat::Guard | Treat::Unguard, _) => Self::Guard,
            Step::Treat(Treat::Seal, _) => Self::Seal,
            Step::Register(_, mode, _) if mode.has_minor() => Self::Minor,
            Step::Register(_, mode, _) if mode.has_wp() => Self::Wp,
            Step::Call(_, Op::Protect | Op::Lift, ..) => Self::Wp,
            Step::Call(_, Op::Continue, _, Extra::Wp) => Self::ContinueWp,
            Step::Call(_, Op::Continue, ..) => Self::Minor,
            Step::Call(_, Op::Poison, ..) => Self::Poison,
            Step::Relocate(..) => Self::Move,
            _ => return None,
        })
    }
}
