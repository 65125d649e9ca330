//! Several pages at once, and ranges that POISON does not take.

use super::{CODE, NEEDS, QEMU, SIGBUS, asleep, block, length, map_block, open, poison, returned};
use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP};
use crate::expect::Expected;
use crate::memory::tag;
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Script, Step, Treat};

static SPAN: Probe = Probe {
    suite: "poison",
    name: "span",
    statement: "POISON of several pages stops at one that is there: EAGAIN with the length that was \
                poisoned, or EEXIST; only waiters of that part are woken.",
    consumers: &[QEMU],
};
static RANGE: Probe = Probe {
    suite: "poison",
    name: "range",
    statement: "POISON of a range that one registered mapping does not hold gives ENOENT, poisons \
                nothing and wakes nobody; whose context registered it, and for what, does not matter.",
    consumers: &[QEMU],
};

/// The suite's cases about ranges.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        let small = !backing.is_huge();
        for count in 2..=4 {
            for taken in 0..=count {
                for waits in [0, count - 1] {
                    if waits != taken {
                        let default = small && (count < 4 || backing == Backing::Anon)
                            || (count == 2 && taken == 1);
                        let script = span(backing, count, taken, waits);
                        cases.push(Case::trial(&SPAN, script, default));
                    }
                }
            }
        }
        for (kind, word) in KINDS {
            let minor =
                matches!(backing, Backing::Shmem | Backing::SharedAnon | Backing::HugetlbShared);
            if kind != Kind::OnlyMinor || minor {
                cases.push(Case::trial(&RANGE, range(kind, word, backing), small));
            }
        }
    }
    cases
}

fn span(backing: Backing, count: usize, taken: usize, waits: usize) -> Script {
    let mut steps = map_block(backing);
    if taken < count {
        steps.push(Step::Fill(block(backing, taken, 1), tag::KEPT));
    }
    steps.extend(open(backing));
    steps.extend([
        Step::Park(Ctx::First, Waiter::UserRead, block(backing, waits, 1)),
        poison(block(backing, 0, count), 0),
        Step::Look(Ctx::First),
        Step::Survey(block(backing, 0, PAGES), "reg", "pages"),
        Step::Rescue(Ctx::First),
        Step::Bits(block(backing, 0, 5), "bits"),
    ]);
    let present = if taken < count { taken.to_string() } else { "none".into() };
    let axes = format!("backing={backing},pages={count},present={present},waits={waits}");
    Script::new(axes, NEEDS, steps, move |_| {
        let says = "mfill_atomic() in mm/userfaultfd.c: what was done before an error is kept, and \
                    EAGAIN says so";
        let mut facts = match taken {
            0 => returned("EEXIST", -17, source::POISON),
            n if n == count => returned("0", count * length(backing), source::POISON),
            n => returned("EAGAIN", n * length(backing), says),
        };
        if waits < taken {
            facts.push(Expected::new("waiter", SIGBUS, CODE));
            facts.push(Expected::new("queue", "0/0", says));
        } else {
            facts.extend(asleep(says));
        }
        let bits = (0..5).map(|n| match n {
            n if n < taken.min(count) && !backing.is_huge() => 's',
            n if n == taken && taken < count => 'p',
            _ => '-',
        });
        facts.push(Expected::new("bits", bits.collect::<String>(), says));
        facts
    })
}

/// Ranges that are not simply registered for missing pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unregistered,
    Unmapped,
    EndsInHole,
    BeginsInHole,
    TwoMappings,
    HalfRegistered,
    Others,
    OnlyProtection,
    OnlyMinor,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Unregistered, "unregistered"),
    (Kind::Unmapped, "unmapped"),
    (Kind::EndsInHole, "ends-in-hole"),
    (Kind::BeginsInHole, "begins-in-hole"),
    (Kind::TwoMappings, "two-mappings"),
    (Kind::HalfRegistered, "half-registered"),
    (Kind::Others, "registered-elsewhere"),
    (Kind::OnlyProtection, "protection-only"),
    (Kind::OnlyMinor, "minor-only"),
];

fn range(kind: Kind, word: &str, backing: Backing) -> Script {
    let all = block(backing, 0, PAGES);
    let split = Treat::Advise(libc::MADV_DONTFORK, "MADV_DONTFORK");
    let mut steps = map_block(backing);
    if kind == Kind::TwoMappings {
        steps.push(Step::Prepare(split, block(backing, 3, 3)));
    }
    let mode = match kind {
        Kind::OnlyProtection => REGISTER_MODE_WP,
        Kind::OnlyMinor => REGISTER_MODE_MINOR,
        _ => REGISTER_MODE_MISSING,
    };
    let owner = if kind == Kind::Others { Ctx::Second } else { Ctx::First };
    steps.push(Step::Open(Ctx::First, 0));
    if owner == Ctx::Second {
        steps.push(Step::Open(owner, 0));
    }
    steps.push(Step::Set(owner, Call::Register(all, mode)));
    let waits = mode == REGISTER_MODE_MISSING;
    if waits {
        steps.push(Step::Park(owner, Waiter::UserRead, block(backing, 2, 1)));
    }
    steps.extend(match kind {
        // The waiter waits for the page before and stays registered.
        Kind::Unregistered => Some(Step::Set(Ctx::First, Call::Unregister(block(backing, 3, 1)))),
        Kind::HalfRegistered => Some(Step::Set(Ctx::First, Call::Unregister(block(backing, 3, 3)))),
        Kind::Unmapped => Some(Step::Prepare(Treat::Unmap, block(backing, 2, 1))),
        Kind::EndsInHole => Some(Step::Prepare(Treat::Unmap, block(backing, 3, 3))),
        Kind::BeginsInHole => Some(Step::Prepare(Treat::Unmap, block(backing, 1, 1))),
        _ => None,
    });
    let target = match kind {
        Kind::Unregistered => block(backing, 3, 1),
        Kind::BeginsInHole => block(backing, 1, 2),
        Kind::EndsInHole | Kind::TwoMappings | Kind::HalfRegistered => block(backing, 2, 2),
        _ => block(backing, 2, 1),
    };
    steps.extend([
        poison(target, 0),
        Step::Look(owner),
        Step::Bits(block(backing, 1, 3), "bits"),
        Step::Rescue(owner),
    ]);
    let axes = format!("backing={backing},range={word}");
    Script::new(axes, NEEDS, steps, move |_| {
        let takes = matches!(kind, Kind::Others | Kind::OnlyProtection | Kind::OnlyMinor);
        let says = if takes {
            "validate_dst_vma() in mm/userfaultfd.c asks for some context, not for the caller's or \
             its modes; the wake-up goes to the caller's context"
        } else {
            source::POISON_ENOENT
        };
        let mut facts =
            if takes { returned("0", length(backing), says) } else { returned("ENOENT", -2, says) };
        if waits {
            facts.extend([
                Expected::new("waiter", "asleep", says),
                Expected::new("queue", "1/0", says),
            ]);
            let rescued = match kind {
                Kind::Unmapped => "SEGV_MAPERR",
                Kind::Others => SIGBUS,
                _ => "again",
            };
            facts.push(Expected::new("rescued", rescued, source::RERUN));
        }
        // pagemap shows nothing of a huge page's marker.
        let marked = takes && !backing.is_huge();
        facts.push(Expected::new("bits", if marked { "-s-" } else { "---" }, says));
        facts
    })
}
