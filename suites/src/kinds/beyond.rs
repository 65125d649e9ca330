//! Places that a mapping has and its file does not: behind the end of the file.

use crate::abi::{REGISTER_MODE_MISSING, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::files;
use crate::lab::{Lab, length, outcome, want};
use crate::memory::{BLOCK, Block, HUGE, ONE_PAGE, RW, map};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::poison::{CODE, SIGBUS};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static BEYOND: Probe = Probe {
    suite: "kinds",
    name: "beyond-end",
    statement: "Nothing is placed behind the end of a file of small pages, whether the mapping is shared or private: \
                EFAULT, from 7.1 on ENOMEM for COPY and ZEROPAGE of shared memory; when the file is longer again, it \
                works.",
    consumers: &["Wine, Android ART and others that register memfds and resize them"],
};

static HUGETLB: Probe = Probe {
    suite: "kinds",
    name: "beyond-end-huge",
    statement: "Behind the end of a hugetlb file only a shared mapping keeps COPY out (EFAULT): a private one is \
                filled there, from 6.1 on, and POISON marks either; loads then find the page or the mark.",
    consumers: &[
        "QEMU: RAM blocks of hugetlbfs files that were cut",
        "Firecracker, Cloud Hypervisor: guest memory of hugetlb memfds",
    ],
};

axis! {
    /// What is to be placed.
    Deed {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_POISON.
        Poison = "poison",
    }
}

#[derive(Debug)]
struct Beyond {
    backing: Backing,
    deed: Deed,
}

/// The page that is behind the end once the file is cut to so many.
const PAGE: usize = 2;

impl Beyond {
    fn lab<'a>(&self, stage: &'a Stage) -> Result<Lab<'a>, Stop> {
        if self.backing != Backing::HugetlbPrivate {
            return Lab::new(stage, self.backing, 0);
        }
        // A block of that name has no file to cut.
        let file = files::hugetlb(2 * PAGES * HUGE)?;
        let block = Block { backing: self.backing, page: HUGE, file: Some(file) };
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
        let file = block.file.as_ref().map(std::os::fd::AsFd::as_fd);
        match map(block.at(BLOCK, 0..PAGES), RW, flags, file, 0) {
            rc if rc.is_ok() => {}
            rc => return Err(Stop::Precondition(format!("mapping a hugetlb memfd: {rc}"))),
        }
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        Ok(Lab { stage, block, uffd, queue })
    }

    fn expect_huge(&self, kernel: KernelVersion) -> Vec<Expected> {
        const UNSHOWN: &str = "pagemap_hugetlb_range() in fs/proc/task_mmu.c shows of an entry that is no page at \
                               most its write protection";
        let shared = self.backing == Backing::HugetlbShared;
        let one = length(self.backing);
        let placed = [("op", "0"), ("field", &*one)];
        let there = [("later", "EEXIST"), ("later-field", "-17")];
        if self.deed == Deed::Poison {
            let says = "the branch for POISON of hugetlb_mfill_atomic_pte() in mm/hugetlb.c comes before all others \
                        and does not look at the file's size";
            let mut facts = want(says, &placed);
            facts.extend(want(UNSHOWN, &[("entries", "------")]));
            facts.extend(want(CODE, &[("load", SIGBUS)]));
            facts.extend(want(says, &there));
            facts.extend(want(UNSHOWN, &[("later-entries", "------")]));
            return facts;
        }
        if !shared && kernel >= KernelVersion::new(6, 1, 0) {
            let says = "hugetlb_mfill_atomic_pte() in mm/hugetlb.c looks at the file's size only where it adds to \
                        the page cache, for a shared mapping, since 'hugetlb: clean up code checking for \
                        fault/truncation races' (6.1)";
            let mut facts = want(says, &placed);
            facts.extend(want(says, &[("entries", "--p---"), ("load", "ran:copied")]));
            facts.extend(want(source::COPY, &there));
            facts.extend(want(says, &[("later-entries", "--p---")]));
            return facts;
        }
        let says = "hugetlb_mfill_atomic_pte() in mm/hugetlb.c: EFAULT for an offset that the file does not have";
        let beyond =
            "mmap(2): SIGBUS behind the end of the file; hugetlb_no_page() looks at it first";
        let mut facts = want(says, &[("op", "EFAULT"), ("field", "-14"), ("entries", "------")]);
        facts.extend(want(beyond, &[("load", "BUS_ADRERR")]));
        let later = [("later", "0"), ("later-field", &*one), ("later-entries", "--p---")];
        facts.extend(want(source::COPY, &later));
        facts
    }
}

impl Trial for Beyond {
    fn axes(&self) -> String {
        format!("backing={},deed={}", self.backing, self.deed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(if self.deed == Deed::Poison { features::POISON } else { 0 })?;
        let lab = self.lab(stage)?;
        lab.register(0..PAGES, REGISTER_MODE_MISSING)?;
        let cut = |pages| match lab.block.cut(pages)? {
            crate::abi::Rc(None) => Ok(()),
            rc => Err(Stop::Broken(format!("ftruncate: {rc}"))),
        };
        let call = || match self.deed {
            Deed::Copy => lab.uffd.copy(lab.page(PAGE), stage.source, 0),
            Deed::Zeropage => lab.uffd.zeropage(lab.page(PAGE), 0),
            Deed::Poison => lab.uffd.poison(lab.page(PAGE), 0),
        };
        cut(PAGE)?;
        seen.step("call");
        outcome(("op", "field"), call(), seen);
        lab.entries("entries", seen)?;
        if self.backing.is_huge() {
            lab.meet(("load", "fault"), Waiter::UserRead, PAGE, seen)?;
        }
        cut(PAGES)?;
        seen.step("later");
        outcome(("later", "later-field"), call(), seen);
        lab.entries("later-entries", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        if self.backing.is_huge() {
            return self.expect_huge(kernel);
        }
        let makes_shared = self.backing == Backing::Shmem && self.deed != Deed::Poison;
        let (errno, field, says) = if makes_shared && kernel >= KernelVersion::new(7, 1, 0) {
            let says = "shmem_mfill_folio_alloc() in mm/shmem.c (7.1) looks at the file's size first and has no \
                        errno: the caller takes it for a lack of memory";
            ("ENOMEM", "-12", says)
        } else {
            let says = "mfill_file_over_size() in mm/userfaultfd.c, and what was there before it: EFAULT for an \
                        offset that the file does not have";
            ("EFAULT", "-14", says)
        };
        let (source, letter) = match self.deed {
            Deed::Copy => (source::COPY, 'p'),
            Deed::Zeropage => (source::ZEROPAGE, 'p'),
            Deed::Poison => (source::POISON, 's'),
        };
        let mut facts = want(says, &[("op", errno), ("field", field), ("entries", "------")]);
        facts.extend(want(source, &[("later", "0"), ("later-field", ONE_PAGE)]));
        facts.push(Expected::new("later-entries", format!("--{letter}---"), source));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let kind = if self.backing == Backing::HugetlbPrivate {
            "a memfd of huge pages, MAP_PRIVATE".to_owned()
        } else {
            self.backing.to_string()
        };
        let load = if self.backing.is_huge() { "; a thread loads from it" } else { "" };
        vec![
            format!("map a block of {PAGES} pages ({kind}), register it for missing pages"),
            "ftruncate the file to two pages".to_owned(),
            format!("{} of page 2; look at every page's entry{load}", self.deed),
            format!("ftruncate to {PAGES} pages; the same again"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let small = [Backing::Shmem, Backing::Private];
    for backing in small.into_iter().chain([Backing::HugetlbShared, Backing::HugetlbPrivate]) {
        let probe = if backing.is_huge() { &HUGETLB } else { &BEYOND };
        for deed in Deed::ALL {
            // There is no ZEROPAGE of huge pages.
            if !(backing.is_huge() && *deed == Deed::Zeropage) {
                cases.push(Case::trial(probe, Beyond { backing, deed: *deed }, true));
            }
        }
    }
    cases
}
