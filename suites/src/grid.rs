//! Which points of the grid are asked: all of them, and the ones that are asked by default.
//!
//! By default anonymous memory and shared memfds, which migration programs use most, meet several
//! waiters and every change; the others meet one waiter, and one change of each kind. The newer
//! ioctls, modes and waiters follow the older ones: they are asked where they could differ.

use crate::point::{Backing, Change, Mode, Msg, Op, Over, Part, Point, Remap, Waiter};
use crate::probe::{Case, Probe};

/// Waiters with the state of their message: nobody, then every kind with its message read or not.
fn waiters() -> impl Iterator<Item = (Waiter, Msg)> {
    Waiter::GRID.iter().flat_map(|waiter| {
        let all: &[Msg] = if *waiter == Waiter::None { &[Msg::Read] } else { Msg::ALL };
        all.iter().map(move |msg| (*waiter, *msg))
    })
}

/// What mmap(2) puts over the block in the grid; `same` is for the claims about RAM remapping.
const OVER: [Over; 4] = [Over::Anon, Over::Shared, Over::ProtNone, Over::File];

/// Every change of one kind, by the name that the kind has in probe names.
pub(crate) fn changes(name: &str) -> Vec<Change> {
    let mut all = vec![Change::None];
    all.extend(Part::ALL.iter().map(|part| Change::Munmap(*part)));
    for over in OVER {
        all.extend(Part::ALL.iter().map(|part| Change::MmapOver(*part, over)));
    }
    all.extend(Remap::ALL.iter().map(|how| Change::Mremap(*how)));
    all.retain(|change| change.name() == name);
    all
}

/// Whether a point can be asked: a waiter must meet what the block is registered for.
fn is_possible(point: Point) -> bool {
    let Point { backing, mode, change, waiter, msg: _, op } = point;
    let waits = match mode {
        Mode::Missing => true,
        Mode::Wp => waiter == Waiter::None || waiter.write_faults(backing),
        Mode::Minor => matches!(backing, Backing::Shmem | Backing::HugetlbShared),
    };
    // mlock(2) splits the mapping that it locks, and mremap of what are now two is another question.
    if waiter == Waiter::Mlock && matches!(change, Change::Mremap(_)) {
        return false;
    }
    // MOVE takes anonymous memory; one other kind shows the refusal.
    waits && (op != Op::Move || matches!(backing, Backing::Anon | Backing::Shmem))
}

/// Every point of an operation after changes of one kind; with each whether it is a default.
pub(crate) fn points(op: Op, mode: Mode, change: &str) -> Vec<(Point, bool)> {
    let mut points = Vec::new();
    for backing in Backing::ALL {
        for change in changes(change) {
            for (waiter, msg) in waiters() {
                let point = Point { backing: *backing, mode, change, waiter, msg, op };
                if is_possible(point) {
                    points.push((point, is_default(point)));
                }
            }
        }
    }
    points
}

/// The cases of probes that are named after a kind of change each; behind the mode's name, where
/// the operation is asked in several modes.
pub(crate) fn cases(op: Op, mode: Mode, probes: &[&'static Probe]) -> Vec<Case> {
    let of = |probe: &&'static Probe| {
        let probe: &'static Probe = probe;
        let prefix = ["wp-", "minor-"].into_iter().find_map(|p| probe.name.strip_prefix(p));
        points(op, mode, prefix.unwrap_or(probe.name))
            .into_iter()
            .map(move |(point, default)| Case::at(probe, point, default))
    };
    probes.iter().flat_map(of).collect()
}

/// One change of each kind that leaves the page elsewhere or gone.
fn is_short(change: Change) -> bool {
    matches!(
        change,
        Change::None
            | Change::Munmap(Part::Middle)
            | Change::MmapOver(Part::Middle, Over::Anon)
            | Change::Mremap(Remap::Move)
    )
}

fn is_default(point: Point) -> bool {
    let Point { backing, mode, change, waiter, msg, op } = point;
    let small = matches!(backing, Backing::Anon | Backing::Shmem);
    let placing = matches!(op, Op::Copy | Op::Unregister | Op::Wake) && mode == Mode::Missing;
    let first = matches!(
        waiter,
        Waiter::None | Waiter::UserRead | Waiter::UserWrite | Waiter::SysRead | Waiter::SysWrite
    );
    let copies = op == Op::Copy && placing && is_short(change) && msg == Msg::Read;
    let frees = placing && change == Change::Munmap(Part::Middle) && msg == Msg::Read;
    if waiter.vcpu().is_some() {
        // A VM and its vCPU cost as much as ten other cases.
        let huge = backing == Backing::HugetlbShared && change == Change::None;
        let first = waiter == Waiter::VcpuRead;
        let unchanged = change == Change::None;
        let answers = matches!(op, Op::Continue | Op::Unprotect | Op::Unregister | Op::Wake)
            && msg == Msg::Read;
        if answers && unchanged && mode != Mode::Missing {
            return match mode {
                Mode::Wp => backing == Backing::Anon && waiter == Waiter::VcpuWrite,
                _ => backing == Backing::Shmem && first,
            };
        }
        return match backing {
            Backing::Anon => (copies && (first || unchanged)) || (frees && first),
            _ => copies && huge && first,
        };
    }
    if !first {
        // They queue as the first ones do: each is placed for after one change of each kind, and freed
        // without its page.
        // Storage past the page cache costs as much as four.
        let cheap = waiter != Waiter::DirectWrite;
        return match backing {
            Backing::Anon => (copies && (cheap || change == Change::None)) || (frees && cheap),
            _ => copies && backing == Backing::Shmem && change == Change::None,
        };
    }
    if mode == Mode::Missing && !matches!(op, Op::Poison | Op::Move) {
        return is_first_default(point);
    }
    let plain = match mode {
        Mode::Wp => waiter == Waiter::UserWrite && msg == Msg::Read,
        _ => waiter == Waiter::UserRead && msg == Msg::Read,
    };
    let in_kernel = match mode {
        Mode::Wp => waiter == Waiter::SysRead && msg == Msg::Unread,
        _ => waiter == Waiter::SysWrite && msg == Msg::Unread,
    };
    let parts = matches!(
        change,
        Change::Munmap(Part::Head | Part::Tail) | Change::MmapOver(Part::Head | Part::Tail, _)
    );
    match op {
        _ if parts => false,
        _ if !small => plain && is_short(change),
        Op::Wake | Op::Unregister => plain || (in_kernel && is_short(change)),
        _ => plain || ((in_kernel || waiter == Waiter::None) && is_short(change)),
    }
}

/// COPY, ZEROPAGE, UNREGISTER and WAKE of missing pages, with the waiters of the first kinds.
fn is_first_default(point: Point) -> bool {
    let Point { backing, change, waiter, msg, op, .. } = point;
    let plain = (waiter, msg) == (Waiter::UserRead, Msg::Read);
    let in_kernel = (waiter, msg) == (Waiter::SysWrite, Msg::Unread);
    match change {
        Change::Munmap(Part::Head | Part::Tail)
        | Change::MmapOver(Part::Head | Part::Tail, Over::Anon) => {
            return plain && matches!(backing, Backing::Anon | Backing::Shmem);
        }
        Change::MmapOver(Part::Head | Part::Tail, _) => return false,
        _ => {}
    }
    // One change of each kind; of mremap the three that leave the old place in different states.
    let in_short = is_short(change)
        || matches!(
            change,
            Change::Munmap(Part::Whole) | Change::Mremap(Remap::Grow | Remap::DontUnmap)
        );
    match (backing, op) {
        // ZEROPAGE follows COPY: fewer waiters say as much.
        (Backing::Anon, Op::Zeropage) => plain || (in_kernel && is_short(change)),
        (Backing::Shmem, Op::Zeropage) => plain && in_short,
        (Backing::HugetlbPrivate, Op::Zeropage | Op::Wake) => false,
        (_, Op::Wake) if waiter == Waiter::None => false,
        (Backing::Anon, _) => {
            let brief = msg == Msg::Read && waiter != Waiter::SysWrite && is_short(change);
            plain || in_kernel || brief
        }
        (Backing::Shmem, _) => {
            let writes = (waiter, msg) == (Waiter::UserWrite, Msg::Read);
            plain || ((in_kernel || writes) && is_short(change))
        }
        // Huge pages take a hundred times as long to clear and copy.
        (Backing::HugetlbShared, Op::Copy) => {
            // Before 5.13 what is refused has unmapped something by then.
            plain && (in_short || matches!(change, Change::Mremap(Remap::Onto | Remap::MoveShrink)))
        }
        (Backing::Private | Backing::HugetlbShared, _) => plain && in_short,
        (Backing::SharedAnon, _) => in_kernel && is_short(change),
        (Backing::HugetlbPrivate, _) => {
            is_short(change) && (waiter, msg) == (Waiter::SysRead, Msg::Unread)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_the_size_that_its_axes_give() {
        let kinds = ["unchanged", "munmap", "mmap-over", "mremap"];
        let sizes = kinds.map(|kind| points(Op::Copy, Mode::Missing, kind).len());
        let backings = Backing::ALL.len();
        let waiters = 2 * Waiter::GRID.len() - 1;
        assert_eq!(sizes[..3], [1, 4, 16].map(|n| n * backings * waiters));
        assert_eq!(sizes[3], 8 * backings * (waiters - 2));
    }

    #[test]
    fn every_backing_change_and_waiter_is_a_default_somewhere() {
        let all: Vec<Point> = ["unchanged", "munmap", "mmap-over", "mremap"]
            .iter()
            .flat_map(|kind| points(Op::Copy, Mode::Missing, kind))
            .filter_map(|(point, default)| default.then_some(point))
            .collect();
        assert!(Backing::ALL.iter().all(|b| all.iter().any(|p| p.backing == *b)));
        assert!(Waiter::GRID.iter().all(|w| all.iter().any(|p| p.waiter == *w)));
        assert!(Msg::ALL.iter().all(|m| all.iter().any(|p| p.msg == *m)));
        assert!(Remap::ALL.iter().all(|r| all.iter().any(|p| p.change == Change::Mremap(*r))));
    }
}
