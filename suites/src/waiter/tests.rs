//! Woken or not woken must be told apart every time, however busy the machine is, and evidence
//! that contradicts itself must not become a fact.

use super::*;
use crate::abi::{COPY_MODE_DONTWAKE, Way};
use crate::memory::{Block, OTHER, dontneed, unmap};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point};
use crate::scenario::Scene;
use crate::testing::isolated;
use crate::touch;
use rstest::rstest;
use std::sync::atomic::AtomicBool;

/// Threads of one child process; it has stacks for a few more.
const BATCH: u64 = 25;

/// Keeps two CPUs busy until it is dropped.
struct Load(&'static AtomicBool);

impl Load {
    fn start() -> Self {
        let busy: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(true)));
        for _ in 0..2 {
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {});
        }
        Self(busy)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A sequence that looks random and is the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn point(waiter: Kind, msg: Msg) -> Point {
    Point {
        backing: Backing::Anon,
        mode: Mode::Missing,
        change: Change::None,
        waiter,
        msg,
        op: Op::Look,
    }
}

/// A block with a thread parked on it, its message read if `msg` says so.
fn parked(stage: &Stage, kind: Kind, msg: Msg) -> (Scene<'_>, Waiter) {
    let scene = Scene::set(stage, point(kind, msg)).expect("a block");
    let waiter = Waiter::park(stage, kind, scene.target(), &scene.uffd, &scene.queue);
    if msg == Msg::Read {
        scene.read_fault().expect("its message");
    }
    (scene, waiter.expect("a parked waiter"))
}

/// Lets the thread go, so that the next one finds the place empty.
fn clear(scene: Scene<'_>, waiter: &Waiter) {
    let block = scene.block.range(0..PAGES);
    drop(scene.uffd);
    waiter.end().expect("an end after the last close");
    assert!(unmap(block).is_ok());
}

/// One thread: parked, perhaps woken, looked at once.
fn told_apart(stage: &Stage, dice: &mut Dice) -> bool {
    let kinds = [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::SysWrite];
    // Without permission only the first two can park.
    let able = if stage.way == Ok(Way::UserModeOnly) { 2 } else { 4 };
    let kind = kinds[usize::try_from(dice.below(able)).expect("small")];
    let msg = if dice.below(2) == 0 { Msg::Read } else { Msg::Unread };
    let (scene, mut waiter) = parked(stage, kind, msg);
    let what = dice.below(4);
    let done = match what {
        0 => true,
        1 => scene.uffd.wake(scene.target()).is_ok(),
        2 => scene.uffd.copy(scene.target(), stage.source, 0).0.is_ok(),
        _ => scene.uffd.copy(scene.target(), stage.source, COPY_MODE_DONTWAKE).0.is_ok(),
    };
    let fate = waiter.look(&scene.uffd, &scene.queue);
    let right = match what {
        0 | 3 => fate == Ok(Fate::Asleep),
        1 => fate == Ok(Fate::Again),
        _ => matches!(fate, Ok(Fate::Ended(Access::Ran(_)))),
    };
    if !done || !right {
        eprintln!("{kind} {msg} {what}: {done} {fate:?}");
    }
    clear(scene, &waiter);
    done && right
}

#[test]
fn a_thousand_waiters_are_told_apart_under_load() {
    let _load = Load::start();
    for seed in 0..1000 / BATCH {
        isolated(|stage| {
            let mut dice = Dice(seed);
            let right = (0..BATCH).filter(|_| told_apart(stage, &mut dice)).count();
            assert_eq!(right as u64, BATCH, "of the batch with seed {seed}");
        });
    }
}

/// The hardest to tell: the thread is back in the queue at once, and only its switches say so.
#[rstest]
fn a_waiter_that_parks_again_is_told_from_one_that_slept(
    #[values(Msg::Read, Msg::Unread)] msg: Msg,
) {
    const LOOKS: usize = 20_000;
    let _load = Load::start();
    isolated(|stage| {
        let mut dice = Dice(7);
        let (scene, mut waiter) = parked(stage, Kind::UserRead, msg);
        let right = (0..LOOKS).filter(|_| {
            let woken = dice.below(2) == 1;
            assert!(!woken || scene.uffd.wake(scene.target()).is_ok());
            let fate = waiter.look(&scene.uffd, &scene.queue);
            if fate == Ok(Fate::Again) && msg == Msg::Read {
                scene.read_fault().expect("its new message");
            }
            fate == Ok(if woken { Fate::Again } else { Fate::Asleep })
        });
        assert_eq!(right.count(), LOOKS);
        clear(scene, &waiter);
    });
}

/// The queue says that nobody was woken, the thread's switches that it ran.
#[test]
fn a_queue_and_switches_that_disagree_are_no_fact() {
    isolated(|stage| {
        let (scene, mut waiter) = parked(stage, Kind::UserRead, Msg::Read);
        let truth = waiter.parked;
        waiter.parked = truth.map(|seen| Thread { runs: seen.runs - 1, ..seen });
        let fate = waiter.look(&scene.uffd, &scene.queue);
        let is_named = |why: &str| why.contains("not woken (1/0)") && why.contains("that it ran");
        assert!(matches!(&fate, Err(Stop::Broken(why)) if is_named(why)), "{fate:?}");
        waiter.parked = truth;
        assert_eq!(waiter.look(&scene.uffd, &scene.queue), Ok(Fate::Asleep));
        clear(scene, &waiter);
    });
}

/// An empty queue alone does not make the thread one that was woken.
#[test]
fn the_queue_of_another_context_is_no_fact() {
    isolated(|stage| {
        let (scene, mut waiter) = parked(stage, Kind::UserRead, Msg::Read);
        let other = stage.uffd(0).expect("another context");
        let queue = QueueFile::open(&other).expect("its queue");
        waiter.patience = Duration::from_millis(50);
        let fate = waiter.look(&scene.uffd, &queue);
        assert!(matches!(fate, Err(Stop::Hang(_))), "{fate:?}");
        clear(scene, &waiter);
    });
}

#[test]
fn a_waiter_that_was_not_proved_to_park_is_no_witness() {
    isolated(|stage| {
        let scene = Scene::set(stage, point(Kind::UserRead, Msg::Unread)).expect("a block");
        let page = scene.target();
        let mut waiter = Waiter::start(stage, Kind::UserRead, page).expect("a thread");
        while scene.queue.read().expect("a queue").total == 0 {
            std::thread::yield_now();
        }
        let fate = waiter.look(&scene.uffd, &scene.queue);
        assert!(matches!(fate, Err(Stop::Broken(_))), "{fate:?}");
        clear(scene, &waiter);
    });
}

#[test]
fn a_thread_that_meets_a_present_page_is_no_waiter() {
    isolated(|stage| {
        let scene = Scene::set(stage, point(Kind::UserRead, Msg::Unread)).expect("a block");
        let kept = scene.block.range(scene.page + 1..scene.page + 2);
        let waiter = Waiter::park(stage, Kind::UserRead, kept, &scene.uffd, &scene.queue);
        let is_named = |why: &str| why.contains("did not park: ran:kept");
        assert!(matches!(&waiter, Err(Stop::Broken(why)) if is_named(why)), "{waiter:?}");
    });
}

/// Neither parks nor ends: only one that faults time and again does so within the kernel.
#[rstest]
#[case::faults_for_ever(true)]
#[case::does_something_else(false)]
fn one_that_faults_for_ever_is_told_from_one_that_does_not_come(#[case] faults: bool) {
    isolated(|stage| {
        let scene = Scene::set(stage, point(Kind::UserWrite, Msg::Unread)).expect("a block");
        let beside = Block::map(Backing::Anon, OTHER).expect("another block").at(OTHER, 0..1);
        let access = move || loop {
            if faults {
                touch::store(beside.start, tag::WROTE).expect("a page");
                assert!(dontneed(beside).is_ok());
            }
        };
        let mut waiter = Waiter::begin(stage, access).expect("a thread");
        if !faults {
            waiter.patience = Duration::from_millis(300);
        }
        for fate in [waiter.settle(&scene.uffd, &scene.queue), waiter.end()] {
            let right = match &fate {
                Ok(fate) => faults && *fate == Fate::Spins,
                Err(stop) => !faults && matches!(stop, Stop::Hang(_)),
            };
            assert!(right, "{fate:?}");
        }
    });
}
