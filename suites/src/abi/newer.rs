//! What userfaultfd-sys (headers of Linux 6.1) does not have yet.
//!
//! Numbers are from include/uapi/linux/userfaultfd.h of the kernel named at each; a test compares
//! them with linux-raw-sys, and what both crates have with userfaultfd-sys.

use userfaultfd_sys as sys;

/// `USERFAULTFD_IOC_NEW`, `_IO(0xAA, 0)`: a new userfaultfd from `/dev/userfaultfd` (6.1).
pub const USERFAULTFD_IOC_NEW: u64 = super::ioc(0, 0x00, 0);

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
    ("WP_UNPOPULATED", 1 << 13), // 6.4
    ("POISON", 1 << 14),         // 6.6
    ("WP_ASYNC", 1 << 15),       // 6.7
    ("MOVE", 1 << 16),           // 6.8
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
        assert_eq!(FEATURES, theirs);
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
    }

    #[test]
    fn unknown_bits_are_kept() {
        assert_eq!(feature_names(1 << 1 | 1 << 40), ["EVENT_FORK", "BIT_40"]);
    }
}
