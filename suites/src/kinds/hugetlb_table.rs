//! A page table of huge pages that two processes share, and what registering one of the mappings makes of it.

mod two;

use super::hugetlb_empty::pool;
use crate::abi::{Range, Uffd, WRITEPROTECT_MODE_WP};
use crate::evidence::QueueFile;
use crate::expect::{Expected, OBSERVED};
use crate::files;
use crate::lab::For;
use crate::memory::{FAR, HUGE, RW, map};
use crate::model::source;
use crate::mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, Link};
use crate::stage::Stage;
use std::os::fd::{AsFd, OwnedFd};
use two::{LOOKED_AT, Two, access, page};
use uffd_results::KernelVersion;

static TABLE: Probe = Probe {
    suite: "kinds",
    name: "hugetlb-table",
    statement: "Processes that map 1 GiB of one hugetlb file alike share a page table: what one has \
                brought is mapped in the other, too, which never faults for it. Registering for missing \
                pages leaves a table shared that is shared already; registering for write protection or \
                minor faults takes it away from the one that registers, none of whose pages is mapped \
                then. A mapping that is registered first shares no table with one that is not.",
    consumers: &[
        "QEMU with hugetlb RAM and vhost-user backends (DPDK, SPDK): the same gigabytes mapped in several \
         processes",
        "Firecracker, Cloud Hypervisor: hugetlb memory of a guest that a handler maps, too",
        "working sets and dirty pages that are counted by pagemap or mincore of one process",
    ],
};

axis! {
    /// When it is registered.
    Order {
        /// Once both have touched the first page, and so share the table if they can.
        After = "after-sharing",
        /// Before anybody touches anything.
        Before = "before-sharing",
    }
}

axis! {
    /// How the process brings a page.
    Deed {
        /// A store.
        Touch = "store",
        /// UFFDIO_COPY.
        Copy = "copy",
    }
}

axis! {
    /// What is mapped of the file.
    Size {
        /// 1 GiB, all that a table can map.
        Whole = "1-gib",
        /// A huge page less: no table can be shared.
        Less = "less",
    }
}

#[derive(Debug)]
struct Table {
    mode: For,
    order: Order,
    deed: Deed,
    size: Size,
}

/// What a page table of the lowest level but one maps.
const GIB: usize = 1 << 30;

const SHARES: &str = "huge_pmd_share() in mm/hugetlb.c: shared mappings of the same GiB of a file, with \
    the same flags";
const FLAGS: &str = "page_table_shareable() in mm/hugetlb.c: mappings with other flags, such as \
    VM_UFFD_MISSING, share no table";
const UNSHARES: &str = "userfaultfd_register() calls hugetlb_unshare_all_pmds() for what \
    uffd_disable_huge_pmd_share() names: write protection and minor faults (5.13)";
const CACHE: &str =
    "hugetlb_no_page() in mm/hugetlb.c: what is in the page cache is mapped, with no missing fault";

impl Table {
    fn all(&self) -> Range {
        let len = if self.size == Size::Whole { GIB } else { GIB - HUGE };
        Range { start: FAR.start, len }
    }

    fn map(&self, file: &OwnedFd) -> Result<(), Stop> {
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        let rc = map(self.all(), RW, flags, Some(file.as_fd()), 0);
        if rc.is_ok() { Ok(()) } else { Err(Stop::Broken(format!("mapping 1 GiB: {rc}"))) }
    }

    /// Whether both have one table before the process is registered, if it is later.
    fn shares_before(&self) -> bool {
        self.size == Size::Whole && (self.mode == For::Nothing || self.order == Order::After)
    }

    /// Whether they have one afterwards.
    fn shares_after(&self) -> bool {
        self.shares_before() && matches!(self.mode, For::Nothing | For::Missing)
    }
}

fn live(table: &Table, file: &OwnedFd, stage: &Stage, link: &Link) -> Result<(), Stop> {
    table.map(file)?;
    link.say("mapped")?;
    loop {
        match link.hear()?.as_str() {
            "end" => return Ok(()),
            word => link.say(access(stage, word))?,
        }
    }
}

impl Trial for Table {
    fn axes(&self) -> String {
        let Self { mode, order, deed, size } = self;
        format!("mode={mode},registered={order},deed={deed},size={size}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let unpromised = pool("free_hugepages")?.saturating_sub(pool("resv_hugepages")?);
        if unpromised < LOOKED_AT {
            return Err(Stop::Precondition(format!("no {LOOKED_AT} 2 MiB huge pages are free")));
        }
        let file = files::hugetlb(GIB)?;
        let other = Child::fork(stage, |link| live(self, &file, stage, link))?;
        other.link().must_hear("mapped")?;
        self.map(&file)?;
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        let mut two = Two { stage, uffd, queue, other };
        let register = |uffd: &Uffd| match self.mode.bits() {
            0 => Ok(()),
            modes => uffd.register(self.all(), modes).map(drop).map_err(|e| {
                Stop::Unsupported(format!("REGISTER of hugetlb ({}): {e:?}", self.mode))
            }),
        };
        let early = if self.order == Order::Before && self.mode != For::Nothing {
            register(&two.uffd)?;
            Deed::Copy
        } else {
            Deed::Touch
        };
        seen.step("share");
        two.bring(0, early)?;
        two.other("load 0")?;
        two.bring(1, early)?;
        let [mine, theirs] = two.tables()?;
        seen.fact("mine", mine);
        seen.fact("theirs", theirs);
        if self.order == Order::After {
            seen.step("register");
            register(&two.uffd)?;
            let [mine, theirs] = two.tables()?;
            seen.fact("mine-registered", mine);
            seen.fact("theirs-registered", theirs);
        }
        seen.step("bring");
        seen.fact("deed", two.bring(2, self.deed)?);
        seen.fact("theirs-brought", two.tables()?[1].clone());
        seen.fact("their-load", two.other("load 2")?);
        seen.fact("their-store", two.other("store 3")?);
        seen.fact("mine-stored", two.tables()?[0].clone());
        seen.fact("read", mover::word(two.uffd.read()));
        seen.step("access");
        if self.mode == For::Wp {
            seen.fact("protect", two.uffd.writeprotect(page(3), WRITEPROTECT_MODE_WP));
            seen.fact("their-write", two.other("store 3")?);
            two.reach((Kind::UserWrite, 3), |uffd| uffd.writeprotect(page(3), 0), seen)?;
        } else {
            two.reach((Kind::UserRead, 3), |uffd| uffd.resume(page(3), 0).0, seen)?;
        }
        two.other.link().say("end")?;
        two.other.wait().map(drop)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let (before, after) = (self.shares_before(), self.shares_after());
        let shares =
            if self.mode != For::Nothing && self.order == Order::Before { FLAGS } else { SHARES };
        let mut facts = vec![
            Expected::new("mine", "pp---", source::COPY),
            Expected::new("theirs", if before { "pp---" } else { "p----" }, shares),
        ];
        let lost = before && !after;
        if self.order == Order::After {
            facts.push(Expected::new(
                "mine-registered",
                if lost { "-----" } else { "pp---" },
                UNSHARES,
            ));
            let theirs = if before { "pp---" } else { "p----" };
            facts.push(Expected::new("theirs-registered", theirs, UNSHARES));
        }
        let (done, value) =
            if self.deed == Deed::Copy { ("0", "copied") } else { ("ran", "wrote") };
        facts.push(Expected::new("deed", done, source::COPY));
        let theirs = match (before, after) {
            (_, true) => "ppp--",
            (true, false) => "pp---",
            (false, false) => "p----",
        };
        facts.push(Expected::new("theirs-brought", theirs, shares));
        facts.push(Expected::new("their-load", format!("ran:{value}"), CACHE));
        facts.push(Expected::new("their-store", "ran", OBSERVED));
        let mine = match (after, lost) {
            (true, _) => "pppp-",
            (_, true) => "--p--",
            _ => "ppp--",
        };
        facts.push(Expected::new("mine-stored", mine, shares));
        let silent = "userfaultfd concerns the mappings of the process that registers";
        facts.push(Expected::new("read", "EAGAIN", silent));
        match self.mode {
            For::Nothing | For::Missing => facts.push(Expected::new("access", "ran:new", CACHE)),
            For::Minor => facts.extend([
                Expected::new("access", "again", source::CONTINUE),
                Expected::new("fault", "minor-read", source::CONTINUE),
                Expected::new("serve", "0", source::CONTINUE),
                Expected::new("waiter", "ran:new", source::CONTINUE),
            ]),
            For::Wp => facts.extend([
                Expected::new("protect", "0", source::WRITEPROTECT),
                Expected::new("their-write", "ran", silent),
                Expected::new("access", "again", source::WRITEPROTECT),
                Expected::new("fault", "wp-write", source::WRITEPROTECT),
                Expected::new("serve", "0", source::WRITEPROTECT),
                Expected::new("waiter", "ran", source::WRITEPROTECT),
            ]),
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let size = if self.size == Size::Whole { "1 GiB" } else { "1 GiB less 2 MiB" };
        let register = format!("the first process registers all of it ({})", self.mode);
        let mut recipe = vec![format!(
            "two processes map {size} of one hugetlb memfd (2 MiB pages) at the same address, a multiple \
             of 1 GiB, with MAP_SHARED and MAP_NORESERVE"
        )];
        let (is_registered, early) = (self.mode != For::Nothing, self.order == Order::Before);
        if is_registered && early {
            recipe.push(register.clone());
        }
        recipe.push(
            "the first brings page 0, the second loads from it, the first brings page 1; what does \
             /proc/PID/pagemap have of both?"
                .to_owned(),
        );
        if is_registered && !early {
            recipe.push(format!("{register}; pagemap of both"));
        }
        recipe.push(format!(
            "the first brings page 2 ({}): has the second one it in its pagemap? It loads from it",
            self.deed
        ));
        recipe.push(
            "the second one stores to page 3: has the first one it in its pagemap? A message?"
                .to_owned(),
        );
        recipe.push(match self.mode {
            For::Wp => {
                "the first protects page 3, the second stores to it, a thread of the first does"
                    .to_owned()
            }
            _ => "a thread of the first one loads from page 3".to_owned(),
        });
        recipe
    }

    fn uses_huge_pages(&self) -> bool {
        true
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in For::ALL {
        for order in Order::ALL {
            for deed in Deed::ALL {
                for size in Size::ALL {
                    let fits = match mode {
                        For::Nothing => *order == Order::After && *deed == Deed::Touch,
                        // A store would wait.
                        For::Missing => *deed == Deed::Copy,
                        For::Wp | For::Minor => true,
                    };
                    let trial = Table { mode: *mode, order: *order, deed: *deed, size: *size };
                    if fits {
                        let by_default = *size == Size::Whole || *mode == For::Nothing;
                        cases.push(Case::trial(&TABLE, trial, by_default));
                    }
                }
            }
        }
    }
    cases
}
