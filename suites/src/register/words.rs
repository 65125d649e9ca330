//! Words for modes and offered ioctls, and the kernel versions that brought each mode.

use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, newer};
use crate::point::Backing;
use uffd_results::KernelVersion;

/// The modes that REGISTER knows, with their words.
const MODES: [(u64, &str); 4] = [
    (REGISTER_MODE_MISSING, "missing"),
    (REGISTER_MODE_WP, "wp"),
    (REGISTER_MODE_MINOR, "minor"),
    (newer::REGISTER_MODE_RWP, "rwp"),
];

/// `missing+wp`, or `none`.
pub(super) fn mode(bits: u64) -> String {
    join(&MODES, bits)
}

fn join(names: &[(u64, &str)], bits: u64) -> String {
    let words: Vec<&str> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| *word).collect();
    if words.is_empty() { "none".into() } else { words.join("+") }
}

/// The range ioctls that REGISTER offers: `wake+copy+zeropage`.
pub(super) fn ioctls(mask: u64) -> String {
    const NAMES: [(u64, &str); 8] = [
        (1 << 2, "wake"),
        (1 << 3, "copy"),
        (1 << 4, "zeropage"),
        (1 << 5, "move"),
        (1 << 6, "writeprotect"),
        (1 << 7, "continue"),
        (1 << 8, "poison"),
        (1 << 9, "rwprotect"),
    ];
    let known = NAMES.iter().fold(0, |all, (bit, _)| all | bit);
    let rest = mask & !known;
    let more = if rest == 0 { String::new() } else { format!("+{rest:#x}") };
    format!("{}{more}", join(&NAMES, mask))
}

/// The letter that smaps' flags of such a registration come out as.
pub(super) fn letter(bits: u64) -> char {
    match bits {
        0 => '.',
        REGISTER_MODE_MISSING => 'm',
        REGISTER_MODE_WP => 'w',
        REGISTER_MODE_MINOR => 'i',
        3 => 'W',
        5 => 'I',
        _ => 'X',
    }
}

/// Whether a kernel takes the modes for memory of a kind: anonymous, hugetlb or other shared memory.
pub(super) fn takes(bits: u64, anon: bool, huge: bool, kernel: KernelVersion) -> bool {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let minor = if huge { since(5, 13) } else { since(5, 14) };
    let wp = if anon { since(5, 7) } else { since(5, 19) };
    bits != 0
        && (bits & REGISTER_MODE_WP == 0 || wp)
        && (bits & REGISTER_MODE_MINOR == 0 || minor && !anon)
        && (bits & newer::REGISTER_MODE_RWP == 0)
}

/// The same of a backing of the grid.
pub(super) fn takes_backing(bits: u64, backing: Backing, kernel: KernelVersion) -> bool {
    takes(bits, backing.is_anon(), backing.is_huge(), kernel)
}

/// The range ioctls that should be offered.
pub(super) fn offered(bits: u64, huge: bool, kernel: KernelVersion) -> String {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let mut mask = 1 << 2 | 1 << 3;
    if !huge {
        mask |= 1 << 4;
        mask |= u64::from(since(6, 8)) << 5;
    }
    mask |= u64::from(bits & REGISTER_MODE_WP != 0) << 6;
    mask |= u64::from(bits & REGISTER_MODE_MINOR != 0) << 7;
    mask |= u64::from(since(6, 6)) << 8;
    ioctls(mask)
}

/// Where modes are from.
pub(super) const MODE: &str = "ioctl_userfaultfd(2), UFFDIO_REGISTER: MODE_WP for anonymous memory \
    since 5.7, for shared memory and hugetlb since 5.19; MODE_MINOR for hugetlb since 5.13, for shared \
    memory since 5.14; EINVAL for others";
/// Where the offered ioctls are from.
pub(super) const OFFERED: &str = "UFFD_API_RANGE_IOCTLS and UFFD_API_RANGE_IOCTLS_BASIC (hugetlb) in \
    include/uapi/linux/userfaultfd.h; WRITEPROTECT and CONTINUE only with their modes";
/// What a second REGISTER does.
pub(super) const REPLACES: &str = "userfaultfd_register(): a mapping of the same context that has all \
    asked-for modes is skipped, another one gets the new modes in place of the old";
/// Splitting and merging.
pub(super) const SPLITS: &str = "userfaultfd_register() splits mappings at the range's ends and merges \
    neighbours that are alike (vma_merge() in mm/vma.c)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_bits() {
        assert_eq!(mode(0), "none");
        assert_eq!(mode(5), "missing+minor");
        assert_eq!(ioctls(0x13c), "wake+copy+zeropage+move+poison");
        assert_eq!(ioctls(1 << 2 | 1 << 20), "wake+0x100000");
    }
}
