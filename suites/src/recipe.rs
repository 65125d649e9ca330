//! A point of the grid in words, so that a reader can repeat it with a program of their own.

use crate::point::{
    Change, Discard, GROWN, Mode, Msg, Op, Over, PAGES, Part, Point, Remap, SHRUNK, Waiter,
};

/// What happens at a point, a sentence a step.
pub(crate) fn of(point: Point) -> Vec<String> {
    let page = point.change.page();
    let mut steps = vec![format!(
        "map a block of {PAGES} pages ({}); write to page {}",
        backing(point),
        page + 1
    )];
    let register = format!("UFFDIO_API without features, UFFDIO_REGISTER of pages 0..{PAGES} for");
    match point.mode {
        Mode::Missing => steps.push(format!("{register} missing pages")),
        Mode::Wp => steps.extend([
            format!("write to page {page}"),
            format!("{register} write protection"),
            format!("UFFDIO_WRITEPROTECT of pages 0..{PAGES} with MODE_WP"),
        ]),
        Mode::Minor => steps.extend([
            format!("write to page {page} through a second mapping of the file, and unmap that"),
            format!("{register} minor faults"),
        ]),
    }
    if let Some(who) = waiter(point.waiter) {
        steps.push(format!("{who} page {page} and parks in the fault"));
        steps.push(match point.msg {
            Msg::Read => "the message of the fault is read".to_owned(),
            Msg::Unread => "the message of the fault stays unread".to_owned(),
        });
    }
    if let Some(what) = change(point.change) {
        steps.push(what);
    }
    match point.op {
        Op::Look => {}
        Op::Copy => steps.push(format!("UFFDIO_COPY of one page to page {page}")),
        Op::Zeropage => steps.push(format!("UFFDIO_ZEROPAGE of page {page}")),
        Op::Continue => steps.push(format!("UFFDIO_CONTINUE of page {page}")),
        Op::Unprotect => steps.push(format!("UFFDIO_WRITEPROTECT of page {page} without MODE_WP")),
        Op::Poison => steps.push(format!("UFFDIO_POISON of page {page}")),
        Op::Move => steps.push(format!(
            "UFFDIO_MOVE of a page of other private anonymous memory to page {page}"
        )),
        Op::Unregister => steps.push(format!("UFFDIO_UNREGISTER of pages 0..{PAGES}")),
        Op::Wake => steps.push(format!("UFFDIO_WAKE of page {page}")),
    }
    if point.waiter != Waiter::None {
        steps.push("look at fdinfo and /proc: was the waiter woken?".to_owned());
    }
    steps.push("read registration (smaps) and content (pagemap) of every page".to_owned());
    if point.waiter != Waiter::None {
        steps.push(format!(
            "if it still waits: UFFDIO_WAKE of page {page}; if it then waits: close the userfaultfd"
        ));
    }
    steps
}

fn backing(point: Point) -> &'static str {
    use crate::point::Backing;
    match point.backing {
        Backing::Anon => "private anonymous memory",
        Backing::Shmem => "a memfd, MAP_SHARED",
        Backing::Private => "a memfd, MAP_PRIVATE",
        Backing::SharedAnon => "MAP_SHARED|MAP_ANONYMOUS",
        Backing::HugetlbShared => "a memfd of 2 MiB hugetlb pages, MAP_SHARED",
        Backing::HugetlbPrivate => "MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, 2 MiB pages",
    }
}

/// What a waiter does, up to the page that it does it to.
pub(crate) fn waiter(kind: Waiter) -> Option<&'static str> {
    Some(match kind {
        Waiter::None => return None,
        Waiter::UserRead => "a thread loads from",
        Waiter::UserWrite => "a thread stores to",
        Waiter::SysRead => "a thread calls read(2) into",
        Waiter::SysWrite => "a thread calls write(2) from",
        Waiter::VmRead => "a thread calls process_vm_readv(2) of its own process on",
        Waiter::VmWrite => "a thread calls process_vm_writev(2) of its own process on",
        Waiter::PopulateRead => "a thread calls madvise(MADV_POPULATE_READ) on",
        Waiter::PopulateWrite => "a thread calls madvise(MADV_POPULATE_WRITE) on",
        Waiter::Mlock => "a thread calls mlock(2) on",
        Waiter::DirectRead => "a thread calls pread(2) of a file opened with O_DIRECT into",
        Waiter::DirectWrite => "a thread calls pwrite(2) of a file opened with O_DIRECT from",
        Waiter::VcpuRead => "a vCPU's guest, whose memory is the block, loads from",
        Waiter::VcpuWrite => "a vCPU's guest, whose memory is the block, stores to",
        Waiter::VcpuFetch => {
            "a vCPU's guest, whose memory is the block, fetches an instruction from"
        }
        Waiter::Futex => "a thread calls futex(2), FUTEX_WAIT, on",
        Waiter::MemRead => "a thread reads by way of /proc/self/mem from",
        Waiter::MemWrite => "a thread writes by way of /proc/self/mem to",
    })
}

fn pages(part: Part) -> String {
    format!("pages {}..{}", part.pages().start, part.pages().end)
}

fn change(change: Change) -> Option<String> {
    let moving = "mremap(MREMAP_MAYMOVE|MREMAP_FIXED)";
    Some(match change {
        Change::None => return None,
        Change::Munmap(part) => format!("munmap of {}", pages(part)),
        Change::MmapOver(part, over) => {
            let what = match over {
                Over::Anon => "private anonymous memory",
                Over::Shared => "another memfd, MAP_SHARED, that holds data",
                Over::ProtNone => "PROT_NONE anonymous memory",
                Over::File => "a regular file, MAP_PRIVATE, a mapping a page",
                Over::Same => "the same memory at the same offset again",
            };
            format!("mmap(MAP_FIXED) of {what} over {}", pages(part))
        }
        Change::Mremap(how) => match how {
            Remap::Move => format!("{moving} of the block to an empty place"),
            Remap::MovePart => format!("{moving} of {} to an empty place", pages(Part::Middle)),
            Remap::Grow => format!("mremap in place from {PAGES} to {GROWN} pages"),
            Remap::Shrink => format!("mremap in place from {PAGES} to {SHRUNK} pages"),
            Remap::MoveGrow => format!("{moving} to an empty place, from {PAGES} to {GROWN} pages"),
            Remap::MoveShrink => {
                format!("{moving} to an empty place, from {PAGES} to {SHRUNK} pages")
            }
            Remap::Onto => format!("{moving} of another, unregistered block onto this one"),
            Remap::DontUnmap => {
                format!("{moving} with MREMAP_DONTUNMAP of the block to an empty place")
            }
        },
        Change::Discard(how) => {
            let call = match how {
                Discard::DontNeed => "madvise(MADV_DONTNEED)",
                Discard::Remove => "madvise(MADV_REMOVE)",
                Discard::Punch => "fallocate(FALLOC_FL_PUNCH_HOLE)",
            };
            format!("{call} of {}", pages(Part::Middle))
        }
    })
}
