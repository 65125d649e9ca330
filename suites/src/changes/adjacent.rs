//! A page of a registered block that mremap moves to the block's other end, where its mapping and the rest
//! of the block may become one.

use crate::abi::{REGISTER_MODE_MISSING, features};
use crate::edge::MREMAP_SPARES_NEIGHBOUR;
use crate::events::ground::follow;
use crate::evidence;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::memory::{remap, unmap};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ADJACENT: Probe = Probe {
    suite: "changes",
    name: "adjacent",
    statement: "A page that mremap moves from one end of a registered block to the other takes its \
                registration along with EVENT_REMAP and loses it without; the rest of the block stays \
                registered, but for untouched private memory up to 7.2, which loses all of it.",
    consumers: &[
        "QEMU: RAM blocks that are moved or resized, system/physmem.c: qemu_ram_remap()",
        "CRIU: restores mappings at a temporary place and moves them, criu/pie/restorer.c",
    ],
};

axis! {
    /// Which page moves where.
    How {
        /// The last to the place of the first.
        TailToFront = "tail-to-front",
        /// The first to the place of the last.
        FrontToTail = "front-to-tail",
    }
}

axis! {
    /// When pages were first written to.
    Touched {
        /// Never.
        Never = "never",
        /// Before the registration: private pages then have their places for good.
        Before = "before",
    }
}

axis! {
    /// The event features.
    Events {
        /// None.
        None = "none",
        /// EVENT_REMAP.
        Remap = "remap",
    }
}

#[derive(Clone, Copy, Debug)]
struct Adjacent {
    backing: Backing,
    how: How,
    touched: Touched,
    events: Events,
}

impl Adjacent {
    /// The page that moves, and the one whose place it takes.
    const fn pages(self) -> (usize, usize) {
        match self.how {
            How::TailToFront => (PAGES - 1, 0),
            How::FrontToTail => (0, PAGES - 1),
        }
    }
}

impl Trial for Adjacent {
    fn axes(&self) -> String {
        let Self { backing, how, touched, events } = self;
        format!("backing={backing},how={how},touched={touched},events={events}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let asks = match self.events {
            Events::None => 0,
            Events::Remap => features::EVENT_REMAP,
        };
        let lab = Lab::new(stage, self.backing, asks)?;
        if self.touched == Touched::Before {
            lab.fill(0..PAGES)?;
        }
        let (from, to) = self.pages();
        // The hole comes first: the registration is of what is left.
        seen.fact("unmap", unmap(lab.page(to)));
        let left = if to == 0 { 1..PAGES } else { 0..PAGES - 1 };
        lab.register(left, REGISTER_MODE_MISSING)?;
        lab.registered("reg-before", seen)?;
        seen.step("move");
        let (page, target) = (lab.page(from), lab.page(to).start);
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let mover = Mover::start(stage, move || remap(page, page.len, moving, target))?;
        seen.fact("events", follow(&mover, &[&lab.uffd], page.len)?);
        seen.fact("move", mover.join()?);
        lab.registered("reg", seen)?;
        seen.fact("mappings", evidence::mappings_in(lab.all())?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let drops = "mremap_userfaultfd_prep(): the context goes along if it asked for EVENT_REMAP, else the \
                     moved mapping has none";
        let registers = "ioctl_userfaultfd(2), UFFDIO_REGISTER";
        let (from, to) = self.pages();
        let row = |moved: char, rest: char| -> String {
            (0..PAGES)
                .map(|page| match page {
                    page if page == from => '-',
                    page if page == to => moved,
                    _ => rest,
                })
                .collect()
        };
        let before: String = (0..PAGES).map(|page| if page == to { '-' } else { 'm' }).collect();
        let goes = self.events == Events::Remap;
        // Then both become one mapping.
        let joins = self.backing.is_anon() && self.touched == Touched::Never;
        let (after, source) = match (goes, joins) {
            (true, _) => (row('m', 'm'), drops),
            (false, false) => (row('.', 'm'), drops),
            (false, true) => {
                let edge = MREMAP_SPARES_NEIGHBOUR;
                (edge.value(kernel, &row('.', '.'), &row('.', 'm')), edge.source)
            }
        };
        vec![
            Expected::new("unmap", "0", "munmap(2)"),
            Expected::new("reg-before", before, registers),
            Expected::new("move", "0", "mremap(2)"),
            Expected::new("reg", after, source),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, touched, events, .. } = self;
        let (from, to) = self.pages();
        vec![
            format!("map a block of 6 pages ({backing}); its pages are written to: {touched}"),
            format!(
                "munmap of page {to}; UFFDIO_REGISTER of the other five, event features: {events}"
            ),
            format!("mremap of page {from} to the place of page {to}; read the events"),
            "look at the registration of every page, and count the mappings".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem] {
        for how in How::ALL {
            for touched in Touched::ALL {
                for events in Events::ALL {
                    let (how, touched, events) = (*how, *touched, *events);
                    let trial = Adjacent { backing, how, touched, events };
                    cases.push(Case::trial(&ADJACENT, trial, true));
                }
            }
        }
    }
}
