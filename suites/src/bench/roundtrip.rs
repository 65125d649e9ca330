//! From the fault to the access done: a handler thread by each way to wait, the thread itself by SIGBUS,
//! a waiter in the kernel, a vCPU; and the phases of it apart.

use super::clock::stamp;
use super::ground::{
    Cpus, Ground, Handling, Pinned, blocking, fault_address, must, read_file_to, register,
    small_file,
};
use super::handler::{Duty, Handler, Moments, Wait};
use super::{Operation, Work};
use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd, features};
use crate::access::Access;
use crate::memory::{self, PAGE};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use crate::touch;
use crate::vcpu::{Vcpu, VcpuAccess};
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Faults of a round.
const FAULTS: usize = 32;

/// Who faults.
enum Who {
    /// This thread, by a store.
    User,
    /// This thread, in read(2) of the file into the page.
    Kernel(OwnedFd),
    /// A vCPU whose guest stores into the first page.
    Vcpu(Vcpu),
}

/// What is counted of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Span {
    Whole,
    ToMessage,
    Place,
    WakeToResume,
}

/// A thread that faults and a handler that serves it.
struct Served {
    who: Who,
    span: Span,
    moments: Option<Arc<Moments>>,
    handler: Handler,
    ground: Ground,
    _pinned: Pinned,
}

/// How it is to be.
#[derive(Clone, Copy)]
struct Form {
    wait: Wait,
    cpus: Cpus,
    span: Span,
    delay: u64,
}

impl Served {
    fn new(
        stage: &Stage,
        at: usize,
        form: Form,
        who: impl FnOnce(Range) -> Result<Who, Stop>,
    ) -> Result<Self, Stop> {
        let pinned = Pinned::new(form.cpus)?;
        let ground = Ground::map(Backing::Anon, at, (FAULTS + 1) * PAGE)?;
        // A vCPU is made while the process has one thread.
        let who = who(ground.range)?;
        let uffd = match form.wait {
            Wait::Read => blocking(stage, 0)?,
            Wait::Poll | Wait::Epoll => stage.uffd(0)?,
        };
        register(&uffd, ground.range, REGISTER_MODE_MISSING)?;
        let moments = (form.span != Span::Whole).then(Arc::<Moments>::default);
        let handler = Handler::start(Duty {
            uffd: Arc::new(uffd),
            wait: form.wait,
            source: stage.source,
            last: at + FAULTS * PAGE,
            cpu: Some(pinned.partner),
            delay: form.delay,
            moments: moments.clone(),
        })?;
        Ok(Self { who, span: form.span, moments, handler, ground, _pinned: pinned })
    }

    /// Faults at a page; when it began and when it was done.
    fn fault(&self, page: usize) -> Result<(u64, u64), Stop> {
        let start = stamp();
        match &self.who {
            Who::User => {
                touch::store(page, 1).map_err(|s| Stop::Broken(format!("the access: {s}")))?;
            }
            Who::Kernel(file) => must("read(2) into the page", read_file_to(file, page))?,
            Who::Vcpu(vcpu) => match Access::from(vcpu.run()) {
                Access::Ran(_) => {}
                other => return Err(Stop::Broken(format!("the vCPU: {other}"))),
            },
        }
        Ok((start, stamp()))
    }
}

impl Work for Served {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let pages = Range { len: FAULTS * PAGE, ..self.ground.range };
        for n in 0..FAULTS {
            let page = if let Who::Vcpu(vcpu) = &self.who {
                vcpu.rewind().map_err(|(what, e)| Stop::Broken(format!("{what}: {e:?}")))?;
                must("madvise", memory::dontneed(Range { len: PAGE, ..pages }))?;
                pages.start
            } else {
                pages.start + n * PAGE
            };
            let (start, end) = self.fault(page)?;
            let Some(moments) = &self.moments else {
                ticks.push(end - start);
                continue;
            };
            let (message, placed) =
                (moments.message.load(Ordering::Acquire), moments.placed.load(Ordering::Acquire));
            let (from, to) = match self.span {
                Span::ToMessage => (start, message),
                Span::Place => (message, placed),
                Span::WakeToResume => (placed, end),
                Span::Whole => (start, end),
            };
            // Counters of two CPUs may be a few ticks apart.
            ticks.push(to.saturating_sub(from));
        }
        self.handler.check()?;
        must("madvise", memory::dontneed(pages))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let last = self.ground.range.start + FAULTS * PAGE;
        if touch::store(last, 1).is_ok() {
            let _ = self.handler.join();
        }
    }
}

/// The userfaultfd, the source and the operation's memory, for the handler of SIGBUS.
static UFFD: AtomicPtr<Uffd> = AtomicPtr::new(ptr::null_mut());
static SOURCE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let page = Range { start: fault_address(info) & !(PAGE - 1), len: PAGE };
    // SAFETY: null, or a userfaultfd that lives until this handler has gone; COPY is one system call.
    let done = unsafe { UFFD.load(Ordering::Acquire).as_ref() }
        .is_some_and(|uffd| uffd.copy(page, SOURCE.load(Ordering::Acquire), 0).0.is_ok());
    if !done {
        // SAFETY: restoring the default action is async-signal-safe; the access then kills.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// A thread that serves its own faults in a handler of SIGBUS.
struct BySignal {
    // Goes first: the handler must not outlive the userfaultfd.
    _handling: Handling,
    _uffd: Box<Uffd>,
    ground: Ground,
    _pinned: Pinned,
}

impl BySignal {
    fn new(stage: &Stage, at: usize) -> Result<Self, Stop> {
        let pinned = Pinned::new(Cpus::Same)?;
        stage.must_offer(features::SIGBUS)?;
        let mut uffd = Box::new(stage.uffd(features::SIGBUS)?);
        let ground = Ground::map(Backing::Anon, at, FAULTS * PAGE)?;
        register(&uffd, ground.range, REGISTER_MODE_MISSING)?;
        UFFD.store(&raw mut *uffd, Ordering::Release);
        SOURCE.store(stage.source, Ordering::Release);
        let handling = Handling::new(libc::SIGBUS, on_sigbus)?;
        Ok(Self { _handling: handling, _uffd: uffd, ground, _pinned: pinned })
    }
}

impl Work for BySignal {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for n in 0..FAULTS {
            let page = self.ground.range.start + n * PAGE;
            let start = stamp();
            touch::store(page, 1).map_err(|s| Stop::Broken(format!("the access: {s}")))?;
            ticks.push(stamp() - start);
        }
        self.ground.empty()
    }
}

/// Turns of the delay that the checks put into a copy of the handler: some ten round trips, whose median differs
/// by a half from one process to the next.
const DELAYS: [u64; 2] = [0, 200_000];

/// Ids of round trips with a delay of so many turns of [`super::clock::spin`] in the handler.
pub fn delays() -> [(String, u64); 2] {
    DELAYS.map(|turns| (format!("check/delay[turns={turns}]"), turns))
}

fn served(
    id: (&'static str, &'static str, String),
    about: &'static str,
    form: Form,
    who: fn(&Stage, Range) -> Result<Who, Stop>,
) -> Operation {
    let limit = format!("limit/ping-pong[cpus={}]", form.cpus.word());
    Operation::new(id, about, move |stage: &Stage, at| {
        Served::new(stage, at, form, |range| who(stage, range))
    })
    .of_pages(1)
    .by_several()
    .against(limit)
}

const USER: fn(&Stage, Range) -> Result<Who, Stop> = |_, _| Ok(Who::User);
const KERNEL: fn(&Stage, Range) -> Result<Who, Stop> = |_, _| Ok(Who::Kernel(small_file()?));
const VCPU: fn(&Stage, Range) -> Result<Who, Stop> = |stage, range| {
    Vcpu::new(stage, range.start, VcpuAccess::Write, Range { len: PAGE, ..range }).map(Who::Vcpu)
};

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for cpus in Cpus::ALL {
        let form = Form { wait: Wait::Read, cpus, span: Span::Whole, delay: 0 };
        let on = format!("cpus={}", cpus.word());
        for (name, wait, about) in [
            ("read", Wait::Read, "A fault that a thread serves which waits in read(2)."),
            ("poll", Wait::Poll, "A fault that a thread serves which waits in poll(2)."),
            ("epoll", Wait::Epoll, "A fault that a thread serves which waits in epoll_wait(2)."),
        ] {
            all.push(served(("roundtrip", name, on.clone()), about, Form { wait, ..form }, USER));
        }
        let about = "A read(2) into a missing page, served by a thread that waits in read(2).";
        all.push(served(("roundtrip", "kernel", on.clone()), about, form, KERNEL));
        let about =
            "A vCPU's store to a missing page, KVM_RUN from entry to exit, served the same.";
        all.push(served(("roundtrip", "kvm", format!("waiter=vcpu,{on}")), about, form, VCPU));
        for (name, span, about) in [
            ("message", Span::ToMessage, "From the fault to the message in the handler's hands."),
            (
                "place",
                Span::Place,
                "UFFDIO_COPY with DONTWAKE by the handler, between the two others.",
            ),
            ("resume", Span::WakeToResume, "From before UFFDIO_WAKE to the access done."),
        ] {
            all.push(served(("phase", name, on.clone()), about, Form { span, ..form }, USER));
        }
    }
    let about = "A fault that the thread itself serves, in its handler of SIGBUS.";
    let id = ("roundtrip", "sigbus", "cpus=same".to_owned());
    all.push(Operation::new(id, about, BySignal::new).of_pages(1).against("limit/segv[pages=1]"));
    for delay in DELAYS {
        let form = Form { wait: Wait::Read, cpus: Cpus::Same, span: Span::Whole, delay };
        let about = "A fault as of roundtrip/read, with a loop of known length in the handler.";
        let id = ("check", "delay", format!("turns={delay}"));
        all.push(served(id, about, form, USER));
    }
    all
}
