//! Performs the steps of a script.

use super::areas::{Areas, allow_huge_pages, huge_bytes, must_be_huge};
use super::{Call, Ctx, Memory, Span, Step, Treat};
use crate::abi::{Field, Message, Rc, Uffd};
use crate::evidence::{self, QueueFile};
use crate::memory::{Block, HUGE, map, remap, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Discard, PAGES};
use crate::process::Offspring;
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use crate::{touch, treat};
use std::sync::OnceLock;

/// A context with its fault queue.
struct Context {
    uffd: Uffd,
    queue: QueueFile,
}

/// The state between steps.
pub(super) struct Act<'a> {
    stage: &'a Stage,
    areas: Areas<'a>,
    contexts: [Option<&'static Context>; 2],
    waiter: Option<(Waiter, Span, Fate)>,
    /// What a call returns if somebody else disturbed it.
    transient: &'static [&'static str],
}

impl<'a> Act<'a> {
    pub(super) fn new(stage: &'a Stage, transient: &'static [&'static str]) -> Self {
        Self {
            stage,
            transient,
            areas: Areas::new(stage),
            contexts: [const { None }; 2],
            waiter: None,
        }
    }

    fn context(&self, ctx: Ctx) -> Result<&'static Context, Stop> {
        let context = self.contexts[ctx as usize];
        context.ok_or_else(|| Stop::Broken("a step uses a context that is not open".into()))
    }

    /// Makes the call that the question is about.
    fn ask(
        &mut self,
        ctx: Ctx,
        call: Call,
        (rc_name, field_name): (&'static str, &'static str),
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        seen.step(rc_name);
        let (rc, field) = self.call(ctx, call)?;
        let rc = rc.to_string();
        if self.transient.contains(&rc.as_str()) {
            seen.disturbed();
        }
        seen.fact(rc_name, rc);
        if let Some(field) = field {
            seen.fact(field_name, field);
        }
        Ok(())
    }

    /// Performs one step.
    pub(super) fn step(&mut self, step: Step, seen: &mut Seen<'_>) -> Result<(), Stop> {
        match step {
            Step::OnlyInVm if self.stage.disposable => {}
            Step::OnlyInVm => {
                let why = "some kernels do not survive it: only asked in a VM";
                return Err(Stop::Precondition(why.into()));
            }
            Step::Map(span, memory) => self.areas.map(span, memory)?,
            Step::Fill(span, value) => each(span, |at| touch::store(at, value))?,
            Step::Load(span) => each(span, |at| touch::load(at).map(|_| ()))?,
            Step::Cache(span) => {
                let area = self.areas.at(span)?;
                (span.first..span.first + span.count).try_for_each(|page| area.fill_cache(page))?;
            }
            Step::MustBeHuge(span) => must_be_huge(span)?,
            Step::ForbidHuge => allow_huge_pages(false)?,
            Step::Open(ctx, features) => {
                let uffd = self.stage.uffd(features)?;
                let queue = QueueFile::open(&uffd)?;
                // A thread may use it for as long as the process lives.
                self.contexts[ctx as usize] = Some(Box::leak(Box::new(Context { uffd, queue })));
            }
            Step::Set(ctx, call) => match (self.call(ctx, call)?.0, call) {
                (Rc(None), _) => {}
                (Rc(Some(errno)), Call::Register(..)) => {
                    return Err(Stop::Unsupported(format!("REGISTER: {errno:?}")));
                }
                (rc, _) => return Err(Stop::Broken(format!("{call:?} of the set-up: {rc}"))),
            },
            Step::Prepare(treat, span) => match self.treat(treat, span)? {
                Rc(None) => {}
                Rc(Some(errno)) => {
                    return Err(Stop::Unsupported(format!("{}: {errno:?}", treat.call())));
                }
            },
            Step::Park(ctx, kind, span) => {
                seen.step("park");
                let Context { uffd, queue } = self.context(ctx)?;
                let waiter = Waiter::park(self.stage, kind, page(span), uffd, queue)?;
                seen.fact("fault", read_fault(uffd)?);
                self.waiter = Some((waiter, span, Fate::Asleep));
            }
            Step::Do(ctx, call, rc, field) => self.ask(ctx, call, (rc, field), seen)?,
            Step::WhilePinned(ctx, call) => self.while_pinned(ctx, call, seen)?,
            Step::Treat(treat, span, name) => {
                seen.step(name);
                seen.fact(name, self.treat(treat, span)?);
            }
            Step::Look(ctx) => {
                self.look(ctx, "waiter", seen)?;
                if self.waiter.is_some() {
                    seen.fact("queue", self.context(ctx)?.queue.read()?);
                }
            }
            Step::Glance(ctx, name) => self.look(ctx, name, seen)?,
            Step::Rescue(ctx) => self.rescue(ctx, seen)?,
            Step::Survey(span, reg, pages) => {
                seen.step("survey");
                let letter = |value| self.stage.letter(value);
                let rows = evidence::registration(&[(span.range(), span.unit)])?;
                seen.fact(reg, rows.concat());
                seen.fact(pages, evidence::pages(span.range(), span.unit, &letter)?);
            }
            Step::Huge(span, name) => {
                seen.fact(name, huge_bytes(span)? / HUGE as u64);
            }
            Step::Bits(span, name) => seen.fact(name, treat::bits(span.range(), span.unit)?),
            Step::Touch(ctx, kind, span, name) => {
                seen.step(name);
                let Context { uffd, queue } = self.context(ctx)?;
                let mut waiter = Waiter::start(self.stage, kind, page(span))?;
                let fate = waiter.settle(uffd, queue)?;
                seen.fact(
                    name,
                    match fate {
                        Fate::Again => format!("parks:{}", read_fault(uffd)?),
                        other => self.stage.word(other),
                    },
                );
            }
            Step::ChildLoads(span, name) => {
                seen.step(name);
                let child =
                    Offspring::here(self.stage, || match touch::load(span.range().start) {
                        Ok(value) => crate::waiter::content(self.stage.tag(value)).to_owned(),
                        Err(signal) => signal.to_string(),
                    })?;
                seen.fact(name, child.word()?);
                child.end()?;
            }
        }
        Ok(())
    }

    fn while_pinned(&self, ctx: Ctx, call: Call, seen: &mut Seen<'_>) -> Result<(), Stop> {
        const TICKS: u64 = 20;
        let Call::Move(to, from, mode) = call else {
            return Err(Stop::Broken(format!("{call:?} does not meet pins")));
        };
        crate::mover::may_spin(self.stage)?;
        seen.step("move");
        let context = self.context(ctx)?;
        let field: &'static OnceLock<Field> = Box::leak(Box::new(OnceLock::new()));
        let mover = crate::mover::Mover::start(self.stage, move || {
            let (rc, moved) = context.uffd.relocate(to.range(), from.range().start, mode);
            let _ = field.set(moved);
            rc
        })?;
        seen.fact("spins", mover.spins(TICKS)?);
        seen.step("unpin");
        let rc = treat::unpin();
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("closing the ring: {rc}")));
        }
        seen.fact("move", mover.join()?);
        let stored = field.get().ok_or_else(|| Stop::Broken("no result field".into()))?;
        seen.fact("field", stored);
        Ok(())
    }

    fn look(&mut self, ctx: Ctx, name: &'static str, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Some((mut waiter, span, mut fate)) = self.waiter.take() else { return Ok(()) };
        let Context { uffd, queue } = self.context(ctx)?;
        if fate.waits() {
            fate = waiter.look(uffd, queue)?;
        }
        seen.fact(name, self.stage.word(fate));
        self.waiter = Some((waiter, span, fate));
        Ok(())
    }

    fn rescue(&mut self, ctx: Ctx, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Some((mut waiter, span, fate)) = self.waiter.take() else { return Ok(()) };
        if fate.waits() {
            seen.step("rescue");
            let Context { uffd, queue } = self.context(ctx)?;
            // A message of its own would be taken for the unread old one.
            while uffd.read().is_ok() {}
            let rc = uffd.wake(page(span));
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("WAKE of the waiter's page: {rc}")));
            }
            seen.fact("rescued", self.stage.word(waiter.look(uffd, queue)?));
            while uffd.read().is_ok() {}
        }
        Ok(())
    }

    fn call(&self, ctx: Ctx, call: Call) -> Result<(Rc, Option<Field>), Stop> {
        let uffd = &self.context(ctx)?.uffd;
        let with = |(rc, field): (Rc, Field)| (rc, Some(field));
        Ok(match call {
            Call::Copy(span, mode) => {
                let source = if span.range().len > HUGE {
                    self.stage.long_source()?
                } else {
                    self.stage.source
                };
                with(uffd.copy(span.range(), source, mode))
            }
            Call::CopyFrom(to, from) => with(uffd.copy(to.range(), from.range().start, 0)),
            Call::Zeropage(span, mode) => with(uffd.zeropage(span.range(), mode)),
            Call::Continue(span, mode) => with(uffd.resume(span.range(), mode)),
            Call::Poison(span, mode) => with(uffd.poison(span.range(), mode)),
            Call::Move(to, from, mode) => with(uffd.relocate(to.range(), from.range().start, mode)),
            Call::Wp(span, mode) => (uffd.writeprotect(span.range(), mode), None),
            Call::Register(span, mode) => (Rc(uffd.register(span.range(), mode).err()), None),
            Call::Unregister(span) => (uffd.unregister(span.range()), None),
            Call::Wake(span) => (uffd.wake(span.range()), None),
        })
    }

    fn treat(&mut self, what: Treat, span: Span) -> Result<Rc, Stop> {
        let at = span.range();
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        Ok(match what {
            Treat::Advise(treat::COLLAPSE, _) => treat::collapse(at)?,
            Treat::Advise(advice, _) => crate::memory::advise(at, advice),
            Treat::Punch => {
                self.areas.at(span)?.discard(Discard::Punch, span.first..span.first + span.count)?
            }
            Treat::Unmap => unmap(at),
            Treat::MapOver(memory) => {
                let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                match memory {
                    Memory::Anon(prot) => map(at, prot, anon, None, 0),
                    Memory::Of(backing) => {
                        let area = self.areas.at(span)?;
                        let pages = span.first..span.first + span.count;
                        let again = Block { backing, page: area.page, file: None };
                        if backing == area.backing { area } else { &again }.map_pages(
                            pages,
                            span.place.base(),
                            0,
                        )
                    }
                    other => return Err(Stop::Broken(format!("mapping {other:?} over an area"))),
                }
            }
            Treat::MoveTo(place) => remap(at, at.len, moving, place.base()),
            Treat::DontUnmapTo(place) => {
                remap(at, at.len, moving | libc::MREMAP_DONTUNMAP, place.base())
            }
            Treat::Protect(prot) => crate::memory::protect(at, prot),
            Treat::LockOnFault => treat::lock(at, libc::MLOCK_ONFAULT),
            Treat::Lock => treat::lock(at, 0),
            Treat::Seal => treat::seal(at),
            Treat::SealFile(seal, _) => self.areas.seal_file(span, seal)?,
            Treat::HwPoison => treat::poison(at),
            // Before any userfaultfd is made, whose last close would else be the child's.
            Treat::Fork => {
                // It stays for as long as the case.
                std::mem::forget(Offspring::idle(self.stage)?);
                Rc::OK
            }
            Treat::ForkGone => {
                Offspring::here(self.stage, String::new)?.end()?;
                Rc::OK
            }
            Treat::Pin => treat::pin(at)?,
            Treat::Splice => treat::splice(at)?,
            Treat::TruncateAndGrow => {
                let whole = 2 * PAGES * span.unit;
                match self.areas.truncate(span, span.first * span.unit)? {
                    Rc(None) => self.areas.truncate(span, whole)?,
                    rc => rc,
                }
            }
        })
    }
}

/// The first page of a span.
fn page(span: Span) -> crate::abi::Range {
    crate::abi::Range { len: span.unit, ..span.range() }
}

fn each(span: Span, access: impl Fn(usize) -> Result<(), touch::Signal>) -> Result<(), Stop> {
    let range = span.range();
    (range.start..range.end()).step_by(span.unit).try_for_each(|at| {
        access(at).map_err(|signal| Stop::Broken(format!("setting up {span:?}: {signal}")))
    })
}

/// Reads one message of a fault: `read`, `wp-write`.
fn read_fault(uffd: &Uffd) -> Result<String, Stop> {
    match uffd.read() {
        Ok(Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        other => Err(Stop::Broken(format!("reading the waiter's message: {other:?}"))),
    }
}
