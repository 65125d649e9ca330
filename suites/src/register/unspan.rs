//! UNREGISTER over the same layouts: parts, holes, several mappings, foreign ones.

use super::span::Layout;
use super::words::{self, MODE};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range};
use crate::edge::UNREGISTER_OWN;
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static UNSPAN: Probe = Probe {
    suite: "register",
    name: "unregister-span",
    statement: "UNREGISTER ends the registration of the mapped pages of its range, across holes and \
                mappings that have none; an incompatible mapping makes it fail and end nothing, and so \
                does another userfaultfd's from 6.17 on.",
    consumers: &[
        "QEMU postcopy: cleanup_range() over blocks that were partly replaced",
        "libfabric issue 5347: EINVAL after regions were merged",
    ],
};

/// UNREGISTER of a part of a layout in which all is registered that can be.
#[derive(Clone, Copy, Debug)]
struct Unspan {
    backing: Backing,
    layout: Layout,
    mode: u64,
}

impl Unspan {
    /// The letter of every page before.
    fn before(self, kernel: KernelVersion) -> String {
        let own = words::letter(self.mode);
        // The other memory is shared where the block is private, and anonymous where it is shared.
        let takes_other = words::takes(self.mode, !self.backing.is_private(), false, kernel);
        let letter = |page| match self.layout {
            Layout::MixedInside if page == 2 && !takes_other => '.',
            Layout::AcrossHole | Layout::FromHole | Layout::IntoHole | Layout::OnlyHole
                if page == 2 =>
            {
                '-'
            }
            Layout::FileInside | Layout::SealedInside if page == 2 => '.',
            Layout::FileBehind if page == 5 => '.',
            _ => own,
        };
        (0..PAGES).map(letter).collect()
    }

    /// What UNREGISTER returns.
    fn returns(self, kernel: KernelVersion) -> (&'static str, &'static str) {
        match self.layout {
            Layout::OnlyHole | Layout::FileInside => ("EINVAL", source::UNREGISTER_EINVAL),
            Layout::OtherInside if UNREGISTER_OWN.is_known_in(kernel) => {
                ("EINVAL", UNREGISTER_OWN.source)
            }
            _ => ("0", source::UNREGISTER),
        }
    }
}

impl Trial for Unspan {
    fn axes(&self) -> String {
        let Self { backing, layout, mode } = self;
        format!("backing={backing},mode={},layout={layout}", words::mode(*mode))
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, layout, mode } = *self;
        seen.step("set-up");
        let block = Block::map(backing, BLOCK)?;
        let all = block.range(0..PAGES);
        let look = || evidence::registration(&[(all, block.page)]).map(|rows| rows.concat());
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..1), mode).map_err(|e| {
            let mode = words::mode(mode);
            Stop::Unsupported(format!("REGISTER of a {backing} block for {mode}: {e:?}"))
        })?;
        let _owner = layout.lay(stage, &block, mode)?;
        for page in 1..PAGES {
            // Refused for what can't be registered, which the letters then show.
            let _ = uffd.register(block.range(page..page + 1), mode);
        }
        seen.fact("reg-before", look()?);
        let mut range = block.range(layout.pages());
        if layout == Layout::Around {
            range = Range { start: range.start - block.page, len: range.len + 2 * block.page };
        }
        seen.step("unregister");
        seen.fact("unregister", uffd.unregister(range));
        seen.fact("reg", look()?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let before = self.before(kernel);
        let (rc, says) = self.returns(kernel);
        let ended = |(page, letter)| match letter {
            '-' => '-',
            _ if rc == "0" && self.layout.pages().contains(&page) => '.',
            letter => letter,
        };
        let after: String = before.chars().enumerate().map(ended).collect();
        vec![
            Expected::new("reg-before", before.clone(), MODE),
            Expected::new("unregister", rc, says),
            Expected::new("reg", after, says),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, layout, .. } = self;
        vec![
            format!("map a {backing} block of {PAGES} pages and lay it out: {layout}"),
            "UFFDIO_REGISTER of each page that can be registered".into(),
            format!("UFFDIO_UNREGISTER of pages {:?}; read the registration", layout.pages()),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// The cases; hugetlb without the layouts that need small pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL {
        for layout in Layout::ALL.iter().filter(|layout| !(backing.is_huge() && layout.is_small()))
        {
            for mode in [REGISTER_MODE_MISSING, REGISTER_MODE_WP] {
                let telling = matches!(backing, Backing::Anon | Backing::Shmem)
                    && mode == REGISTER_MODE_MISSING;
                let trial = Unspan { backing: *backing, layout: *layout, mode };
                cases.push(Case::trial(&UNSPAN, trial, telling));
            }
        }
    }
    cases
}
