//! Ground of the questions whose answer depends on the vCPU's interrupt controller: a registered block in
//! the memory of a guest, and whoever waits for its page.
//!
//! That is the vCPU's thread, or a worker of the kernel while the vCPU's thread sleeps in KVM_RUN. What says
//! whether it was woken is the queue and how often the one that the message names was switched away. The
//! vCPU's own switches say nothing while it is halted: KVM wakes it up now and then, as to set its clock.

use super::{Lapic, Vcpu, VcpuAccess};
use crate::abi::{Message, REGISTER_MODE_MISSING, Uffd, features, kick};
use crate::crowd::pause;
use crate::evidence::{QueueFile, Thread, ThreadFile};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::process::Child;
use crate::scenario::{Scene, fault_word};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Access, Fate, Waiter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;
use uffd_results::KernelVersion;

/// The page that the guest accesses.
pub(super) const PAGE: usize = 2;

/// A registered block in the memory of a guest that has not run yet.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) vcpu: Arc<Vcpu>,
}

/// Maps a block, writes to the page behind [`PAGE`], and registers all; messages have a thread's id.
fn block(stage: &Stage, backing: Backing, modes: u64) -> Result<(Block, Uffd), Stop> {
    stage.must_offer(features::THREAD_ID)?;
    let block = Block::map(backing, BLOCK)?;
    touch::store(block.range(PAGE + 1..PAGE + 2).start, tag::KEPT)
        .map_err(|signal| Stop::Broken(format!("writing to the block: {signal}")))?;
    let uffd = stage.uffd(features::THREAD_ID)?;
    uffd.register(block.range(0..PAGES), modes)
        .map_err(|e| Stop::Unsupported(format!("REGISTER of a {backing} block: {e:?}")))?;
    Ok((block, uffd))
}

/// The thread that a message names, by its id: `vcpu` is that of the one in KVM_RUN.
fn named(tid: i32, vcpu: i32) -> Result<&'static str, Stop> {
    if tid == vcpu {
        return Ok("vcpu");
    }
    match std::fs::read_to_string(format!("/proc/{tid}/comm")) {
        Ok(name) if name.starts_with("kworker") => Ok("worker"),
        // The id is the kernel's own, and so is the worker; a PID namespace shows neither.
        _ => Err(Stop::Precondition(
            "the message names a thread that this PID namespace does not show".into(),
        )),
    }
}

/// Waits until `thread` sleeps off the CPU; how often it ran.
fn once_asleep(thread: &ThreadFile, deadline: Instant) -> Result<Thread, Stop> {
    loop {
        if let Some(asleep) = thread.asleep()? {
            return Ok(asleep);
        }
        pause(deadline, "what the message names never slept")?;
    }
}

/// The state's letter of a thread that sleeps, whatever wakes it up for a moment.
fn state(thread: &ThreadFile, deadline: Instant) -> Result<char, Stop> {
    loop {
        match thread.state()? {
            'R' => pause(deadline, "a halted vCPU never slept")?,
            letter => return Ok(letter),
        }
    }
}

/// The one that waits in the queue.
#[derive(Debug)]
pub(super) struct Sleeper {
    is_worker: bool,
    thread: ThreadFile,
    parked: Thread,
}

impl Sleeper {
    /// Reads the message of the one that waits, and says who that is. `vcpu` is the id of the thread in KVM_RUN.
    pub(super) fn read(
        stage: &Stage,
        uffd: &Uffd,
        page: usize,
        vcpu: i32,
        names: [&'static str; 2],
        seen: &mut Seen<'_>,
    ) -> Result<Self, Stop> {
        let (fault, tid) = match uffd.read() {
            Ok(Message::Pagefault { address, flags, tid }) => {
                let word = fault_word(flags);
                let page = address.wrapping_sub(BLOCK) / page;
                (format!("{word}@{page}"), i32::try_from(tid).unwrap_or(-1))
            }
            other => return Err(Stop::Broken(format!("reading the vCPU's message: {other:?}"))),
        };
        let who = named(tid, vcpu)?;
        let thread = ThreadFile::open(tid)?;
        let parked = once_asleep(&thread, Instant::now() + stage.patience)?;
        seen.fact(names[0], fault);
        seen.fact(names[1], who);
        Ok(Self { is_worker: who == "worker", thread, parked })
    }

    /// Whether it has not run since: nobody has woken it.
    pub(super) fn sleeps_on(&self, stage: &Stage) -> Result<bool, Stop> {
        Ok(once_asleep(&self.thread, Instant::now() + stage.patience)? == self.parked)
    }

    /// Waits until a worker has no work any more, with which it lets go of the memory, too: the process could end
    /// before, and what its memory is made of would not be back. Whether the worker has run since it parked.
    pub(super) fn becomes_idle(&self, stage: &Stage) -> Result<bool, Stop> {
        let deadline = Instant::now() + stage.patience;
        while self.thread.state()? != 'I' {
            pause(deadline, "the worker that waited never became idle")?;
        }
        Ok(self.thread.read()?.runs != self.parked.runs)
    }

    /// Its state's letter.
    pub(super) fn state(&self) -> Result<char, Stop> {
        self.thread.state()
    }
}

/// A thread in KVM_RUN, and the one that waits for its page.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) waiter: Waiter,
    sleeper: Sleeper,
}

impl<'a> Ground<'a> {
    pub(super) fn make(
        stage: &'a Stage,
        backing: Backing,
        access: VcpuAccess,
        lapic: Lapic,
        modes: u64,
    ) -> Result<Self, Stop> {
        let (block, uffd) = block(stage, backing, modes)?;
        let queue = QueueFile::open(&uffd)?;
        let scene = Scene { stage, block, uffd, queue, page: PAGE };
        let all = scene.block.range(0..PAGES);
        let vcpu = Arc::new(Vcpu::with(stage, scene.target().start, access, all, lapic)?);
        Ok(Self { scene, vcpu })
    }

    /// Has a thread call KVM_RUN, whose page must be waited for; records the message, and who waits how.
    pub(super) fn park(&self, seen: &mut Seen<'_>) -> Result<Parked, Stop> {
        seen.step("park");
        let Self { scene, vcpu } = self;
        let vcpu = Arc::clone(vcpu);
        let own = move || match kick::unblock() {
            Ok(()) => vcpu.run().into(),
            Err(errno) => Access::Failed(errno),
        };
        let mut waiter = Waiter::begin(scene.stage, own)?;
        match waiter.settle(&scene.uffd, &scene.queue)? {
            Fate::Again => {}
            other => return Err(Stop::Broken(format!("the vCPU did not park: {other}"))),
        }
        let sleeper = self.next(&waiter, ["fault", "thread"], seen)?;
        seen.fact("state", sleeper.state()?);
        let deadline = Instant::now() + scene.stage.patience;
        seen.fact("vcpu-state", state(&ThreadFile::open(waiter.tid())?, deadline)?);
        Ok(Parked { waiter, sleeper })
    }

    fn next(
        &self,
        waiter: &Waiter,
        names: [&'static str; 2],
        seen: &mut Seen<'_>,
    ) -> Result<Sleeper, Stop> {
        let Scene { stage, uffd, block, .. } = &self.scene;
        Sleeper::read(stage, uffd, block.page, waiter.tid(), names, seen)
    }

    /// Reads the message of one that waits again.
    pub(super) fn read_again(&self, parked: &mut Parked, seen: &mut Seen<'_>) -> Result<(), Stop> {
        parked.sleeper = self.next(&parked.waiter, ["again-fault", "again-thread"], seen)?;
        Ok(())
    }

    pub(super) fn queue(&self, name: &'static str, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.fact(name, self.scene.queue.read()?);
        Ok(())
    }

    /// One look at what became of the one that waits, whose message was read. Only if it was woken is it, and
    /// the vCPU, waited for.
    pub(super) fn look(&self, parked: &mut Parked) -> Result<Fate, Stop> {
        let Scene { stage, uffd, queue, .. } = &self.scene;
        // Who is woken has left the queue when the call that wakes returns.
        if queue.read()?.total > 0 && parked.sleeps_on(stage)? {
            return Ok(Fate::Asleep);
        }
        parked.waiter.settle(uffd, queue)
    }
}

impl Parked {
    /// Waits until a worker has no work any more.
    pub(super) fn leave(self, stage: &Stage) -> Result<(), Stop> {
        if self.sleeper.is_worker { self.sleeper.becomes_idle(stage).map(drop) } else { Ok(()) }
    }

    /// Whether the one that waits has not run since it parked.
    pub(super) fn sleeps_on(&self, stage: &Stage) -> Result<bool, Stop> {
        self.sleeper.sleeps_on(stage)
    }
}

/// A block as of [`Ground`], in a process that holds no more than the vCPU: registered, in its guest's memory.
fn lone(stage: &Stage, access: VcpuAccess, lapic: Lapic, modes: u64) -> Result<(Uffd, Vcpu), Stop> {
    let (block, uffd) = block(stage, Backing::Anon, modes)?;
    let target = block.range(PAGE..PAGE + 1).start;
    let vcpu = Vcpu::with(stage, target, access, block.range(0..PAGES), lapic)?;
    Ok((uffd, vcpu))
}

/// A child with such a block, registered for missing pages, whose vCPU has raised the message that is still to be
/// read; it says how KVM_RUN ends.
pub(super) fn lone_child(
    stage: &Stage,
    access: VcpuAccess,
    lapic: Lapic,
    seen: &mut Seen<'_>,
) -> Result<(Child, Uffd, QueueFile), Stop> {
    let child = Child::fork(stage, |link| {
        let (uffd, vcpu) = lone(stage, access, lapic, REGISTER_MODE_MISSING)?;
        link.pass(uffd.as_fd())?;
        link.say(stage.word(Fate::Ended(vcpu.run().into())))
    })?;
    let uffd = Uffd::from_fd(child.link().take()?);
    let queue = QueueFile::open(&uffd)?;
    seen.step("park");
    if !child.link().faults_first(&uffd)? {
        let word = child.link().hear()?;
        return Err(Stop::Broken(format!("the vCPU did not park: {word}")));
    }
    Ok((child, uffd, queue))
}

/// Who waits, and why.
pub(super) const ASYNC: &str = "kvm_can_do_async_pf() in arch/x86/kvm/x86.c: with a local APIC in the kernel and \
     interrupts on the page is asked for by async_pf_execute() in a worker, and a vCPU whose guest has not set \
     MSR_KVM_ASYNC_PF_EN is halted (kvm_arch_async_page_not_present())";
/// How a worker asks for the page.
const WRITES: &str = "async_pf_execute() in virt/kvm/async_pf.c: get_user_pages_remote() with FOLL_WRITE, \
     whatever the guest wanted";
/// How a vCPU that waits itself does.
const SINCE: &str = "commit 766576874b97 (6.2): the fault of a vCPU waits with FOLL_INTERRUPTIBLE; before, \
     only death interrupts";

/// The facts of [`Ground::park`].
pub(super) fn parked(access: VcpuAccess, lapic: Lapic, kernel: KernelVersion) -> Vec<Expected> {
    let interruptible = kernel >= KernelVersion::new(6, 2, 0);
    let state = if interruptible { "S" } else { "D" };
    match lapic {
        Lapic::None => vec![
            fault("fault", access, lapic),
            Expected::new("thread", "vcpu", ASYNC),
            Expected::new("state", state, SINCE),
            Expected::new("vcpu-state", state, SINCE),
        ],
        Lapic::Kernel => vec![
            fault("fault", access, lapic),
            Expected::new("thread", "worker", ASYNC),
            Expected::new("state", "D", WRITES),
            Expected::new("vcpu-state", "S", "kvm_vcpu_block() in virt/kvm/kvm_main.c"),
        ],
    }
}

/// The message of who waits.
pub(super) fn fault(name: &'static str, access: VcpuAccess, lapic: Lapic) -> Expected {
    let writes = access == VcpuAccess::Write || lapic == Lapic::Kernel;
    let word = if writes { "write@2" } else { "read@2" };
    Expected::new(name, word, WRITES)
}

/// Whom a message names.
pub(super) fn thread(name: &'static str, lapic: Lapic) -> Expected {
    Expected::new(name, if lapic == Lapic::Kernel { "worker" } else { "vcpu" }, ASYNC)
}
