//! The ground of every case: a block in which the ioctl with good arguments would do its work and
//! wake a parked thread, so that a refusal shows in what does not happen.

use crate::abi::command::{Command, WORDS};
use crate::abi::{
    Field, REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, SENTINEL,
    WRITEPROTECT_MODE_WP, features, newer,
};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, PAGE, RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Waiter as Kind};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};

/// Where argument structs stand: two pages, each on its own.
pub(super) const ARGUMENT: usize = SPARE + (64 << 20);
/// The page that the thread waits for.
pub(super) const TARGET: usize = 2;

/// What an argument struct holds.
pub(super) type Words = [u64; WORDS];

/// An ioctl, and the waiter that it could wake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    /// The ioctl.
    pub(super) command: Command,
    /// What backs the block.
    pub(super) backing: Backing,
    /// Whether the waiter faults in kernel mode, with its message unread; else it is a plain access
    /// whose message was read.
    pub(super) in_kernel: bool,
}

impl Ground {
    /// The axes as ids write them.
    pub(super) fn axes(self) -> String {
        let Self { command, backing, .. } = self;
        let Point { waiter, msg, .. } = self.point();
        format!("ioctl={command},backing={backing},waiter={waiter},msg={msg}")
    }

    /// Whether the ioctl has any meaning on the backing.
    pub(super) fn applies(command: Command, backing: Backing) -> bool {
        match command {
            Command::Continue => {
                !matches!(backing, Backing::Anon | Backing::SharedAnon | Backing::HugetlbPrivate)
                    && backing != Backing::Private
            }
            Command::Move => backing.is_anon(),
            _ => true,
        }
    }

    /// Whether the ioctl, with good arguments, does anything on the backing.
    pub(super) fn works(self) -> bool {
        !(self.command == Command::Zeropage && self.backing.is_huge())
    }

    /// For what the block is registered.
    pub(super) fn mode(self) -> u64 {
        match self.command {
            Command::Continue => REGISTER_MODE_MINOR,
            Command::Writeprotect => REGISTER_MODE_WP,
            Command::Rwprotect => newer::REGISTER_MODE_RWP,
            _ => REGISTER_MODE_MISSING,
        }
    }

    /// How its registration looks.
    pub(super) fn letter(self) -> &'static str {
        match self.command {
            Command::Continue => "i",
            Command::Writeprotect => "w",
            _ => "m",
        }
    }

    /// The point whose waiter parks.
    pub(super) fn point(self) -> Point {
        let stores = self.command == Command::Writeprotect;
        let waiter = match (self.in_kernel, stores) {
            (false, false) => Kind::UserRead,
            (false, true) => Kind::UserWrite,
            (true, false) => Kind::SysWrite,
            (true, true) => Kind::SysRead,
        };
        let msg = if self.in_kernel { Msg::Unread } else { Msg::Read };
        let (mode, change, op) = (Mode::Missing, Change::None, Op::Look);
        Point { backing: self.backing, mode, change, waiter, msg, op }
    }

    /// Sets the scene with a context that has `features`: as [`Scene::set`] does it, and for
    /// read-write protection.
    pub(super) fn scene(self, stage: &Stage, wanted: u64) -> Result<Scene<'_>, Stop> {
        let broken = |what: &str, e: &dyn std::fmt::Display| Stop::Broken(format!("{what}: {e}"));
        stage.must_offer(self.command.needs() | wanted)?;
        let block = Block::map(self.backing, BLOCK)?;
        let store = |page: usize| {
            touch::store(block.range(page..page + 1).start, tag::KEPT)
                .map_err(|signal| broken("writing to the block", &signal))
        };
        store(TARGET + 1)?;
        match self.command {
            Command::Writeprotect | Command::Rwprotect => store(TARGET)?,
            Command::Continue => block.fill_cache(TARGET)?,
            _ => {}
        }
        let rwp = if self.command.needs() == features::RWP { features::RWP } else { 0 };
        let uffd = stage.uffd(wanted | rwp)?;
        let all = block.range(0..PAGES);
        uffd.register(all, self.mode()).map_err(|e| {
            let Self { command, backing, .. } = self;
            Stop::Unsupported(format!("REGISTER of a {backing} block for {command}: {e:?}"))
        })?;
        let target = block.range(TARGET..TARGET + 1);
        let rc = match self.command {
            Command::Writeprotect => uffd.writeprotect(target, WRITEPROTECT_MODE_WP),
            Command::Rwprotect => uffd.rwprotect(target, newer::RWPROTECT_MODE_RWP),
            _ => Rc::OK,
        };
        if !rc.is_ok() {
            return Err(broken("protecting the page", &rc));
        }
        if self.command == Command::Move {
            let from = Range { start: SPARE, len: 2 * PAGE };
            let rc = map(from, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
            if !rc.is_ok() {
                return Err(broken("mapping the pages to be moved", &rc));
            }
            for page in [SPARE, SPARE + PAGE] {
                touch::store(page, tag::NEW)
                    .map_err(|signal| broken("writing the pages to be moved", &signal))?;
            }
        }
        let queue = QueueFile::open(&uffd)?;
        Ok(Scene { stage, block, uffd, queue, page: TARGET })
    }

    /// Arguments with which the ioctl does its work on the waiter's page; REGISTER and UNREGISTER on
    /// the block.
    pub(super) fn good(self, scene: &Scene<'_>) -> Words {
        let target = scene.target();
        let (start, len) = (target.start as u64, target.len as u64);
        let all = scene.block.range(0..PAGES);
        let unwritten = SENTINEL.cast_unsigned();
        match self.command {
            Command::Api | Command::SetMode => [0; WORDS],
            Command::Register | Command::Unregister => {
                [all.start as u64, all.len as u64, self.mode(), unwritten, 0]
            }
            Command::Copy => [start, scene.stage.source as u64, len, 0, unwritten],
            Command::Move => [start, SPARE as u64, len, 0, unwritten],
            _ => [start, len, 0, unwritten, 0],
        }
    }

    /// Writes the words of a struct to `at`.
    pub(super) fn write(self, words: &Words, at: usize) -> Result<(), Stop> {
        for (n, word) in words[..self.command.words()].iter().enumerate() {
            touch::store(at + 8 * n, *word)
                .map_err(|signal| Stop::Broken(format!("writing an argument: {signal}")))?;
        }
        Ok(())
    }

    /// Reads the result word of a struct at `at` back, where it can be read.
    pub(super) fn result(self, at: usize) -> Result<Option<String>, Stop> {
        if !self.command.has_result() {
            return Ok(None);
        }
        let value = touch::load(at + 8 * (self.command.words() - 1))
            .map_err(|signal| Stop::Broken(format!("reading a result back: {signal}")))?;
        let field = Field(value.cast_signed());
        let hex = self.command == Command::Register && field.0 != SENTINEL;
        Ok(Some(if hex { format!("{value:#x}") } else { field.to_string() }))
    }

    /// Looks at the waiter and at every page, and wakes a waiter that still sleeps.
    pub(super) fn conclude(
        self,
        scene: Scene<'_>,
        mut waiter: Waiter,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        let Scene { stage, block, uffd, queue, .. } = &scene;
        let fate = waiter.look(uffd, queue)?;
        seen.fact("waiter", stage.word(fate));
        seen.fact("queue", queue.read()?);
        seen.step("survey");
        let all = block.range(0..PAGES);
        // smaps' word for read-write protection is the suite `rwp`'s, and a load from a page that is
        // protected against loads would park this thread.
        if self.command != Command::Rwprotect {
            seen.fact("reg", evidence::registration(&[(all, block.page)])?.concat());
            let letter = |value| stage.letter(value);
            seen.fact("pages", evidence::pages(all, block.page, &letter)?);
        }
        if fate == Fate::Asleep {
            seen.step("rescue");
            while uffd.read().is_ok() {}
            seen.fact("rescue", uffd.wake(scene.target()));
            seen.fact("rescued", stage.word(waiter.look(uffd, queue)?));
        }
        scene.uffd.leave_open();
        Ok(())
    }
}

/// Maps one good page for arguments at [`ARGUMENT`].
pub(super) fn argument_page() -> Result<(), Stop> {
    let page = Range { start: ARGUMENT, len: PAGE };
    match map(page, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0) {
        Rc(None) => Ok(()),
        rc => Err(Stop::Broken(format!("mapping a page for arguments: {rc}"))),
    }
}

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// Nothing.
    Nothing,
    /// Its work on memory, but it woke nobody.
    Silently,
    /// Its work, and it woke who waited.
    Wholly,
}

/// What is expected of a call.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// What it returned.
    pub(super) rc: &'static str,
    /// Its result field, if that is looked at.
    pub(super) field: Option<String>,
    /// What it did.
    pub(super) did: Did,
    /// Who says so.
    pub(super) says: &'static str,
}

impl Verdict {
    /// Refused before anything was done or written.
    pub(super) fn refused(rc: &'static str, says: &'static str) -> Self {
        Self { rc, field: Some("untouched".into()), did: Did::Nothing, says }
    }

    /// Failed when it was done, with the errno in the result field too.
    pub(super) fn failed(rc: &'static str, errno: i32, says: &'static str) -> Self {
        Self { rc, field: Some(errno.to_string()), did: Did::Nothing, says }
    }

    /// Done; or what the ioctl returns where it never works.
    pub(super) fn done(ground: Ground, says: &'static str) -> Self {
        if !ground.works() {
            return Self::failed("EINVAL", -libc::EINVAL, source::ZEROPAGE_HUGE);
        }
        let page = if ground.backing.is_huge() { crate::memory::HUGE } else { PAGE };
        let field = (ground.command != Command::Register).then(|| page.to_string());
        Self { rc: "0", field, did: Did::Wholly, says }
    }

    /// The same, but nobody is woken.
    pub(super) fn silently(self) -> Self {
        let did = if self.did == Did::Wholly { Did::Silently } else { self.did };
        Self { did, ..self }
    }

    /// The facts that follow, for the call recorded under `name`.
    pub(super) fn expect(&self, ground: Ground, name: &'static str) -> Vec<Expected> {
        let Self { rc, field, did, says } = self;
        let mut facts = vec![Expected::new(name, *rc, says)];
        if let Some(field) = field.as_ref().filter(|_| ground.command.has_result()) {
            facts.push(Expected::new("field", field.clone(), says));
        }
        let (met, page) = meets(ground);
        let sleeps = if ground.in_kernel { "1/1" } else { "1/0" };
        let woken = *did == Did::Wholly;
        let (fate, queue) = match met {
            _ if !woken => ("asleep", sleeps),
            None => ("asleep", sleeps),
            Some("again") => ("again", "1/1"),
            Some(met) => (met, "0/0"),
        };
        facts.push(Expected::new("waiter", fate, says));
        facts.push(Expected::new("queue", queue, source::QUEUE));
        let ended = *did == Did::Wholly && ground.command == Command::Unregister;
        let letter = if ended { "." } else { ground.letter() };
        if ground.command != Command::Rwprotect {
            facts.push(Expected::new("reg", letter.repeat(PAGES), says));
            let before = if ground.command == Command::Writeprotect { 'k' } else { '-' };
            let here = if *did == Did::Nothing { before } else { page };
            // A store that was let through is seen only when the thread has run.
            let here = if here == 'w' && !woken { 'k' } else { here };
            facts.push(Expected::new("pages", format!("--{here}k--"), says));
        }
        if fate == "asleep" {
            facts.push(Expected::new("rescue", "0", source::WAKE));
            let met = met.filter(|_| *did == Did::Silently).unwrap_or("again");
            facts.push(Expected::new("rescued", met, source::RERUN));
        }
        facts
    }
}

/// What the ioctl's work brings the waiter, and what its page then shows; nothing where the ioctl
/// wakes nobody.
fn meets(ground: Ground) -> (Option<&'static str>, char) {
    match ground.command {
        Command::Api | Command::Register | Command::SetMode => (None, '-'),
        Command::Wake => (Some("again"), '-'),
        Command::Unregister | Command::Zeropage => (Some("ran:zero"), '0'),
        Command::Copy => (Some("ran:copied"), 'c'),
        Command::Continue | Command::Rwprotect => (Some("ran:kept"), 'k'),
        Command::Writeprotect => (Some("ran"), 'w'),
        Command::Poison if ground.in_kernel => (Some("EFAULT"), '-'),
        Command::Poison => (Some("BUS_MCEERR_AR|BUS_ADRERR"), '-'),
        Command::Move => (Some("ran:new"), 'n'),
    }
}
