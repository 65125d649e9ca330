//! In which kernels a change of the kernel's is: version edges that several suites ask for, or that
//! are more than one number, because stable series have taken the change at some point release.
//!
//! What is known of an edge comes from the commit, the lists of the stable releases and from what kernels
//! showed; between two releases of a series that differ it is open. An edge that is one number and one
//! suite's stands where it is asked for.

use uffd_results::KernelVersion;

/// A change of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    /// The first series that has it from its first release on.
    mainline: (u16, u16),
    /// Earlier series that have taken it.
    stable: &'static [Stable],
    /// The commit, and what it changed.
    pub(crate) source: &'static str,
}

/// An earlier series that has taken a change.
#[derive(Clone, Copy, Debug)]
struct Stable {
    series: (u16, u16),
    /// The last release that is known not to have it.
    without: u16,
    /// The first release that is known to have it.
    with: u16,
}

/// A series that has taken a change with a release that is known.
const fn taken(major: u16, minor: u16, with: u16) -> Stable {
    between(major, minor, with - 1, with)
}

/// A series that has taken a change between two releases.
const fn between(major: u16, minor: u16, without: u16, with: u16) -> Stable {
    Stable { series: (major, minor), without, with }
}

impl Edge {
    /// Whether a kernel has the change; none where it is open.
    pub(crate) fn is_in(&self, kernel: KernelVersion) -> Option<bool> {
        let series = (kernel.major, kernel.minor);
        match self.stable.iter().find(|stable| stable.series == series) {
            _ if series >= self.mainline => Some(true),
            None => Some(false),
            Some(stable) if kernel.patch >= stable.with => Some(true),
            Some(stable) if kernel.patch <= stable.without => Some(false),
            Some(_) => None,
        }
    }

    /// Whether a kernel is known to have the change.
    pub(crate) fn is_known_in(&self, kernel: KernelVersion) -> bool {
        self.is_in(kernel) == Some(true)
    }

    /// The value of a fact that the change has changed: both where it is open.
    pub(crate) fn value(&self, kernel: KernelVersion, before: &str, since: &str) -> String {
        match self.is_in(kernel) {
            Some(true) => since.to_owned(),
            Some(false) => before.to_owned(),
            None => format!("{before}|{since}"),
        }
    }
}

/// COPY and its like write their result field when they fail with EAGAIN.
pub(crate) const EAGAIN_FIELD: Edge = Edge {
    mainline: (6, 15),
    stable: &[taken(6, 12, 29)],
    source: "commit 95567729173e (6.15, 6.12.29; not in 5.10 and 6.1): the field is written on EAGAIN",
};

/// UNREGISTER takes write protection off the pages.
pub(crate) const UNREGISTER_LIFTS: Edge = Edge {
    mainline: (6, 0),
    stable: &[],
    source: "commit f369b07c8614 (6.0): UNREGISTER takes the protection off the pages",
};

/// UNREGISTER refuses what another userfaultfd has registered.
pub(crate) const UNREGISTER_OWN: Edge = Edge {
    mainline: (6, 17),
    stable: &[],
    source: "userfaultfd_unregister(), since 'userfaultfd: prevent unregistering VMAs through a different \
             userfaultfd' (6.17): EINVAL for a mapping of another context; before, it was unregistered",
};

/// mremap without EVENT_REMAP leaves the mapping registered that the moved one becomes a part of.
pub(crate) const MREMAP_SPARES_NEIGHBOUR: Edge = Edge {
    mainline: (7, 4),
    // 7.3-rc7, which counts as 7.3.0, does not have it.
    stable: &[taken(6, 12, 118), between(7, 3, 0, 4)],
    source: "mremap_userfaultfd_prep() takes the context of the mapping that copy_vma() returns, which may be the \
             neighbour itself, grown by the moved pages. In 6.12.118 copy_vma() and in 7.3.4 \
             vma_merge_copied_range() (mm/vma.c) merge nothing that vma_has_uffd_without_event_remap() names; \
             up to 6.12.117, 7.2.13 and 7.3-rc7 they ask no such thing. The commit is not found",
};

/// WRITEPROTECT goes over several mappings.
pub(crate) const WRITEPROTECT_SEVERAL: Edge = Edge {
    mainline: (6, 4),
    stable: &[],
    source: "commit a1b92a3f1498 (6.4): WRITEPROTECT goes over all mappings of the range, in front of the \
             first unregistered one; before, one mapping had to hold the range",
};

/// The last close takes write protection off the pages.
pub(crate) const CLOSE_LIFTS: Edge = Edge {
    mainline: (6, 9),
    // A VM of 6.1.190 does not have it.
    stable: &[between(6, 1, 190, 192), taken(6, 6, 31), taken(6, 8, 10)],
    source: "commit c88033efe9a3 (6.9, 6.8.10, 6.6.31, of 6.1 in 6.1.191 or 6.1.192): the last close \
             takes the protection away. Before, hugetlb_wp() returns at once for a page whose protection \
             bit is set, and hugetlb_fault() asks no context any more",
};

/// Memory that loses its registration as it moves loses its write protection too.
pub(crate) const MOVE_LIFTS: Edge = Edge {
    mainline: (6, 13),
    // A VM of 6.1.190 does not have it; of 6.6 no release is known.
    stable: &[between(6, 1, 190, 192), between(6, 6, 0, u16::MAX), taken(6, 12, 11)],
    source: "mremap_userfaultfd_prep(): without EVENT_REMAP moved memory is not registered; commit \
             0cef0bb836e3 (6.13, 6.12.11, of 6.1 in 6.1.191 or 6.1.192) takes the protection off. Before, it \
             stays, and hugetlb_wp() lets a writer of such a page fault again and again",
};

/// Addresses below `vm.mmap_min_addr` are like any other.
pub(crate) const LOW_RANGES: Edge = Edge {
    mainline: (7, 0),
    stable: &[
        taken(5, 10, 258),
        taken(6, 1, 175),
        taken(6, 6, 140),
        taken(6, 12, 86),
        between(6, 18, 15, 44),
    ],
    source: "before commit 161ce69c2c89 (7.0, 6.12.86, 6.1.175, 5.10.258) validate_range() refuses addresses \
             below vm.mmap_min_addr, to every ioctl with a range",
};

/// COPY's source is checked as a range of user memory.
pub(crate) const SOURCE_CHECKED: Edge = Edge {
    mainline: (6, 6),
    stable: &[],
    source: "'mm: userfaultfd: check for start + len overflow in validate_range' (6.6): userfaultfd_copy() \
             and userfaultfd_move() check the source's range as the destination's",
};

/// Special mappings, such as the vDSO, can't be registered; huge pages can.
pub(crate) const SPECIAL_REFUSED: Edge = Edge {
    mainline: (7, 2),
    stable: &[taken(6, 12, 105), between(6, 18, 15, 44), between(7, 1, 3, 13)],
    source: "vma_can_userfault(): asynchronous write protection (6.7) takes memory of any kind; since \
             'userfaultfd: prevent registration of special VMAs' (7.2, 6.12.105) no mode takes VM_SPECIAL, \
             but of hugetlb",
};

/// UFFDIO_API looks for unknown features after it has looked for permission.
pub(crate) const UNKNOWN_LAST: Edge = Edge {
    mainline: (6, 10),
    stable: &[taken(6, 1, 100), taken(6, 6, 41), taken(6, 9, 10)],
    source: "userfaultfd_api(): permission before unknown features, since commit 1723f04caacb (6.10, 6.9.10, \
             6.1.100) looks for those last",
};

/// PAGEMAP_SCAN takes what was never populated nor protected for written.
pub(crate) const EMPTY_IS_WRITTEN: Edge = Edge {
    mainline: (7, 2),
    stable: &[taken(6, 12, 103), between(6, 18, 15, 44), between(7, 1, 3, 13)],
    source: "'fs/proc/task_mmu: fix PAGEMAP_SCAN written state for unpopulated ptes' (7.2, 6.12.103)",
};

/// MADV_REMOVE takes shared memory that is read-only now; before, EACCES.
pub(crate) const REMOVE_READ_ONLY: Edge = Edge {
    mainline: (6, 7),
    stable: &[taken(5, 10, 241), taken(6, 1, 149)],
    source: "commit e8e17ee90eaf (6.7, 6.1.149, 5.10.241): MADV_REMOVE of shared memory that is read-only now",
};

/// COPY of a hugetlb page that the pool does not have says that the page is there.
pub(crate) const HUGETLB_EMPTY: Edge = Edge {
    mainline: (6, 18),
    stable: &[],
    source: "hugetlb_mfill_atomic_pte(): for want of a page the first attempt looks with hugetlb_walk() for an entry, \
             which mfill_atomic_hugetlb() has made just before, and says EEXIST from 6.18 on; before (6.17.13), and \
             still in the attempt after a fault on the source, ENOMEM",
};

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("5.10.262", "spins")]
    #[case("6.1.187", "spins")]
    #[case("6.1.190", "spins")]
    #[case("6.1.191", "spins|ran")]
    #[case("6.1.192", "ran")]
    #[case("6.2.0", "spins")]
    #[case("6.8.10", "ran")]
    #[case("6.9-rc1", "ran")]
    #[case("7.3.4", "ran")]
    fn a_change_is_in_later_series_and_in_stable_ones_from_a_release_on(
        #[case] kernel: &str,
        #[case] value: &str,
    ) {
        let kernel = KernelVersion::parse(kernel).expect("a version");
        assert_eq!(CLOSE_LIFTS.value(kernel, "spins", "ran"), value);
    }
}
