//! The kernel's pool of 2 MiB pages, which cases of hugetlb must leave as it was.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The files that tell; a kernel without hugetlb has none. They stay open: two looks a case would else cost a
/// guest eight calls more.
#[derive(Debug)]
pub(super) struct Pool {
    free: Option<File>,
    reserved: Option<File>,
}

/// Pages of the pool; all zero without hugetlb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// Those that nobody has.
    pub(super) free: u64,
    /// Those of them that are promised to somebody.
    pub(super) reserved: u64,
}

impl Pool {
    pub(super) fn open() -> Self {
        let open = |name: &str| {
            File::open(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}")).ok()
        };
        Self { free: open("free_hugepages"), reserved: open("resv_hugepages") }
    }

    /// One look.
    pub(super) fn read(&self) -> Pages {
        Pages { free: number(self.free.as_ref()), reserved: number(self.reserved.as_ref()) }
    }
}

/// The number that a file holds now; 0 if it holds none.
fn number(file: Option<&File>) -> u64 {
    let mut text = [0; 24];
    let read = file.and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
    std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// By how many pages the pool has grown: it is the machine's, as this is.
static GROWN: AtomicU64 = AtomicU64::new(0);

/// What the pool may have grown by before little else can be asked: 192 MiB of a guest's memory.
const USED_UP: u64 = 96;

/// Whether lost reservations have taken so much of this machine's memory that what follows is better asked on a fresh
/// one.
pub fn is_used_up() -> bool {
    GROWN.load(Ordering::Relaxed) >= USED_UP
}

/// Makes up for reservations that the kernel has lost, so that later cases have their pages.
pub(super) fn grow(by: u64) {
    GROWN.fetch_add(by, Ordering::Relaxed);
    let file = "/proc/sys/vm/nr_hugepages";
    let size = std::fs::read_to_string(file).ok().and_then(|n| n.trim().parse::<u64>().ok());
    if let Some(size) = size {
        let _ = std::fs::write(file, (size + by).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_number_is_read_anew_each_time() {
        let mut file = tempfile::tempfile().expect("a file");
        assert_eq!(number(None), 0);
        assert_eq!(number(Some(&file)), 0);
        // 5.10 counts below zero.
        for text in ["12\n", "18446744073709551615\n"] {
            file.write_all_at(text.as_bytes(), 0).expect("written");
            file.flush().expect("flushed");
            assert_eq!(number(Some(&file)).to_string(), text.trim());
        }
    }
}
