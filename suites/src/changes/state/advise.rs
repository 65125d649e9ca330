//! What madvise(2) does to the pages, by the advice.

use super::super::step::{Advice, Span};
use super::{MADVISE, OK, Page, Returned, State};
use crate::point::Backing;

const DOFORK_SPECIAL: &str = "madvise_vma_behavior() in mm/madvise.c (7.1): no MADV_DOFORK of VM_SPECIAL, which hugetlb \
    mappings are by VM_DONTEXPAND, so that MADV_DONTFORK of them stays; since 7.0, before (6.18, 6.19) only of VM_IO";

impl State {
    pub(super) fn advise(&mut self, span: Span, advice: Advice) -> Returned {
        let huge = self.backing.is_huge();
        let anon = self.backing == Backing::Anon;
        match advice {
            Advice::DontNeed if huge && self.before(5, 18) => {
                ("EINVAL", crate::model::source::DONTNEED_HUGE)
            }
            Advice::DontNeedLocked if self.before(5, 18) => {
                ("EINVAL", "madvise(2), MADV_DONTNEED_LOCKED (5.18)")
            }
            Advice::DontNeed if self.any(span, |page| page.locked) => {
                ("EINVAL", "madvise(2), MADV_DONTNEED: not of locked pages")
            }
            Advice::DontNeed if anon && self.any(span, Page::sealed_read_only) => (
                "EPERM",
                "mseal(2): no discard of sealed anonymous memory that can't be written to",
            ),
            Advice::DontNeed | Advice::DontNeedLocked => {
                self.each(span, Page::drop_shown);
                OK
            }
            Advice::Free if !anon => ("EINVAL", "madvise(2), MADV_FREE: private anonymous memory"),
            Advice::Remove => match self.backing {
                Backing::Anon => ("EINVAL", "madvise(2), MADV_REMOVE: not backed by a file"),
                Backing::Private | Backing::HugetlbPrivate => {
                    ("EACCES", "madvise_remove() in mm/madvise.c: only shared writable mappings")
                }
                _ => {
                    self.each(span, |page| {
                        page.drop_shown();
                        page.cached = None;
                    });
                    OK
                }
            },
            Advice::Cold | Advice::PageOut if huge => {
                ("EINVAL", "madvise(2), MADV_COLD, MADV_PAGEOUT: not on hugetlb pages")
            }
            Advice::PageOut if self.shared() => {
                self.each(span, Page::drop_shown);
                ("0", MADVISE)
            }
            Advice::WipeOnFork if !anon => {
                ("EINVAL", "madvise(2), MADV_WIPEONFORK: private anonymous memory")
            }
            Advice::WipeOnFork => {
                self.each(span, |page| page.wiped = true);
                OK
            }
            Advice::KeepOnFork => {
                self.each(span, |page| page.wiped = false);
                OK
            }
            Advice::DontFork => {
                self.each(span, |page| page.absent_in_child = true);
                OK
            }
            Advice::DoFork if huge && !self.before(7, 0) => ("EINVAL", DOFORK_SPECIAL),
            Advice::DoFork => {
                self.each(span, |page| page.absent_in_child = false);
                OK
            }
            Advice::PopulateRead | Advice::PopulateWrite if self.before(5, 14) => {
                ("EINVAL", "madvise(2), MADV_POPULATE_READ (5.14)")
            }
            Advice::HwPoison | Advice::SoftOffline => self.offline(span, advice),
            Advice::GuardInstall | Advice::GuardRemove => self.guard(span, advice),
            _ => OK,
        }
    }

    fn offline(&mut self, span: Span, advice: Advice) -> Returned {
        if advice == Advice::HwPoison {
            self.each(span, Page::drop_shown);
        }
        ("0", "madvise(2), MADV_HWPOISON, MADV_SOFT_OFFLINE (CONFIG_MEMORY_FAILURE)")
    }

    fn guard(&mut self, span: Span, advice: Advice) -> Returned {
        const GUARD: &str = "madvise(2), MADV_GUARD_INSTALL (6.13; of files 6.15, not of hugetlb)";
        let since = if self.backing == Backing::Anon { (6, 13) } else { (6, 15) };
        if self.backing.is_huge() || self.before(since.0, since.1) {
            return ("EINVAL", GUARD);
        }
        let install = advice == Advice::GuardInstall;
        self.each(span, |page| {
            if install {
                page.drop_shown();
            }
            page.guard = install;
        });
        ("0", GUARD)
    }
}
