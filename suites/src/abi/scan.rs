//! `PAGEMAP_SCAN` (6.7): which pages were written to, and protecting them again in the same call.

use super::{Range, Rc};
use std::fs::File;
use std::os::fd::AsRawFd;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = (3 << 30) | ((size_of::<pm_scan_arg>() as u64) << 16) | (0x66 << 8) | 16;

/// Protect the pages that match.
pub const WP_MATCHING: u64 = 1;
/// Fail with EPERM where a mapping is not registered for asynchronous write protection.
pub const CHECK_WPASYNC: u64 = 1 << 1;

/// The mapping is registered for asynchronous write protection.
pub const IS_WPALLOWED: u64 = 1;
/// The page was written to since it was protected.
pub const IS_WRITTEN: u64 = 1 << 1;
/// The page is of a file or shared memory.
pub const IS_FILE: u64 = 1 << 2;
/// The page is present.
pub const IS_PRESENT: u64 = 1 << 3;
/// The page is the zero page.
pub const IS_PFNZERO: u64 = 1 << 5;
/// The page was accessed since it was protected against all access (7.3).
pub const IS_ACCESSED: u64 = 1 << 9;

/// Regions that one call can return here.
pub const REGIONS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types, reason = "named as in linux/fs.h")]
struct page_region {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types, reason = "named as in linux/fs.h")]
struct pm_scan_arg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = {
    assert!(size_of::<page_region>() == 24);
    assert!(size_of::<pm_scan_arg>() == 96);
    assert!(PAGEMAP_SCAN == 0xc060_6610);
};

/// What is asked of `PAGEMAP_SCAN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// [`WP_MATCHING`], [`CHECK_WPASYNC`], or what is not known.
    pub flags: u64,
    /// Categories of which a page must have all.
    pub mask: u64,
    /// Categories of which a page must have any.
    pub any: u64,
    /// Categories that are asked for by their absence.
    pub inverted: u64,
    /// Categories that are reported.
    pub reported: u64,
    /// At most as many pages; 0 for all.
    pub pages: u64,
    /// At most as many regions.
    pub regions: usize,
}

/// What `PAGEMAP_SCAN` returned and wrote.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The return value.
    pub rc: Rc,
    /// The regions: range and categories.
    pub regions: Vec<(Range, u64)>,
    /// Where the walk ended.
    pub walk_end: u64,
}

impl Scan {
    /// Asks through `file`, which is a process's pagemap.
    pub fn ask(&self, file: &File, range: Range) -> Scanned {
        let mut found = [page_region::default(); REGIONS];
        let wanted = self.regions.min(REGIONS);
        let mut arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags: self.flags,
            start: range.start as u64,
            end: range.end() as u64,
            vec: if wanted == 0 { 0 } else { found.as_mut_ptr() as u64 },
            vec_len: wanted as u64,
            max_pages: self.pages,
            category_inverted: self.inverted,
            category_mask: self.mask,
            category_anyof_mask: self.any,
            return_mask: self.reported,
            ..pm_scan_arg::default()
        };
        // SAFETY: `arg` is as long as its size says, and `vec` has room for `vec_len` regions.
        let ret = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let rc = Rc::of(ret.into());
        let count = usize::try_from(ret).unwrap_or(0).min(REGIONS);
        let regions = found[..count].iter().map(|region| {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let start = at(region.start);
            (Range { start, len: at(region.end).saturating_sub(start) }, region.categories)
        });
        Scanned { rc, regions: regions.collect(), walk_end: arg.walk_end }
    }
}
