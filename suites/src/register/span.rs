//! Which part of what lies there is registered: parts, holes, several mappings, foreign ones.

use super::words::{MODE, SPLITS};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, PAGE, RW, map, protect, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use std::ops::Range as Pages;
use uffd_results::KernelVersion;

static SPAN: Probe = Probe {
    suite: "register",
    name: "span",
    statement: "REGISTER arms exactly the mapped pages of its range, across holes and several mappings; \
                one mapping that can't be registered, or that another userfaultfd owns, makes it fail \
                and arm nothing.",
    consumers: &[
        "QEMU: registers a prefix of a larger mapping (commit 898ba906cc)",
        "KVM demand_paging_test: EBUSY where regions overlap",
        "libfabric psm3: REGISTER again over replaced parts",
    ],
};

axis! {
    /// How the block is laid out, and which part is registered.
    Layout {
        /// All of one mapping.
        Whole = "whole",
        /// Its first third.
        Prefix = "prefix",
        /// Its second third.
        Middle = "middle",
        /// Its last third.
        Suffix = "suffix",
        /// All, with a hole of one page in the middle.
        AcrossHole = "across-hole",
        /// From within a hole.
        FromHole = "from-hole",
        /// Into a hole.
        IntoHole = "into-hole",
        /// Only a hole between two mappings.
        OnlyHole = "only-hole",
        /// The pages from before the block to behind it.
        Around = "around",
        /// All, whose second half can only be read, and so is a mapping of its own.
        TwoMappings = "two-mappings",
        /// From the middle of one mapping to the middle of the next.
        HalfAndHalf = "half-and-half",
        /// All, with a page of a regular file in the middle.
        FileInside = "file-inside",
        /// All but a page of a regular file at the end.
        FileBehind = "file-behind",
        /// All, with a page in the middle that another userfaultfd owns.
        OtherInside = "other-uffd-inside",
        /// The pages in front of one that another userfaultfd owns.
        OtherBehind = "other-uffd-behind",
        /// All, with other memory that can be registered in the middle.
        MixedInside = "other-memory-inside",
        /// All, with a shared mapping inside that can't be written to.
        SealedInside = "unwritable-inside",
    }
}

impl Layout {
    /// The pages to be registered, counted from the block's first one.
    pub(super) const fn pages(self) -> Pages<usize> {
        match self {
            Self::Prefix | Self::OtherBehind => 0..2,
            Self::Middle => 2..4,
            Self::Suffix => 4..PAGES,
            Self::FromHole => 2..PAGES,
            Self::IntoHole => 0..3,
            Self::OnlyHole => 2..3,
            Self::HalfAndHalf => 1..5,
            Self::FileBehind => 0..5,
            _ => 0..PAGES,
        }
    }

    /// Whether it needs small pages.
    pub(super) const fn is_small(self) -> bool {
        matches!(self, Self::MixedInside | Self::SealedInside | Self::FileInside | Self::FileBehind)
    }

    /// Lays the block out; a userfaultfd that owns a page of it.
    pub(super) fn lay(self, stage: &Stage, block: &Block, mode: u64) -> Result<Option<Uffd>, Stop> {
        let page = |page: usize| block.range(page..page + 1);
        let rc = match self {
            Self::AcrossHole | Self::FromHole | Self::IntoHole | Self::OnlyHole => unmap(page(2)),
            Self::TwoMappings | Self::HalfAndHalf => {
                protect(block.range(3..PAGES), libc::PROT_READ)
            }
            Self::FileInside | Self::FileBehind => {
                let at = page(if self == Self::FileInside { 2 } else { 5 });
                map(at, libc::PROT_READ, libc::MAP_PRIVATE, Some(stage.plain_fd()?), 0)
            }
            Self::OtherInside | Self::OtherBehind => {
                let other = stage.uffd(0)?;
                return match other.register(page(2), mode) {
                    Ok(_) => Ok(Some(other)),
                    Err(e) => Err(Stop::Unsupported(format!("REGISTER by another one: {e:?}"))),
                };
            }
            Self::MixedInside => {
                let kind =
                    if block.backing.is_private() { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                map(page(2), RW, kind | libc::MAP_ANONYMOUS, None, 0)
            }
            Self::SealedInside => {
                let file = crate::memory::new_data(PAGE)?;
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
                let file = std::fs::File::open(path)
                    .map_err(|e| Stop::Broken(format!("opening a memfd again: {e}")))?;
                let fd = std::os::fd::AsFd::as_fd(&file);
                map(page(2), libc::PROT_READ, libc::MAP_SHARED, Some(fd), 0)
            }
            _ => Rc::OK,
        };
        if rc.is_ok() { Ok(None) } else { Err(Stop::Broken(format!("laying out {self}: {rc}"))) }
    }

    /// What REGISTER returns.
    const fn returns(self) -> (&'static str, &'static str) {
        match self {
            Self::OnlyHole => ("EINVAL", "ioctl_userfaultfd(2), EINVAL: no mapping in the range"),
            Self::FileInside => (
                "EINVAL",
                "ioctl_userfaultfd(2), EINVAL: a mapping that userfaultfd does not handle",
            ),
            Self::OtherInside => {
                ("EBUSY", "ioctl_userfaultfd(2), EBUSY: registered with another userfaultfd")
            }
            Self::SealedInside => ("EPERM", "userfaultfd_register(): EPERM without VM_MAYWRITE"),
            _ => ("0", MODE),
        }
    }
}

/// REGISTER of a part of a layout.
#[derive(Clone, Copy, Debug)]
struct Span {
    backing: Backing,
    layout: Layout,
    mode: u64,
}

impl Span {
    /// The letter of every page before and after.
    fn letters(self) -> (String, String) {
        let (layout, own) = (self.layout, if self.mode == REGISTER_MODE_WP { 'w' } else { 'm' });
        let mut before = ['.'; PAGES];
        match layout {
            Layout::AcrossHole | Layout::FromHole | Layout::IntoHole | Layout::OnlyHole => {
                before[2] = '-';
            }
            Layout::OtherInside | Layout::OtherBehind => before[2] = own,
            _ => {}
        }
        let mut after = before;
        if layout.returns().0 == "0" {
            for slot in &mut after[layout.pages()] {
                *slot = if *slot == '-' { '-' } else { own };
            }
        }
        (before.iter().collect(), after.iter().collect())
    }

    /// How many mappings there are: borders are where letters, owners, memory or protection change.
    fn mappings(self, letters: &str) -> usize {
        let borders: &[usize] = match self.layout {
            Layout::TwoMappings | Layout::HalfAndHalf => &[3],
            Layout::FileInside
            | Layout::OtherInside
            | Layout::OtherBehind
            | Layout::MixedInside
            | Layout::SealedInside => &[2, 3],
            Layout::FileBehind => &[5],
            _ => &[],
        };
        let letters: Vec<char> = letters.chars().collect();
        let starts = |page: &usize| {
            letters[*page] != '-'
                && (*page == 0 || letters[*page - 1] != letters[*page] || borders.contains(page))
        };
        (0..PAGES).filter(starts).count()
    }
}

impl Trial for Span {
    fn axes(&self) -> String {
        let mode = super::words::mode(self.mode);
        format!("backing={},mode={mode},layout={}", self.backing, self.layout)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = Block::map(self.backing, BLOCK)?;
        let all = block.range(0..PAGES);
        let uffd = stage.uffd(0)?;
        let _owner = self.layout.lay(stage, &block, self.mode)?;
        seen.fact("mappings-before", evidence::mappings_in(all)?);
        let mut range = block.range(self.layout.pages());
        if self.layout == Layout::Around {
            range = Range { start: range.start - block.page, len: range.len + 2 * block.page };
        }
        seen.step("register");
        let rc = uffd.register(range, self.mode);
        if matches!(
            (rc, self.layout.returns().0),
            (Err(nix::errno::Errno::EINVAL), "0" | "EBUSY" | "EPERM")
        ) {
            let Self { backing, .. } = self;
            return Err(Stop::Unsupported(format!("REGISTER of {backing} memory with this mode")));
        }
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned()));
        seen.fact("reg", evidence::registration(&[(all, block.page)])?.concat());
        seen.fact("mappings", evidence::mappings_in(all)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let (before, after) = self.letters();
        let (rc, says) = self.layout.returns();
        vec![
            Expected::new("mappings-before", self.mappings(&before).to_string(), SPLITS),
            Expected::new("register", rc, says),
            Expected::new("reg", after.clone(), says),
            Expected::new("mappings", self.mappings(&after).to_string(), SPLITS),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, layout, mode } = self;
        vec![
            format!("map a {backing} block of {PAGES} pages and lay it out: {layout}"),
            format!(
                "UFFDIO_REGISTER of pages {:?} with mode {}",
                layout.pages(),
                super::words::mode(*mode)
            ),
            "read the registration of every page and count the mappings".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// The cases; hugetlb without the layouts that need small pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL {
        for layout in Layout::ALL {
            let small = matches!(
                layout,
                Layout::MixedInside
                    | Layout::SealedInside
                    | Layout::FileInside
                    | Layout::FileBehind
            );
            if backing.is_huge() && small {
                continue;
            }
            for mode in [REGISTER_MODE_MISSING, REGISTER_MODE_WP] {
                let missing = mode == REGISTER_MODE_MISSING;
                let telling = match backing {
                    Backing::Anon => true,
                    Backing::Shmem | Backing::Private => missing,
                    _ => {
                        missing
                            && matches!(
                                layout,
                                Layout::Middle | Layout::AcrossHole | Layout::OtherInside
                            )
                    }
                };
                let trial = Span { backing: *backing, layout: *layout, mode };
                cases.push(Case::trial(&SPAN, trial, telling));
            }
        }
    }
    cases
}
