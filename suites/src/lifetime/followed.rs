//! fork(2) with EVENT_FORK: what the child's own context makes of registered and protected pages, and
//! a reader that has no room for the child's descriptor.

use crate::abi::{
    Message, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Rc, Uffd, WRITEPROTECT_MODE_WP, features,
};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, tag};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Mode, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, with_room};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use uffd_results::KernelVersion;

const FOLLOWED: &str = "dup_userfaultfd() in fs/userfaultfd.c: with EVENT_FORK the child's mapping gets a \
    context of its own, with the same mode";
const WP_KEPT: &str = "copy_present_pte() in mm/memory.c keeps the protection of a page if the child's mapping \
    is registered for it";
const NO_FD: &str = "userfaultfd_ctx_read() in fs/userfaultfd.c puts the event back if resolve_userfault_fork() \
    finds no descriptor";

static KEPT: Probe = Probe {
    suite: "lifetime",
    name: "fork-followed",
    statement: "With EVENT_FORK the child's memory stays registered and protected as the parent's, with a \
                context of its own through which its faults are served.",
    consumers: &["CRIU: handle_fork(), criu/uffd.c"],
};
static ROOM: Probe = Probe {
    suite: "lifetime",
    name: "fork-event-no-room",
    statement: "A reader of a fork event that has no descriptor left gets EMFILE, and the event stays until it \
                is read again.",
    consumers: &["CRIU: the lazy-pages daemon holds a descriptor a process"],
};

/// What the reading thread saw: how a read without room ended, and the event.
static READ: OnceLock<(String, Result<Message, Errno>)> = OnceLock::new();

#[derive(Debug)]
struct Followed {
    backing: Backing,
    mode: Mode,
    store: bool,
    full: bool,
}

/// read(2) while every further descriptor is refused.
fn read_without_room(uffd: &Uffd) -> Result<String, Errno> {
    let read = with_room(uffd, 0, || uffd.read())?;
    Ok(read.map_or_else(|e| format!("{e:?}"), |m| crate::abi::event_name(m.number())))
}

impl Followed {
    /// A thread that reads the fork event which the case's fork then waits for.
    fn reader(&self, stage: &Stage, uffd: &Uffd) -> Result<Mover, Stop> {
        let reader = uffd.duplicate().map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
        let full = self.full;
        Mover::start(stage, move || {
            let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            if let Err(e) = nix::poll::poll(&mut fds, PollTimeout::NONE) {
                return Rc(Some(e));
            }
            let first = if full { read_without_room(&reader) } else { Ok("room".into()) };
            let event = reader.read();
            let _ = READ.set((first.unwrap_or_else(|e| format!("limit-{e:?}")), event));
            Rc(event.err())
        })
    }

    fn set(&self, stage: &Stage) -> Result<(Block, Uffd), Stop> {
        let block = Block::map(self.backing, BLOCK)?;
        let all = block.range(0..PAGES);
        let uffd = stage.uffd(features::EVENT_FORK)?;
        let wp = self.mode == Mode::Wp;
        for page in if wp { 2..4 } else { 3..4 } {
            touch::store(block.range(page..page + 1).start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to the block: {signal}")))?;
        }
        let mode = if wp { REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
        uffd.register(all, mode).map_err(|e| {
            Stop::Unsupported(format!("REGISTER of a {} block: {e:?}", self.backing))
        })?;
        if wp && !uffd.writeprotect(all, WRITEPROTECT_MODE_WP).is_ok() {
            return Err(Stop::Broken("WRITEPROTECT of the block".into()));
        }
        Ok((block, uffd))
    }
}

impl Trial for Followed {
    fn axes(&self) -> String {
        let child = if self.store { "store" } else { "load" };
        format!("backing={},mode={},child={child}", self.backing, self.mode)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let (block, uffd) = self.set(stage)?;
        let page = block.range(2..3);
        let all = block.range(0..PAGES);
        let letter = |value| stage.letter(value);
        let reader = self.reader(stage, &uffd)?;
        seen.step("fork");
        let mut child = Child::fork(stage, |link| {
            link.say(evidence::registration(&[(all, block.page)])?.remove(0))?;
            link.must_hear("go")?;
            let touched = if self.store {
                touch::store(page.start, tag::WROTE).map(|()| "ran".to_owned())
            } else {
                touch::load(page.start)
                    .map(|value| format!("ran:{}", crate::waiter::content(stage.tag(value))))
            };
            link.say(touched.unwrap_or_else(|signal| signal.to_string()))?;
            link.say(evidence::pages(all, block.page, &letter)?)
        })?;
        reader.join()?;
        let Some((first, Ok(event))) = READ.get() else {
            return Err(Stop::Broken(format!("the reader saw {:?}", READ.get())));
        };
        if self.full {
            seen.fact("without-room", first);
        }
        seen.fact("event", crate::abi::event_name(event.number()));
        let Some(theirs) = Uffd::of_fork(*event) else { return Ok(()) };
        seen.fact("child-reg", child.link().hear()?);
        seen.step("child's access");
        child.link().say("go")?;
        if child.link().faults_first(&theirs)? {
            seen.fact(
                "fault",
                match theirs.read() {
                    Ok(Message::Pagefault { flags, address, .. }) => {
                        let offset = address.wrapping_sub(BLOCK) / block.page;
                        format!("{}@{offset}", fault_word(flags))
                    }
                    other => format!("{other:?}"),
                },
            );
            seen.fact("parent-read", crate::mover::word(uffd.read()));
            let serve = match self.mode {
                Mode::Wp => theirs.writeprotect(page, 0),
                _ => theirs.copy(page, stage.source, 0).0,
            };
            seen.fact("serve", serve);
        } else {
            seen.fact("fault", "none");
        }
        seen.fact("child-touch", child.link().hear()?);
        seen.fact("child-pages", child.link().hear()?);
        child.finish()?;
        seen.fact("reg", evidence::registration(&[(all, block.page)])?.remove(0));
        seen.fact("pages", evidence::pages(all, block.page, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let wp = self.mode == Mode::Wp;
        let reg = if wp { "wwwwww" } else { "mmmmmm" };
        let mut facts = Vec::new();
        if self.full {
            facts.push(Expected::new("without-room", "EMFILE", NO_FD));
        }
        facts.push(Expected::new("event", "fork", FOLLOWED));
        facts.push(Expected::new("child-reg", reg, FOLLOWED));
        let fault = match (wp, self.store) {
            (true, true) => "wp-write@2",
            (true, false) => "none",
            (false, true) => "write@2",
            (false, false) => "read@2",
        };
        facts.push(Expected::new("fault", fault, if wp { WP_KEPT } else { FOLLOWED }));
        if fault != "none" {
            facts.push(Expected::new("parent-read", "EAGAIN", FOLLOWED));
            facts.push(Expected::new("serve", "0", FOLLOWED));
        }
        let touched = match (self.store, wp) {
            (true, _) => "ran",
            (false, true) => "ran:kept",
            (false, false) => "ran:copied",
        };
        facts.push(Expected::new("child-touch", touched, FOLLOWED));
        facts.push(Expected::new("reg", reg, FOLLOWED));
        if self.backing == Backing::Anon {
            let pages = if wp { "--kk--" } else { "---k--" };
            facts.push(Expected::new("pages", pages, FOLLOWED));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map a {} block, register it for {} faults with EVENT_FORK",
                self.backing, self.mode
            ),
            "a thread reads the event of a fork; in the child an access to page 2".into(),
            "serve the child's fault through the descriptor of the event".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let grounds = [
        (Backing::Anon, Mode::Missing),
        (Backing::Shmem, Mode::Missing),
        (Backing::Private, Mode::Missing),
        (Backing::SharedAnon, Mode::Missing),
        (Backing::Anon, Mode::Wp),
        (Backing::Shmem, Mode::Wp),
    ];
    for (backing, mode) in grounds {
        for store in [false, true] {
            let trial = Followed { backing, mode, store, full: false };
            cases.push(Case::trial(&KEPT, trial, true));
        }
    }
    for store in [false, true] {
        let trial = Followed { backing: Backing::Anon, mode: Mode::Missing, store, full: true };
        cases.push(Case::trial(&ROOM, trial, true));
    }
    cases
}
