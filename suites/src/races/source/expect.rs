//! What a COPY that has waited for its source returns, whom it wakes and what it leaves.

use super::{EVENTS, Upset};
use crate::expect::Expected;
use crate::lab;
use crate::model::source as says;
use crate::point::Backing;
use uffd_results::KernelVersion;

impl Upset {
    /// Who says that it works.
    const fn says(self) -> &'static str {
        match self {
            Self::None => "a control: nothing happens",
            Self::Unmap | Self::UnmapBeside | Self::UnmapBefore => "munmap(2)",
            Self::OverAnon | Self::OverSame => "mmap(2), MAP_FIXED",
            Self::OverRegistered | Self::SameRegistered | Self::OtherOpen => {
                "mmap(2), MAP_FIXED; ioctl_userfaultfd(2), UFFDIO_REGISTER"
            }
            Self::Move | Self::Shrink | Self::ShrinkBehind => says::MREMAP,
            Self::DontUnmap => says::DONTUNMAP,
            Self::Unregister | Self::Reregister | Self::OtherContext | Self::OtherMode => {
                says::UNREGISTER
            }
            Self::Filled => says::COPY,
            Self::Discard => "madvise(2), MADV_DONTNEED",
            Self::ProtNone | Self::ReadOnlyBefore => "mprotect(2)",
            Self::DontForkBefore => "madvise(2), MADV_DONTFORK",
            Self::Close => "close(2)",
            Self::RemoveUnread
            | Self::RemoveRead
            | Self::TargetUnread
            | Self::TargetRead
            | Self::TwoUnread
            | Self::OneOfTwo => "userfaultfd(2), UFFD_EVENT_REMOVE",
            Self::UnmapUnread => "userfaultfd(2), UFFD_EVENT_UNMAP",
            Self::RemapUnread => "userfaultfd(2), UFFD_EVENT_REMAP",
        }
    }
}

const RETRY: &str = "mfill_atomic(): a fault on the source drops the locks; afterwards the target is \
                     looked up and checked again";
const HUGE_KIND: &str = "mfill_atomic_hugetlb(): what it looks up again must be hugetlb still";
const COUNTS: &str = "commit a759a909d42d (5.15): mmap_changing counts events; before, it was a flag \
                      that the first caller to go on cleared";
const CHANGED: &str = "mfill_retry_state_changed() compares the mapping with what it was before the locks \
                       were dropped (7.1): EAGAIN for one of another kind, registration, file or file offset";
const CUT: &str = "mfill_retry_state_changed() (7.1) compares the file offset of the mapping's first page: EAGAIN \
                   once the mapping was cut in front of the target, whatever the cut was for";

pub(super) fn expect(backing: Backing, upset: Upset, kernel: KernelVersion) -> Vec<Expected> {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let huge = backing.is_huge();
    let refusal = refusal(backing, upset, kernel);
    // The target's mapping begins at another page.
    let cut = matches!(
        upset,
        Upset::ProtNone | Upset::UnmapBefore | Upset::ReadOnlyBefore | Upset::DontForkBefore
    );
    let changed = match upset {
        // A hugetlb page goes by a check of its own.
        _ if huge => false,
        // Another kind of memory.
        Upset::OverRegistered => since(7, 1) && backing != Backing::Anon,
        _ if cut => since(7, 1) && backing != Backing::Anon,
        // Another file than before.
        Upset::SameRegistered => since(7, 1) && backing == Backing::SharedAnon,
        // Another descriptor, or another registration.
        Upset::OtherOpen | Upset::OtherMode => since(7, 1),
        _ => false,
    };
    let unread = upset.unread();
    let flag = upset == Upset::OneOfTwo && !since(5, 15);
    let (copy, field, why) = match upset {
        Upset::Move if refusal.is_some() => ("0", "page", RETRY),
        Upset::Unmap
        | Upset::OverAnon
        | Upset::OverSame
        | Upset::Move
        | Upset::Shrink
        | Upset::Unregister => ("ENOENT", "-2", RETRY),
        Upset::OverRegistered if huge => ("ENOENT", "-2", HUGE_KIND),
        Upset::Filled => ("EEXIST", "-17", RETRY),
        _ if flag => ("0", "page", COUNTS),
        _ if !unread.is_empty() => ("EAGAIN", "-11", RETRY),
        _ if changed && cut => ("EAGAIN", "-11", CUT),
        _ if changed => ("EAGAIN", "-11", CHANGED),
        _ => ("0", "page", RETRY),
    };
    let page = lab::length(backing);
    let (meanwhile, allowed) = refusal.unwrap_or(("0", upset.says()));
    let mut facts = vec![
        Expected::new("meanwhile", meanwhile, allowed),
        Expected::new("source", "0", says::COPY),
        Expected::new("copy", copy, why),
        Expected::new("field", if field == "page" { page } else { field.to_owned() }, why),
    ];
    if upset == Upset::Close {
        facts.push(Expected::new("pages", "kkckkk", RETRY));
        return facts;
    }
    if upset.leaves_waiters() {
        let placed = copy == "0";
        let waiter = match upset {
            Upset::ProtNone if placed => "SEGV_ACCERR",
            _ if placed => "ran:copied",
            _ => "asleep",
        };
        facts.push(Expected::new("waiter", waiter, why));
        for (event, names) in unread.into_iter().zip(EVENTS) {
            facts.push(Expected::new(names.0, event, "userfaultfd(2)"));
            facts.push(Expected::new(names.1, "0", "userfaultfd(2)"));
        }
        if waiter == "asleep" {
            let woken = match upset {
                Upset::Unmap | Upset::Move | Upset::Shrink => "SEGV_MAPERR",
                Upset::OverAnon | Upset::OverSame => "ran:zero",
                Upset::ProtNone => "SEGV_ACCERR",
                _ => "again",
            };
            facts.push(Expected::new("woken", woken, says::WAKE));
        }
    }
    let upset = if refusal.is_some() { Upset::None } else { upset };
    facts.extend(left(backing, upset, copy == "0", why));
    facts
}

/// Registration and content of each page in the end: `t` is the target, into which the COPY has placed its page
/// or has not, `d` a page that was discarded.
fn left(backing: Backing, upset: Upset, placed: bool, why: &'static str) -> [Expected; 4] {
    const NOTHING: &str = "--------";
    let (reg, pages) = match upset {
        Upset::Unmap => ("mm-mmm--", "kktkkk--"),
        Upset::UnmapBeside => ("mmmmm---", "kktkk---"),
        Upset::OverAnon | Upset::OverSame => ("mm.mmm--", "kktkkk--"),
        Upset::Move => (NOTHING, NOTHING),
        Upset::DontUnmap => ("mmmmmm--", "--t-----"),
        Upset::Unregister => ("......--", "kktkkk--"),
        Upset::OtherMode => ("WWWWWW--", "kktkkk--"),
        Upset::UnmapUnread | Upset::RemapUnread | Upset::UnmapBefore => ("-mmmmm--", "-ktkkk--"),
        Upset::RemoveUnread | Upset::RemoveRead => ("mmmmmm--", "dktkkk--"),
        Upset::TwoUnread | Upset::OneOfTwo => ("mmmmmm--", "dktkdk--"),
        Upset::Shrink => ("mm------", "kk------"),
        Upset::ShrinkBehind => ("mmm-----", "kkt-----"),
        _ => ("mmmmmm--", "kktkkk--"),
    };
    let target = match upset {
        // The other COPY has placed it.
        Upset::Filled => 'c',
        Upset::ProtNone if placed => '!',
        _ if placed => 'c',
        // The waiter, once woken, has loaded from new memory.
        Upset::OverAnon | Upset::OverSame => '0',
        _ => '-',
    };
    // do_fault_around() in mm/memory.c: where the woken waiter faults anew, its load maps what the page cache
    // has beside its page.
    let discarded = match backing {
        Backing::Shmem | Backing::SharedAnon if !placed => 'k',
        Backing::Private if !placed => '0',
        _ => '-',
    };
    let letter = |letter| match letter {
        't' => target,
        'd' => discarded,
        other => other,
    };
    let pages: String = pages.chars().map(letter).collect();
    let (new_reg, new_pages, moved) = match upset {
        Upset::Move => ("......--", "kk-kkk--", says::REMAP),
        Upset::DontUnmap => ("......--", "kk-kkk--", says::DONTUNMAP),
        // Its event keeps it registered.
        Upset::RemapUnread => ("m-------", "k-------", says::REMAP),
        _ => (NOTHING, NOTHING, upset.says()),
    };
    [
        Expected::new("reg", reg, upset.says()),
        Expected::new("pages", pages, why),
        Expected::new("new-reg", new_reg, moved),
        Expected::new("new-pages", new_pages, moved),
    ]
}

/// What the change of the target is refused with, where it is.
fn refusal(
    backing: Backing,
    upset: Upset,
    kernel: KernelVersion,
) -> Option<(&'static str, &'static str)> {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let huge = backing.is_huge();
    match upset {
        Upset::DontUnmap if huge || !(backing == Backing::Anon || since(5, 13)) => {
            Some(("EINVAL", says::DONTUNMAP))
        }
        Upset::Move if huge && !since(5, 16) => Some(("EINVAL", says::MREMAP_HUGE)),
        Upset::Discard if huge && !since(5, 18) => Some(("EINVAL", says::DONTNEED_HUGE)),
        _ => None,
    }
}
