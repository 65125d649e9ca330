//! The rules of single calls: what they return, and what is then mapped, registered and present.

use super::Objection;
use super::state::{Known, Owner, Page, State, Words, each};
use crate::explore::{Ctx, Extra, Feature, Memory, Mode, Op, Pages, Prot, Step, Treat};
use crate::memory::PAGE;
use crate::point::Waiter;

const REGISTER: &str = "ioctl_userfaultfd(2), UFFDIO_REGISTER: on success the mappings of the range are \
                        registered for the modes that were asked for";
const BUSY: &str = "ioctl_userfaultfd(2), UFFDIO_REGISTER: EBUSY if a mapping of the range is registered \
                    with another userfaultfd";
const NOTHING: &str =
    "ioctl_userfaultfd(2), UFFDIO_REGISTER: EINVAL if there is no mapping in the range";
const UNREGISTER: &str = "ioctl_userfaultfd(2), UFFDIO_UNREGISTER: on success nothing of the range is \
                          registered with this userfaultfd any more";
const WAKE: &str = "ioctl_userfaultfd(2), UFFDIO_WAKE: wakes the threads that wait in the range; whether it is \
                    still mapped or registered is not asked";
const PLACED: &str = "ioctl_userfaultfd(2): on success the field holds the length, the pages are there, and the \
                      threads that wait for them are woken unless DONTWAKE is given";
const EXISTS: &str =
    "ioctl_userfaultfd(2), UFFDIO_COPY and UFFDIO_ZEROPAGE: EEXIST if a page is mapped there";
const MISSING: &str = "ioctl_userfaultfd(2), UFFDIO_COPY and UFFDIO_ZEROPAGE: a missing page of registered \
                       memory is placed";
const GONE: &str = "ioctl_userfaultfd(2), UFFDIO_COPY and UFFDIO_ZEROPAGE: ENOENT if the page's mapping is gone \
                    or not registered";
const CLOSED: &str = "close(2), userfaultfd(2): the last close takes the registration away";
const UNMAPPED: &str = "munmap(2): there is no mapping any more";
const MAPPED: &str = "mmap(2), MAP_FIXED: what was there is gone, and its registration with it; nothing of the new \
                      mapping is present";
const DISCARDED: &str = "madvise(2), MADV_DONTNEED: pages of private anonymous memory are gone, the mapping and \
                         its registration stay";
const MOVED: &str = "mremap(2): the pages are at their new place and nothing is at the old one";
const DROPPED: &str = "userfaultfd(2), UFFD_FEATURE_EVENT_REMAP: with it the registration moves along, without \
                       it it is dropped";
const FAULTS: &str =
    "userfaultfd(2): a touch of a missing page that is registered for missing pages waits";
const PASSES: &str = "userfaultfd(2): a touch waits only for a page of a registered range; a load never for one \
                      that is present";
const FAILS: &str = "mmap(2): a touch of what is not mapped gives SIGSEGV or EFAULT";

/// What the rules have against what a call returned, or made of its range.
pub(super) fn object(
    before: &State,
    step: Step,
    said: &str,
    words: &Words<'_>,
    after: &State,
) -> Option<Objection> {
    let done = said == "0";
    let is_told = |number: usize| words.get(&format!("w{number}")).is_some();
    match step {
        Step::Register(ctx, mode, pages) => register(before, (ctx, mode, pages), done, after),
        Step::Call(_, Op::Wake, ..) if !done => Some(wanted(step, "0", WAKE)),
        Step::Call(ctx, Op::Unregister, pages, _) if done => {
            let owner = Owner::Context(ctx);
            let goes = |page| each(pages).any(|p| p == page) && before.known(page).owner == owner;
            registration(after, UNREGISTER, |page| goes(page).then_some(b'.'))
        }
        Step::Call(ctx, op, pages, extra) => {
            let placed = place(before, step, (ctx, op, pages, extra), (said, words), after);
            if placed.is_some() {
                return placed;
            }
            let left = before.waiting.iter().find(|waiting| {
                let wakes = op.wakes() && extra != Extra::DontWake && done;
                wakes
                    && waiting.ctx == Some(ctx)
                    && waiting.is_in(pages)
                    && !is_told(waiting.number)
            });
            let rule = if op == Op::Wake { WAKE } else { PLACED };
            left.map(|left| (format!("w{}", left.number), "woken".to_owned(), rule))
        }
        Step::Close(ctx) if done => {
            let goes = |page| before.known(page).owner == Owner::Context(ctx);
            registration(after, CLOSED, |page| goes(page).then_some(b'.'))
        }
        Step::Treat(Treat::Unmap, pages) if done => cleared(after, pages, b'-', UNMAPPED),
        Step::Map(_, pages) if done => cleared(after, pages, b'.', MAPPED),
        Step::Treat(Treat::DontNeed, pages) if done => {
            let is_anon = |page| before.known(page).memory == Some(Memory::Anon);
            content(after, DISCARDED, |page| {
                (each(pages).any(|p| p == page) && is_anon(page)).then_some(b'-')
            })
        }
        Step::Move(from, to, false) if done => moved(before, (from, to), after),
        Step::Access(kind, page) => access(before, step, kind, page, said),
        _ => None,
    }
}

/// That a step should have returned something else.
fn wanted(step: Step, value: &str, rule: &'static str) -> Objection {
    (step.verb().to_owned(), value.to_owned(), rule)
}

/// Holds registration against what a rule has for some pages.
fn registration(
    after: &State,
    rule: &'static str,
    letter: impl Fn(Page) -> Option<u8>,
) -> Option<Objection> {
    let row = State::differing_registration(after, |page| {
        letter(page).unwrap_or(after.registration(page))
    })?;
    Some((row.0, row.1, rule))
}

/// The same of content.
fn content(
    after: &State,
    rule: &'static str,
    letter: impl Fn(Page) -> Option<u8>,
) -> Option<Objection> {
    let row = State::differing_content(after, |page| letter(page).unwrap_or(after.content(page)))?;
    Some((row.0, row.1, rule))
}

/// Registration and content of pages whose mapping is new or gone.
fn cleared(after: &State, pages: Pages, letter: u8, rule: &'static str) -> Option<Objection> {
    let is_in = |page| each(pages).any(|p| p == page);
    registration(after, rule, |page| is_in(page).then_some(letter))
        .or_else(|| content(after, rule, |page| is_in(page).then_some(b'-')))
}

fn register(
    before: &State,
    (ctx, mode, pages): (Ctx, Mode, Pages),
    done: bool,
    after: &State,
) -> Option<Objection> {
    if !done {
        return None;
    }
    let step = Step::Register(ctx, mode, pages);
    let is_other = |page| matches!(before.known(page).owner, Owner::Context(o) if o != ctx);
    if each(pages).any(is_other) {
        return Some(wanted(step, "EBUSY", BUSY));
    }
    if each(pages).all(|page| before.registration(page) == b'-') {
        return Some(wanted(step, "EINVAL", NOTHING));
    }
    registration(after, REGISTER, |page| {
        let is_new = each(pages).any(|p| p == page) && before.registration(page) != b'-';
        let lacks = is_new && !shows(after.registration(page), mode);
        lacks.then(|| letter(mode))
    })
}

/// Whether a letter of registration holds all modes; see [`crate::evidence::registration`].
fn shows(letter: u8, mode: Mode) -> bool {
    let holds: &[u8] = match mode {
        Mode::Missing => b"mWIRX",
        Mode::Wp => b"wWX",
        Mode::MissingWp => b"WX",
        Mode::Minor => b"iIX",
        Mode::MissingMinor => b"IX",
        Mode::MinorWp => b"X",
    };
    holds.contains(&letter)
}

const fn letter(mode: Mode) -> u8 {
    match mode {
        Mode::Missing => b'm',
        Mode::Wp => b'w',
        Mode::MissingWp => b'W',
        Mode::Minor => b'i',
        Mode::MissingMinor => b'I',
        Mode::MinorWp => b'X',
    }
}

impl Op {
    /// Whether it wakes those who wait in its range.
    const fn wakes(self) -> bool {
        !matches!(self, Self::Protect | Self::Unregister)
    }
}

/// COPY and ZEROPAGE: what they return of one page whose state is known, and what they leave.
fn place(
    before: &State,
    step: Step,
    (ctx, op, pages, extra): (Ctx, Op, Pages, Extra),
    (said, words): (&str, &Words<'_>),
    after: &State,
) -> Option<Objection> {
    if !matches!(op, Op::Copy | Op::Zeropage) {
        return None;
    }
    let bytes = (usize::from(pages.count) * PAGE).to_string();
    if said == "0" {
        if words.get("field") != Some(&bytes) {
            return Some(("field".to_owned(), bytes, PLACED));
        }
        // Memory of files is shared with other places, and need not be mapped where it is placed.
        let is_ours = |page| {
            each(pages).any(|p| p == page) && before.known(page).memory == Some(Memory::Anon)
        };
        let placed = if op == Op::Copy { b'c' } else { b'0' };
        let lacks = content(after, PLACED, |page| {
            (is_ours(page) && after.content(page) == b'-').then_some(placed)
        });
        if lacks.is_some() {
            return lacks;
        }
    }
    // An unread event makes every answer EAGAIN; of several pages the first one that fails counts.
    let page = each(pages).next().filter(|_| pages.count == 1)?;
    if before.feature(ctx) == Some(Feature::Events) || extra == Extra::Wp {
        return None;
    }
    let Known { memory, prot, owner, marked } = before.known(page);
    let (answer, rule) = match (before.registration(page), before.content(page)) {
        (b'-' | b'.', _) => ("ENOENT", GONE),
        _ if memory != Some(Memory::Anon) || prot != Some(Prot::Write) || marked => return None,
        _ if owner != Owner::Context(ctx) => return None,
        (_, b'-') => ("0", MISSING),
        (_, _) => ("EEXIST", EXISTS),
    };
    (said != answer).then(|| wanted(step, answer, rule))
}

fn moved(before: &State, (from, to): (Pages, Pages), after: &State) -> Option<Objection> {
    let source = |page: Page| each(to).zip(each(from)).find(|(t, _)| *t == page).map(|(_, f)| f);
    let is_left = |page| each(from).any(|f| f == page);
    let carried = |page: Page| {
        let (known, letter) = (before.known(page), before.registration(page));
        match known.owner {
            // Several mappings, with what is between them, can move at once since 6.17; what is done to the
            // places for what is between is not said.
            _ if letter == b'-' => None,
            Owner::Unsure => None,
            Owner::Context(ctx) if before.feature(ctx) == Some(Feature::Events) => Some(letter),
            _ => Some(b'.'),
        }
    };
    let of = |page: Page| match source(page) {
        Some(source) => carried(source),
        None => is_left(page).then_some(b'-'),
    };
    registration(after, DROPPED, of).or_else(|| {
        content(after, MOVED, |page| match source(page) {
            Some(source)
                if before.known(source).memory == Some(Memory::Anon)
                    && before.registration(source) != b'-' =>
            {
                Some(before.content(source))
            }
            Some(_) => None,
            None => is_left(page).then_some(b'-'),
        })
    })
}

/// A thread that touches a page.
fn access(before: &State, step: Step, kind: Waiter, pages: Pages, said: &str) -> Option<Objection> {
    let page = each(pages).next()?;
    let waits = said == "waits";
    let Known { memory, prot, owner, marked } = before.known(page);
    let (registered, present) = (before.registration(page), before.content(page) != b'-');
    match registered {
        b'-' => {
            let ran = said == "ran" || said.starts_with("ran:");
            let fails = if kind.in_kernel() { "EFAULT" } else { "SEGV_MAPERR" };
            (waits || ran).then(|| wanted(step, fails, FAILS))
        }
        b'.' if waits => Some(wanted(step, "ran", PASSES)),
        _ if waits && present && !kind.write_faults(crate::point::Backing::Anon) => {
            Some(wanted(step, "ran", PASSES))
        }
        b'm' | b'W' if memory == Some(Memory::Anon) && prot == Some(Prot::Write) => {
            let Owner::Context(ctx) = owner else { return None };
            let sigbus = before.feature(ctx) == Some(Feature::Sigbus);
            (!present && !marked && !sigbus && !waits).then(|| wanted(step, "waits", FAULTS))
        }
        _ => None,
    }
}
