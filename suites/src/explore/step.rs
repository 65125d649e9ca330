//! The steps, and their text form: a verb, a context's number where one is used, pages, options.

use super::axes::{Ctx, Extra, Feature, Memory, Mode, Op, Prot, Treat, named};
use super::pages::Pages;
use crate::point::Waiter;
use std::fmt;
use std::str::FromStr;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Makes a context.
    Open(Ctx, Feature),
    /// Closes it.
    Close(Ctx),
    /// Reads all of its messages.
    Read(Ctx),
    /// `mmap(MAP_FIXED)`, over whatever is there.
    Map(Memory, Pages),
    /// One call with a range.
    Treat(Treat, Pages),
    /// `mprotect(2)`.
    Protect(Prot, Pages),
    /// `mremap(2)` of pages to others, which are as many; whether the old mapping stays
    /// (`MREMAP_DONTUNMAP`).
    Move(Pages, Pages, bool),
    /// `mremap(2)` in place, to another number of pages.
    Resize(Pages, u8),
    /// A child that loads from a page and ends.
    Fork(Pages),
    /// A thread that touches a page, in one of the ways of [`Step::ACCESSES`], and may park.
    Access(Waiter, Pages),
    /// `UFFDIO_REGISTER`.
    Register(Ctx, Mode, Pages),
    /// Any other operation on pages.
    Call(Ctx, Op, Pages, Extra),
    /// `UFFDIO_MOVE`: to, from.
    Relocate(Ctx, Pages, Pages, Extra),
}

impl Step {
    /// The ways to touch a page, simplest first.
    pub(super) const ACCESSES: [Waiter; 4] =
        [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite, Waiter::SysRead];

    /// The first word of its text; the name of the fact for what it returned.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Open(..) => "open",
            Self::Close(_) => "close",
            Self::Read(_) => "read",
            Self::Map(..) => "map",
            Self::Treat(treat, _) => treat.word(),
            Self::Protect(..) => "mprotect",
            Self::Move(.., false) => "mremap",
            Self::Move(.., true) => "mremap-keep",
            Self::Resize(..) => "mremap-resize",
            Self::Fork(_) => "fork",
            Self::Access(kind, _) => kind.word(),
            Self::Register(..) => "register",
            Self::Call(_, op, ..) => op.word(),
            Self::Relocate(..) => "move",
        }
    }

    /// The context that it uses.
    pub(super) fn context(self) -> Option<Ctx> {
        match self {
            Self::Open(ctx, _)
            | Self::Close(ctx)
            | Self::Read(ctx)
            | Self::Register(ctx, ..)
            | Self::Call(ctx, ..)
            | Self::Relocate(ctx, ..) => Some(ctx),
            _ => None,
        }
    }

    /// The pages that it names.
    pub(super) fn pages(self) -> Vec<Pages> {
        match self {
            Self::Open(..) | Self::Close(_) | Self::Read(_) => Vec::new(),
            Self::Map(_, pages)
            | Self::Treat(_, pages)
            | Self::Protect(_, pages)
            | Self::Fork(pages)
            | Self::Access(_, pages)
            | Self::Register(.., pages)
            | Self::Call(_, _, pages, _) => vec![pages],
            Self::Resize(pages, count) => vec![pages, Pages { count, ..pages }],
            Self::Move(from, to, _) | Self::Relocate(_, to, from, _) => vec![from, to],
        }
    }

    /// What is wrong with it by itself, if anything.
    pub(super) fn fault(self) -> Option<String> {
        if let Some(why) = self.pages().into_iter().find_map(Pages::fault) {
            return Some(why);
        }
        match self {
            Self::Fork(pages) | Self::Access(_, pages) if pages.count != 1 => {
                Some(format!("{pages} is more than the one page that it takes"))
            }
            Self::Move(from, to, _) | Self::Relocate(_, to, from, _) if from.count != to.count => {
                Some(format!("{from} and {to} are not as many"))
            }
            Self::Move(from, to, _) | Self::Relocate(_, to, from, _) if from.overlaps(to) => {
                Some(format!("{from} and {to} overlap"))
            }
            Self::Call(_, op, _, extra)
                if extra != Extra::Nothing && !op.options().contains(&extra) =>
            {
                Some(format!("{} takes no {}", op.word(), extra.word()))
            }
            Self::Relocate(.., Extra::Wp) => Some("move takes no wp".into()),
            _ => None,
        }
    }

    /// How much there is to understand in it.
    pub(super) fn cost(self) -> usize {
        let pages: usize =
            self.pages().iter().map(|p| usize::from(p.count) + p.place as usize).sum();
        let more = match self {
            Self::Open(ctx, feature) => ctx.index() + 20 * feature as usize,
            Self::Map(memory, _) => 20 * memory as usize,
            Self::Access(kind, _) => {
                20 * Self::ACCESSES.iter().position(|k| *k == kind).unwrap_or(0)
            }
            Self::Register(ctx, mode, _) => ctx.index() + 20 * mode as usize,
            Self::Call(ctx, _, _, extra) | Self::Relocate(ctx, .., extra) => {
                ctx.index() + 20 * extra as usize
            }
            Self::Close(ctx) | Self::Read(ctx) => ctx.index(),
            _ => 0,
        };
        pages + more
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())?;
        match self {
            Self::Open(ctx, Feature::Nothing) | Self::Close(ctx) | Self::Read(ctx) => {
                write!(f, " {ctx}")
            }
            Self::Open(ctx, feature) => write!(f, " {ctx} {}", feature.word()),
            Self::Map(memory, pages) => write!(f, " {} {pages}", memory.word()),
            Self::Protect(prot, pages) => write!(f, " {} {pages}", prot.word()),
            Self::Treat(_, pages) | Self::Fork(pages) | Self::Access(_, pages) => {
                write!(f, " {pages}")
            }
            Self::Move(from, to, _) => write!(f, " {from} to {to}"),
            Self::Resize(pages, count) => {
                write!(f, " {pages} to {}", Pages { count: *count, ..*pages })
            }
            Self::Register(ctx, mode, pages) => write!(f, " {ctx} {} {pages}", mode.word()),
            Self::Call(ctx, _, pages, extra) => {
                write!(f, " {ctx} {pages}")?;
                option(f, *extra)
            }
            Self::Relocate(ctx, to, from, extra) => {
                write!(f, " {ctx} {to} from {from}")?;
                option(f, *extra)
            }
        }
    }
}

fn option(f: &mut fmt::Formatter<'_>, extra: Extra) -> fmt::Result {
    if extra == Extra::Nothing { Ok(()) } else { write!(f, " {}", extra.word()) }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else { return Err("it is empty".into()) };
        let step = read(verb, rest)?.ok_or_else(|| {
            format!("no step begins with {verb:?}, or what follows is not what it takes")
        })?;
        step.fault().map_or(Ok(step), Err)
    }
}

/// The step of a verb and the words behind it; none if they make no step.
fn read(verb: &str, rest: &[&str]) -> Result<Option<Step>, String> {
    let extra = |word: Option<&&str>| match word {
        None => Some(Extra::Nothing),
        Some(word) => named(Extra::ALL, word, Extra::word).filter(|extra| *extra != Extra::Nothing),
    };
    let pages = |word: &str| word.parse::<Pages>();
    Ok(match (verb, rest) {
        ("open", [ctx]) => {
            named(Ctx::ALL, ctx, Ctx::word).map(|ctx| Step::Open(ctx, Feature::Nothing))
        }
        ("open", [ctx, feature]) => named(Ctx::ALL, ctx, Ctx::word)
            .zip(named(Feature::ALL, feature, Feature::word))
            .map(|(ctx, feature)| Step::Open(ctx, feature)),
        ("close", [ctx]) => named(Ctx::ALL, ctx, Ctx::word).map(Step::Close),
        ("read", [ctx]) => named(Ctx::ALL, ctx, Ctx::word).map(Step::Read),
        ("map", [memory, at]) => {
            let at = pages(at)?;
            named(Memory::ALL, memory, Memory::word).map(|memory| Step::Map(memory, at))
        }
        ("mprotect", [prot, at]) => {
            let at = pages(at)?;
            named(Prot::ALL, prot, Prot::word).map(|prot| Step::Protect(prot, at))
        }
        ("mremap", [from, "to", to]) => Some(Step::Move(pages(from)?, pages(to)?, false)),
        ("mremap-keep", [from, "to", to]) => Some(Step::Move(pages(from)?, pages(to)?, true)),
        ("mremap-resize", [from, "to", to]) => {
            let (from, to) = (pages(from)?, pages(to)?);
            let same = (from.place, from.first) == (to.place, to.first);
            same.then_some(Step::Resize(from, to.count))
        }
        ("fork", [at]) => Some(Step::Fork(pages(at)?)),
        ("register", [ctx, mode, at]) => {
            let at = pages(at)?;
            named(Ctx::ALL, ctx, Ctx::word)
                .zip(named(Mode::ALL, mode, Mode::word))
                .map(|(ctx, mode)| Step::Register(ctx, mode, at))
        }
        ("move", [ctx, to, "from", from, options @ ..]) if options.len() <= 1 => {
            let (to, from) = (pages(to)?, pages(from)?);
            let all = named(Ctx::ALL, ctx, Ctx::word).zip(extra(options.first()));
            all.map(|(ctx, extra)| Step::Relocate(ctx, to, from, extra))
        }
        (verb, [at]) if named(Treat::ALL, verb, Treat::word).is_some() => {
            let at = pages(at)?;
            named(Treat::ALL, verb, Treat::word).map(|treat| Step::Treat(treat, at))
        }
        (verb, [at]) => {
            let kind = Step::ACCESSES.into_iter().find(|kind| kind.word() == verb);
            kind.map(|kind| Ok::<_, String>(Step::Access(kind, pages(at)?))).transpose()?
        }
        (verb, [ctx, at, options @ ..]) if options.len() <= 1 => {
            let Some(op) = named(Op::ALL, verb, Op::word) else { return Ok(None) };
            let at = pages(at)?;
            let all = named(Ctx::ALL, ctx, Ctx::word).zip(extra(options.first()));
            all.map(|(ctx, extra)| Step::Call(ctx, op, at, extra))
        }
        _ => None,
    })
}
