//! A sequence as the lines of a probe: a script as far as [`crate::script`] has its steps, for a
//! person to complete with a statement, a suite, and what is to be expected.

use super::Sequence;
use super::axes::{Ctx, Extra, Feature, Memory, Op, Prot, Treat};
use super::pages::{Pages, Place};
use super::step::Step;
use crate::point::Waiter;

/// The lines.
pub(super) fn lines(sequence: &Sequence) -> Vec<String> {
    let steps = sequence.steps();
    let mut lines = vec!["vec![".to_owned()];
    let mut mapped: Vec<Place> = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let is_last = n + 1 == steps.len();
        let text = script_step(*step, &mapped, is_last);
        if let Step::Map(_, pages) = step {
            mapped.push(pages.place);
        }
        lines.push(match text {
            Some(text) => format!("    {text},"),
            None => format!("    // scripts have no such step yet: {}", step.sentence()),
        });
    }
    let mut places: Vec<Pages> = steps.iter().copied().flat_map(Step::pages).collect();
    places.sort_by_key(|pages| (pages.place, std::cmp::Reverse(pages.end())));
    places.dedup_by_key(|pages| pages.place);
    for pages in places {
        let all = Pages::new(pages.place, 0, pages.end());
        let names = match pages.place {
            Place::A => ("reg", "pages"),
            Place::B => ("new-reg", "new-pages"),
            Place::C => ("other-reg", "other-pages"),
        };
        lines.push(format!("    Step::Survey({}, {:?}, {:?}),", span(all), names.0, names.1));
    }
    lines.push("]".to_owned());
    lines
}

/// The step of a script; none if scripts have no such step.
fn script_step(step: Step, mapped: &[Place], is_last: bool) -> Option<String> {
    let verb = step.verb();
    Some(match step {
        Step::Open(ctx, feature) => {
            let features = match feature {
                Feature::Nothing => "0",
                // Someone has to read the events.
                Feature::Events => return None,
                Feature::Sigbus => "features::SIGBUS",
                Feature::WpAsync => "features::WP_ASYNC",
                Feature::WpUnpopulated => "features::WP_UNPOPULATED",
            };
            format!("Step::Open({}, {features})", context(ctx))
        }
        Step::Map(memory, pages) => {
            let memory = match memory {
                Memory::Anon => "Memory::Anon(RW)",
                Memory::None => "Memory::Anon(libc::PROT_NONE)",
                Memory::SharedAnon => "Memory::Of(Backing::SharedAnon)",
                Memory::Shmem => "Memory::Of(Backing::Shmem)",
                Memory::Private => "Memory::Of(Backing::Private)",
                Memory::File => "Memory::File",
                Memory::Droppable => return None,
            };
            if mapped.contains(&pages.place) {
                format!("Step::Treat(Treat::MapOver({memory}), {}, {verb:?})", span(pages))
            } else if pages.first == 0 {
                format!("Step::Map({}, {memory})", span(pages))
            } else {
                return None;
            }
        }
        Step::Treat(treat, pages) => treated(treat_word(treat)?, pages, verb),
        Step::Protect(prot, pages) => {
            let prot = match prot {
                Prot::None => "libc::PROT_NONE",
                Prot::Read => "libc::PROT_READ",
                Prot::Write => "RW",
            };
            treated(&format!("Treat::Protect({prot})"), pages, verb)
        }
        // A script moves to the first page of a place.
        Step::Move(from, to, keeps) if to.first == 0 => {
            let name = if keeps { "DontUnmapTo" } else { "MoveTo" };
            treated(&format!("Treat::{name}({})", place(to.place)), from, verb)
        }
        Step::Fork(page) => format!("Step::ChildLoads({}, {verb:?})", span(page)),
        Step::Access(kind, page) => {
            let kind = match kind {
                Waiter::UserRead => "UserRead",
                Waiter::UserWrite => "UserWrite",
                Waiter::SysWrite => "SysWrite",
                _ => "SysRead",
            };
            format!("Step::Touch(Ctx::First, Waiter::{kind}, {}, {verb:?})", span(page))
        }
        Step::Register(ctx, mode, pages) => {
            let bits = mode.word().split('+').map(|mode| match mode {
                "missing" => "REGISTER_MODE_MISSING",
                "wp" => "REGISTER_MODE_WP",
                _ => "REGISTER_MODE_MINOR",
            });
            let bits: Vec<&str> = bits.collect();
            let call = format!("Call::Register({}, {})", span(pages), bits.join(" | "));
            operation(ctx, &call, verb, is_last)
        }
        Step::Call(ctx, op, pages, extra) => {
            let mode = match (op, extra) {
                (Op::Protect, _) => "WRITEPROTECT_MODE_WP",
                (Op::Lift, Extra::DontWake) => "WRITEPROTECT_MODE_DONTWAKE",
                (_, Extra::DontWake) => "COPY_MODE_DONTWAKE",
                (_, Extra::Wp) => "COPY_MODE_WP",
                _ => "0",
            };
            let span = span(pages);
            let call = match op {
                Op::Copy => format!("Call::Copy({span}, {mode})"),
                Op::Zeropage => format!("Call::Zeropage({span}, {mode})"),
                Op::Continue => format!("Call::Continue({span}, {mode})"),
                Op::Poison => format!("Call::Poison({span}, {mode})"),
                Op::Protect | Op::Lift => format!("Call::Wp({span}, {mode})"),
                Op::Unregister => format!("Call::Unregister({span})"),
                Op::Wake => format!("Call::Wake({span})"),
            };
            operation(ctx, &call, verb, is_last)
        }
        Step::Relocate(ctx, to, from, extra) => {
            let mode = match extra {
                Extra::DontWake => "COPY_MODE_DONTWAKE",
                Extra::Holes => "MOVE_MODE_ALLOW_SRC_HOLES",
                _ => "0",
            };
            let call = format!("Call::Move({}, {}, {mode})", span(to), span(from));
            operation(ctx, &call, verb, is_last)
        }
        Step::Close(_) | Step::Read(_) | Step::Resize(..) | Step::Move(..) => return None,
    })
}

/// What a script calls it.
const fn treat_word(treat: Treat) -> Option<&'static str> {
    Some(match treat {
        Treat::Unmap => "Treat::Unmap",
        Treat::DontNeed => "DONTNEED",
        Treat::Remove => "REMOVE",
        Treat::Lock => "Treat::LockOnFault",
        Treat::Guard => "GUARD",
        Treat::Unguard => "UNGUARD",
        Treat::Seal => "Treat::Seal",
        Treat::DontFork | Treat::WipeOnFork | Treat::Unlock => return None,
    })
}

fn treated(treat: &str, pages: Pages, verb: &str) -> String {
    format!("Step::Treat({treat}, {}, {verb:?})", span(pages))
}

/// An operation whose result is a fact; the last one's field, too.
fn operation(ctx: Ctx, call: &str, verb: &str, is_last: bool) -> String {
    let field = if is_last { "field".to_owned() } else { format!("{verb}-field") };
    format!("Step::Do({}, {call}, {verb:?}, {field:?})", context(ctx))
}

const fn context(ctx: Ctx) -> &'static str {
    match ctx {
        Ctx::First => "Ctx::First",
        Ctx::Second => "Ctx::Second",
    }
}

const fn place(place: Place) -> &'static str {
    match place {
        Place::A => "Place::Block",
        Place::B => "Place::Elsewhere",
        Place::C => "Place::Other",
    }
}

fn span(pages: Pages) -> String {
    format!("Span::new({}, {}, {})", place(pages.place), pages.first, pages.count)
}
