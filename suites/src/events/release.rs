//! What lets the caller of a call go that has raised an event.

use super::ground::{ALL, Ground, MISSING, asleep, register};
use super::raised::{self, Asked};
use super::raiser::Raiser;
use crate::abi::{Rc, Uffd};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, ELSEWHERE};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process;
use crate::process::Offspring;
use crate::stage::Stage;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use uffd_results::KernelVersion;

static CALLER: Probe = Probe {
    suite: "events",
    name: "caller",
    statement: "A call that has raised an event waits, killable, until the event is read or the \
                userfaultfd is closed; a signal does not release it, and is taken when it returns.",
    consumers: &[
        "libfabric: ofi_uffd_handler(), prov/util/src/util_mem_monitor.c",
        "psm3: prov/psm3, mr cache",
        "CRIU lazy-pages: handle_requests(), criu/uffd.c",
    ],
};
static GONE: Probe = Probe {
    suite: "events",
    name: "process-gone",
    statement: "SIGKILL ends a process whose call waits for its event to be read, and takes the event \
                with it; a process that just ends, or runs another program, raises no event.",
    consumers: &["CRIU lazy-pages: handle_exit(), criu/uffd.c"],
};
axis! {
    /// What lets the caller go.
    By {
        /// The event is read: the control.
        Read = "read",
        /// The userfaultfd is closed.
        Close = "close",
        /// A signal; then the event is read.
        SignalRead = "signal-read",
        /// A signal; then the userfaultfd is closed.
        SignalClose = "signal-close",
    }
}

impl Asked for By {
    const AXIS: &'static str = "by";

    fn ask(self, event: Raiser, ground: Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let (stage, range) = (ground.stage, ground.block.range(0..1));
        process::catch(false)?;
        let call = move || {
            let rc = process::unblock();
            if !rc.is_ok() {
                return rc;
            }
            match event {
                Raiser::Remove => memory::dontneed(range),
                Raiser::Unmap => memory::unmap(range),
                _ => {
                    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    memory::remap(range, range.len, moving, ELSEWHERE)
                }
            }
        };
        seen.step("call");
        let mover = Mover::start(stage, call)?;
        if !mover.blocks_on_event(&ground.uffd)? {
            return Err(Stop::Broken(format!("the call raised no event: {}", mover.join()?)));
        }
        let (file, before) = asleep(stage, &mover)?;
        seen.fact("caller", file.state()?);
        if matches!(self, Self::SignalRead | Self::SignalClose) {
            seen.step("signal");
            seen.fact("signal", process::signal_thread(mover.tid()).map(|()| Rc::OK)?);
            asleep(stage, &mover)?;
            seen.fact("signalled", file.state()?);
            let ran = file.read()?.runs != before.runs;
            seen.fact("stirred", if ran { "yes" } else { "no" });
            seen.fact("taken-before", process::caught());
        }
        seen.step("release");
        let Ground { uffd, block, .. } = ground;
        match self {
            Self::Read | Self::SignalRead => {
                seen.fact("event", super::ground::word(&uffd, block.page));
            }
            Self::Close | Self::SignalClose => drop(uffd),
        }
        seen.fact("call", mover.join()?);
        if matches!(self, Self::SignalRead | Self::SignalClose) {
            // The handler runs on the way back to user space, before the thread says that it is done.
            seen.fact("taken-after", process::caught());
        }
        Ok(())
    }

    fn expect(self, event: Raiser, _: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd_event_wait_completion(): TASK_KILLABLE; ends with the event read, the \
                    context released or a fatal signal";
        let mut facts = vec![Expected::new("caller", "D", says)];
        let signals = matches!(self, Self::SignalRead | Self::SignalClose);
        if signals {
            facts.extend([
                Expected::new("signal", "0", says),
                Expected::new("signalled", "D", says),
                Expected::new("stirred", "no", says),
                Expected::new("taken-before", "0", says),
            ]);
        }
        if matches!(self, Self::Read | Self::SignalRead) {
            facts.push(Expected::new("event", event.event(0), says));
        }
        facts.push(Expected::new("call", "0", says));
        if signals {
            facts.push(Expected::new("taken-after", "1", "signal(7)"));
        }
        facts
    }

    fn recipe(self, event: Raiser) -> Vec<String> {
        let then = match self {
            Self::Read => "read the event",
            Self::Close => "close the userfaultfd",
            Self::SignalRead => "send the thread a signal that it handles; look; read the event",
            Self::SignalClose => {
                "send the thread a signal that it handles; look; close the userfaultfd"
            }
        };
        vec![
            "map and register a block of 6 pages".to_owned(),
            event.recipe(0),
            "look at the thread's state".to_owned(),
            then.to_owned(),
            "wait until the call has returned".to_owned(),
        ]
    }
}

axis! {
    /// How the process goes.
    Going {
        /// By itself, with memory registered for every event.
        Exit = "exit",
        /// It runs another program, with memory registered for every event; then it is killed.
        Exec = "exec",
        /// Killed while munmap waits.
        KillUnmap = "kill-unmap",
        /// Killed while madvise waits.
        KillRemove = "kill-remove",
        /// Killed while mremap waits.
        KillRemap = "kill-remap",
    }
}

#[derive(Debug)]
struct Gone {
    backing: Backing,
    going: Going,
}

impl Going {
    fn live(self, stage: &Stage, block: &Block, tell: &OwnedFd) -> Result<String, Stop> {
        let uffd = stage.uffd(ALL.bits)?;
        register(&uffd, block.range(0..PAGES))?;
        let fd = uffd.as_fd().as_raw_fd();
        // The table of descriptors is the parent's as well: the descriptor must outlive this process.
        std::mem::forget(uffd);
        let _ = nix::unistd::write(tell, &fd.to_ne_bytes());
        let page = block.range(0..1);
        let rc: Rc = match self {
            Self::Exit => return Ok("ended".to_owned()),
            Self::Exec => return Err(process::exec(process::program()?.as_fd())),
            Self::KillUnmap => memory::unmap(page),
            Self::KillRemove => memory::dontneed(page),
            Self::KillRemap => {
                let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                memory::remap(page, page.len, moving, ELSEWHERE)
            }
        };
        Ok(format!("returned:{rc}"))
    }
}

impl Trial for Gone {
    fn axes(&self) -> String {
        let Self { backing, going } = self;
        format!("backing={backing},how={going}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = Block::map(self.backing, BLOCK)?;
        super::ground::write(&block, BLOCK, 0, memory::tag::KEPT)?;
        let (hear, tell) =
            nix::unistd::pipe().map_err(|e| Stop::Broken(format!("a pipe: {e:?}")))?;
        let going = self.going;
        let child = Offspring::sharing_files(stage, || {
            going.live(stage, &block, &tell).unwrap_or_else(|stop| stop.to_string())
        })?;
        let mut fd = [0; 4];
        nix::unistd::read(&hear, &mut fd)
            .map_err(|e| Stop::Broken(format!("hearing of the descriptor: {e:?}")))?;
        let uffd = Uffd::from_fd(process::adopt(i32::from_ne_bytes(fd)));
        if going == Going::Exec {
            seen.step("gone");
            crate::lifetime::dead::dropped(stage, &uffd)?;
            seen.fact("kill", child.kill());
        } else if going != Going::Exit {
            seen.step("event");
            let timeout = PollTimeout::try_from(stage.patience).unwrap_or(PollTimeout::MAX);
            let ready = poll(&mut [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)], timeout);
            if ready != Ok(1) {
                return Err(Stop::Hang("the child's call raised no event".into()));
            }
            seen.fact("kill", child.kill());
        }
        seen.step("end");
        seen.fact("ended", child.end()?);
        let queue = QueueFile::open(&uffd)?;
        seen.fact("queue", queue.read()?);
        seen.fact("read", super::ground::word(&uffd, block.page));
        let target = block.range(MISSING..MISSING + 1);
        let (rc, field) = uffd.copy(target, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.fact("wake", uffd.wake(target));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says =
            "userfaultfd_event_wait_completion(): a fatal signal takes the event off the queue";
        let dead = "ioctl_userfaultfd(2), ESRCH: the process of the userfaultfd has ended";
        let mut facts = Vec::new();
        if self.going == Going::Exit {
            facts.push(Expected::new("ended", "exit:0", "exit_mmap() raises no event"));
        } else {
            facts.push(Expected::new("kill", "0", says));
            facts.push(Expected::new("ended", "SIGKILL", says));
        }
        facts.extend([
            Expected::new("queue", "0/0", says),
            Expected::new("read", "EAGAIN", says),
            Expected::new("copy", "ESRCH", dead),
            Expected::new("field", "untouched", dead),
            Expected::new("wake", "0", crate::model::source::WAKE),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map a block of 6 pages; make a child with clone(CLONE_FILES)".to_owned(),
            "the child makes a userfaultfd with the events remap, remove and unmap and registers the \
             block"
                .to_owned(),
            match self.going {
                Going::Exit => "the child ends".to_owned(),
                Going::Exec => "the child calls execve; once its memory is gone: SIGKILL".to_owned(),
                _ => "the child changes page 0 and waits for its event to be read; SIGKILL".to_owned(),
            },
            "wait for its end; read from its userfaultfd; UFFDIO_COPY and UFFDIO_WAKE through it"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        let by_default = backing != Backing::Private;
        for event in Raiser::ALL {
            let event = *event;
            if event != Raiser::Fork {
                for by in By::ALL {
                    cases.push(raised::case(&CALLER, (backing, event, *by), by_default));
                }
            }
        }
        for going in Going::ALL {
            cases.push(Case::trial(&GONE, Gone { backing, going: *going }, by_default));
        }
    }
    cases
}
