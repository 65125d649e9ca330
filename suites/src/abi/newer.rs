//! What userfaultfd-sys (headers of Linux 6.1) does not have yet.
//!
//! Numbers are from include/uapi/linux/userfaultfd.h of the kernel named at each; a test compares
//! them with linux-raw-sys, and what both crates have with userfaultfd-sys.

#![allow(non_camel_case_types, reason = "structs are named as in the uapi header")]

use userfaultfd_sys as sys;

/// `USERFAULTFD_IOC_NEW`, `_IO(0xAA, 0)`: a new userfaultfd from `/dev/userfaultfd` (6.1).
pub const USERFAULTFD_IOC_NEW: u64 = super::ioc(0, 0x00, 0);

/// `UFFDIO_MOVE` (6.8).
pub const UFFDIO_MOVE: u64 = super::ioc(3, 0x05, 40);
/// `UFFDIO_POISON` (6.6).
pub const UFFDIO_POISON: u64 = super::ioc(3, 0x08, 32);
/// `UFFDIO_RWPROTECT` (7.3).
pub const UFFDIO_RWPROTECT: u64 = super::ioc(3, 0x09, 24);
/// `UFFDIO_SET_MODE` (7.3).
pub const UFFDIO_SET_MODE: u64 = super::ioc(1, 0x0A, 16);

/// `REGISTER` mode: faults on any access to pages protected by RWPROTECT (7.3).
pub const REGISTER_MODE_RWP: u64 = 1 << 3;
/// `MOVE` mode: pages that the source lacks are skipped.
pub const MOVE_MODE_ALLOW_SRC_HOLES: u64 = 1 << 1;
/// `RWPROTECT` mode: protect; without it, remove the protection and wake.
pub const RWPROTECT_MODE_RWP: u64 = 1;
/// `RWPROTECT` mode: wake nobody.
pub const RWPROTECT_MODE_DONTWAKE: u64 = 1 << 1;

/// Feature bits, each with the version that brought it.
pub mod features {
    /// Write protection also of what is not populated (6.4).
    pub const WP_UNPOPULATED: u64 = 1 << 13;
    /// `UFFDIO_POISON` (6.6).
    pub const POISON: u64 = 1 << 14;
    /// The kernel resolves write-protect faults itself (6.7).
    pub const WP_ASYNC: u64 = 1 << 15;
    /// `UFFDIO_MOVE` (6.8).
    pub const MOVE: u64 = 1 << 16;
    /// `UFFDIO_RWPROTECT` (7.3).
    pub const RWP: u64 = 1 << 17;
    /// The kernel resolves read-write-protect faults itself (7.3).
    pub const RWP_ASYNC: u64 = 1 << 18;
}

/// `struct uffdio_move`; `moved` is its field `move`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct uffdio_move {
    pub(super) dst: u64,
    pub(super) src: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    pub(super) moved: i64,
}

/// `struct uffdio_poison`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct uffdio_poison {
    pub(super) range: sys::uffdio_range,
    pub(super) mode: u64,
    pub(super) updated: i64,
}

/// `struct uffdio_rwprotect`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct uffdio_rwprotect {
    pub(super) range: sys::uffdio_range,
    pub(super) mode: u64,
}

/// `struct uffdio_set_mode`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct uffdio_set_mode {
    pub(super) enable: u64,
    pub(super) disable: u64,
}

const _: () = {
    assert!(size_of::<uffdio_move>() == 40);
    assert!(size_of::<uffdio_poison>() == 32);
    assert!(size_of::<uffdio_rwprotect>() == 24);
    assert!(size_of::<uffdio_set_mode>() == 16);
};

/// The names of the feature bits that `UFFDIO_API` offers, without the `UFFD_FEATURE_` prefix.
pub const FEATURES: &[(&str, u64)] = &[
    ("PAGEFAULT_FLAG_WP", sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP),
    ("EVENT_FORK", sys::UFFD_FEATURE_EVENT_FORK),
    ("EVENT_REMAP", sys::UFFD_FEATURE_EVENT_REMAP),
    ("EVENT_REMOVE", sys::UFFD_FEATURE_EVENT_REMOVE),
    ("MISSING_HUGETLBFS", sys::UFFD_FEATURE_MISSING_HUGETLBFS),
    ("MISSING_SHMEM", sys::UFFD_FEATURE_MISSING_SHMEM),
    ("EVENT_UNMAP", sys::UFFD_FEATURE_EVENT_UNMAP),
    ("SIGBUS", sys::UFFD_FEATURE_SIGBUS),
    ("THREAD_ID", sys::UFFD_FEATURE_THREAD_ID),
    ("MINOR_HUGETLBFS", sys::UFFD_FEATURE_MINOR_HUGETLBFS),
    ("MINOR_SHMEM", sys::UFFD_FEATURE_MINOR_SHMEM),
    ("EXACT_ADDRESS", sys::UFFD_FEATURE_EXACT_ADDRESS),
    ("WP_HUGETLBFS_SHMEM", sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
    ("WP_UNPOPULATED", features::WP_UNPOPULATED),
    ("POISON", features::POISON),
    ("WP_ASYNC", features::WP_ASYNC),
    ("MOVE", features::MOVE),
    ("RWP", features::RWP),
    ("RWP_ASYNC", features::RWP_ASYNC),
];

/// Names of the bits in `features`; a bit without a known name comes out as `BIT_n`.
pub fn feature_names(features: u64) -> Vec<String> {
    (0..u64::BITS)
        .filter(|bit| features & (1 << bit) != 0)
        .map(|bit| {
            let known = FEATURES.iter().find(|(_, mask)| *mask == 1 << bit);
            known.map_or_else(|| format!("BIT_{bit}"), |(name, _)| (*name).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_raw_sys::general as raw;
    use linux_raw_sys::ioctl;

    #[test]
    fn feature_bits_agree_with_linux_raw_sys() {
        let theirs = [
            ("PAGEFAULT_FLAG_WP", raw::UFFD_FEATURE_PAGEFAULT_FLAG_WP),
            ("EVENT_FORK", raw::UFFD_FEATURE_EVENT_FORK),
            ("EVENT_REMAP", raw::UFFD_FEATURE_EVENT_REMAP),
            ("EVENT_REMOVE", raw::UFFD_FEATURE_EVENT_REMOVE),
            ("MISSING_HUGETLBFS", raw::UFFD_FEATURE_MISSING_HUGETLBFS),
            ("MISSING_SHMEM", raw::UFFD_FEATURE_MISSING_SHMEM),
            ("EVENT_UNMAP", raw::UFFD_FEATURE_EVENT_UNMAP),
            ("SIGBUS", raw::UFFD_FEATURE_SIGBUS),
            ("THREAD_ID", raw::UFFD_FEATURE_THREAD_ID),
            ("MINOR_HUGETLBFS", raw::UFFD_FEATURE_MINOR_HUGETLBFS),
            ("MINOR_SHMEM", raw::UFFD_FEATURE_MINOR_SHMEM),
            ("EXACT_ADDRESS", raw::UFFD_FEATURE_EXACT_ADDRESS),
            ("WP_HUGETLBFS_SHMEM", raw::UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
            ("WP_UNPOPULATED", raw::UFFD_FEATURE_WP_UNPOPULATED),
            ("POISON", raw::UFFD_FEATURE_POISON),
            ("WP_ASYNC", raw::UFFD_FEATURE_WP_ASYNC),
            ("MOVE", raw::UFFD_FEATURE_MOVE),
        ];
        let theirs: Vec<_> = theirs.iter().map(|(name, mask)| (*name, u64::from(*mask))).collect();
        // linux-raw-sys ends with 6.8; what is newer was read in the header of 7.3.
        assert_eq!(&FEATURES[..theirs.len()], theirs);
    }

    #[test]
    fn numbers_agree_with_linux_raw_sys() {
        assert_eq!(USERFAULTFD_IOC_NEW, 0xAA00);
        assert_eq!(sys::UFFDIO_API, ioctl::UFFDIO_API);
        assert_eq!(sys::UFFDIO_REGISTER, ioctl::UFFDIO_REGISTER);
        assert_eq!(sys::UFFDIO_UNREGISTER, ioctl::UFFDIO_UNREGISTER);
        assert_eq!(sys::UFFDIO_WAKE, ioctl::UFFDIO_WAKE);
        assert_eq!(sys::UFFDIO_COPY, ioctl::UFFDIO_COPY);
        assert_eq!(sys::UFFDIO_ZEROPAGE, ioctl::UFFDIO_ZEROPAGE);
        assert_eq!(sys::UFFDIO_WRITEPROTECT, ioctl::UFFDIO_WRITEPROTECT);
        assert_eq!(sys::UFFDIO_CONTINUE, ioctl::UFFDIO_CONTINUE);
        // As a C program prints them with the header of 7.3.
        assert_eq!(UFFDIO_MOVE, 0xc028_aa05);
        assert_eq!(UFFDIO_POISON, 0xc020_aa08);
        assert_eq!(UFFDIO_RWPROTECT, 0xc018_aa09);
        assert_eq!(UFFDIO_SET_MODE, 0x4010_aa0a);
    }

    #[test]
    fn unknown_bits_are_kept() {
        assert_eq!(feature_names(1 << 1 | 1 << 40), ["EVENT_FORK", "BIT_40"]);
    }
}
