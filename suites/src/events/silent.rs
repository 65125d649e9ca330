//! Ways to lose registered memory, or a part of it, that raise no event; and those beside them that do.

use super::ground::{ALL, Ground, follow};
use crate::abi::{REGISTER_MODE_MISSING, Range, Rc};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, HUGE, ONE_PAGE, RW};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::treat;
use uffd_results::KernelVersion;

static SILENT: Probe = Probe {
    suite: "events",
    name: "silent",
    statement: "shmdt, shmat(SHM_REMAP) and remap_file_pages take registered memory away without an UNMAP \
                event, and a file that shrinks its pages without a REMOVE event; munmap and mmap in \
                their place raise UNMAP.",
    consumers: &[
        "libfabric: ofi_uffd_handler() (every way to lose memory should tell the monitor)",
        "psm3: prov/psm3, mr cache",
        "CRIU lazy-pages: criu/uffd.c",
    ],
};
static SEGMENT: Probe = Probe {
    suite: "events",
    name: "shmdt",
    statement: "A System V segment of small pages can't be registered; one of huge pages can (up to 7.0), \
                and shmdt takes it away without an UNMAP event, where munmap raises one.",
    consumers: &["libfabric: ofi_uffd_handler()", "PostgreSQL: huge_pages with SysV segments"],
};

axis! {
    /// How the middle of a registered block goes.
    Way {
        /// munmap(2): the control.
        Unmap = "munmap",
        /// mmap(2) with MAP_FIXED: a control as well.
        Over = "mmap-over",
        /// shmat(2) with SHM_REMAP.
        Attach = "shmat-remap",
        /// remap_file_pages(2).
        RemapFilePages = "remap-file-pages",
        /// ftruncate(2) of the file to its first two pages: the mapping stays.
        Truncate = "ftruncate",
        /// A hole that is punched into the file: the mapping stays.
        Punch = "punch-hole",
    }
}

impl Way {
    const fn applies(self, backing: Backing) -> bool {
        match self {
            Self::Truncate | Self::Punch => matches!(backing, Backing::Shmem | Backing::Private),
            Self::RemapFilePages => matches!(backing, Backing::Shmem | Backing::SharedAnon),
            _ => true,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Unmap | Self::Over)
    }
}

#[derive(Clone, Copy, Debug)]
struct Silent {
    backing: Backing,
    way: Way,
}

/// What goes.
const MIDDLE: std::ops::Range<usize> = 2..4;

impl Trial for Silent {
    fn axes(&self) -> String {
        format!("backing={},how={}", self.backing, self.way)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground::set(stage, self.backing, ALL.bits)?;
        let Ground { block, uffd, .. } = &ground;
        let (range, way) = (block.range(MIDDLE), self.way);
        seen.step("call");
        let call: Box<dyn FnOnce() -> Rc + Send> = match way {
            Way::Truncate | Way::Punch => {
                let file = block.file.as_ref().map(std::os::fd::OwnedFd::try_clone);
                let Some(Ok(file)) = file else {
                    return Err(Stop::Broken("a second descriptor of the file".into()));
                };
                let again = Block { backing: self.backing, page: block.page, file: Some(file) };
                Box::new(move || {
                    let rc = if way == Way::Punch {
                        again.discard(crate::point::Discard::Punch, MIDDLE)
                    } else {
                        again.cut(MIDDLE.start)
                    };
                    rc.unwrap_or(Rc(Some(nix::errno::Errno::ENOTRECOVERABLE)))
                })
            }
            Way::Unmap => Box::new(move || memory::unmap(range)),
            Way::Over => Box::new(move || {
                memory::map(range, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)
            }),
            Way::Attach => {
                let segment = treat::Segment::new(range.len, false)?;
                Box::new(move || segment.attach(range, libc::SHM_REMAP))
            }
            Way::RemapFilePages => Box::new(move || treat::remap_file_pages(range, 0)),
        };
        let mover = Mover::start(stage, call)?;
        seen.fact("events", follow(&mover, &[uffd], block.page)?);
        seen.fact("call", mover.join()?);
        seen.fact("left", ground.read());
        seen.fact("reg", ground.registration()?);
        seen.fact("pages", ground.pages()?);
        let (rc, field) = uffd.copy(ground.target(), stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        use crate::model::source;
        let Self { backing, way } = *self;
        let says = match way {
            Way::Unmap | Way::Over => "userfaultfd(2), UFFD_FEATURE_EVENT_UNMAP",
            Way::Attach => "do_shmat() in ipc/shm.c calls do_mmap() without a list for events",
            Way::RemapFilePages => {
                "remap_file_pages() in mm/mmap.c calls do_mmap() without a list for events"
            }
            Way::Truncate | Way::Punch => {
                "unmap_mapping_range() knows of no context; REMOVE is raised by madvise(2) only"
            }
        };
        let filled = match way {
            Way::Truncate => {
                "mfill_file_over_size(), and shmem_mfill_folio_alloc() (7.1): no page behind the end of \
                 the file"
            }
            Way::Punch => source::COPY,
            _ => source::COPY_ENOENT,
        };
        let events = if way.is_control() { "unmap(2..4)" } else { "none" };
        let (reg, pages) = match way {
            Way::Unmap => ("mm--mm", "kk--kk"),
            Way::Over | Way::Attach => ("mm..mm", "kk--kk"),
            // It shows the file's first pages there.
            Way::RemapFilePages => ("mm..mm", "kkkkkk"),
            Way::Truncate => ("mmmmmm", "kk----"),
            Way::Punch if backing == Backing::Private => ("mmmmmm", "kk-kkk"),
            Way::Punch => ("mmmmmm", "kk--kk"),
        };
        let (copy, field) = match way {
            Way::Truncate if backing == Backing::Shmem && kernel >= KernelVersion::new(7, 1, 0) => {
                ("ENOMEM", "-12")
            }
            Way::Truncate => ("EFAULT", "-14"),
            Way::Punch => ("0", ONE_PAGE),
            _ => ("ENOENT", "-2"),
        };
        vec![
            Expected::new("events", events, says),
            Expected::new("call", "0", says),
            Expected::new("left", "EAGAIN", says),
            Expected::new("reg", reg, says),
            Expected::new("pages", pages, says),
            Expected::new("copy", copy, filled),
            Expected::new("field", field, filled),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a block of 6 pages ({}); write to all but page 2", self.backing),
            "UFFDIO_API with the events remap, remove and unmap; UFFDIO_REGISTER for missing pages"
                .to_owned(),
            format!("a thread makes pages 2..4 go: {}; read its events", self.way),
            "look at registration and content of every page; UFFDIO_COPY to page 2".to_owned(),
        ]
    }
}

axis! {
    /// How a System V segment goes.
    Gone {
        /// shmdt(2).
        Detach = "shmdt",
        /// munmap(2): the control.
        Unmap = "munmap",
        /// munmap(2) of half of it, and shmdt(2) of the rest.
        Both = "munmap-half-then-shmdt",
    }
}

#[derive(Clone, Copy, Debug)]
struct Detached {
    huge: bool,
    gone: Gone,
}

impl Trial for Detached {
    fn axes(&self) -> String {
        let pages = if self.huge { "huge" } else { "small" };
        format!("pages={pages},by={}", self.gone)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(ALL.bits)?;
        let page = if self.huge { HUGE } else { memory::PAGE };
        let all = Range { start: BLOCK, len: 2 * page };
        let half = Range { start: BLOCK + page, len: page };
        let segment = treat::Segment::new(all.len, self.huge)?;
        let rc = segment.attach(all, 0);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("shmat: {rc}")));
        }
        let uffd = stage.uffd(ALL.bits)?;
        let registered = uffd.register(all, REGISTER_MODE_MISSING);
        seen.fact("register", Rc(registered.err()));
        let calls: &[(&'static str, &'static str)] = &[("call", "events"), ("call-2", "events-2")];
        let gone = self.gone;
        for (n, (call, events)) in
            calls.iter().enumerate().take(if gone == Gone::Both { 2 } else { 1 })
        {
            seen.step(call);
            let mover = Mover::start(stage, move || match (gone, n) {
                (Gone::Unmap, _) => memory::unmap(all),
                (Gone::Both, 0) => memory::unmap(half),
                _ => treat::detach(all),
            })?;
            seen.fact(events, follow(&mover, &[&uffd], page)?);
            seen.fact(call, mover.join()?);
        }
        seen.fact("reg", evidence::registration(&[(all, page)])?.concat());
        let (rc, field) = uffd.copy(Range { len: page, ..all }, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        use crate::model::source;
        let gone = self.gone;
        let huge = self.huge && kernel < KernelVersion::new(7, 1, 0);
        let refused = "vma_can_userfault(): System V segments have operations of their own (shm_vm_ops), \
                       so that they are no shmem for userfaultfd; huge pages were told by a flag, and \
                       from 7.1 on by operations that shm_vm_ops lacks (vm_uffd_ops)";
        let silent = "ksys_shmdt() in ipc/shm.c unmaps without a list for events";
        let unmap = "userfaultfd(2), UFFD_FEATURE_EVENT_UNMAP";
        let mut facts = vec![Expected::new("register", if huge { "0" } else { "EINVAL" }, refused)];
        let events = match gone {
            Gone::Unmap if huge => "unmap(0..2)",
            Gone::Both if huge => "unmap(1..2)",
            _ => "none",
        };
        let says = if gone == Gone::Detach { silent } else { unmap };
        facts.push(Expected::new("events", events, says));
        facts.push(Expected::new("call", "0", says));
        if gone == Gone::Both {
            facts.push(Expected::new("events-2", "none", silent));
            facts.push(Expected::new("call-2", "0", silent));
        }
        facts.push(Expected::new("reg", "--", says));
        facts.push(Expected::new("copy", "ENOENT", source::COPY_ENOENT));
        facts.push(Expected::new("field", "-2", source::COPY_ENOENT));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let pages = if self.huge { "2 MiB pages (SHM_HUGETLB)" } else { "pages" };
        vec![
            format!("shmget and shmat of a segment of two {pages}"),
            "UFFDIO_API with the events remap, remove and unmap; UFFDIO_REGISTER for missing pages"
                .to_owned(),
            format!("a thread takes it away: {}; read its events", self.gone),
            "look at the registration; UFFDIO_COPY to the first page".to_owned(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.huge
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for way in Way::ALL.iter().filter(|way| way.applies(backing)) {
            cases.push(Case::trial(&SILENT, Silent { backing, way: *way }, true));
        }
    }
    for huge in [false, true] {
        for gone in Gone::ALL {
            cases.push(Case::trial(&SEGMENT, Detached { huge, gone: *gone }, true));
        }
    }
    cases
}
