//! CONTINUE of a page that the memory has lost: the page cache keeps it and hands it to nobody.

use super::CLONES;
use crate::abi::REGISTER_MODE_MINOR;
use crate::expect::Expected;
use crate::lab::{Lab, outcome, want};
use crate::memory::{self, SPARE, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::process::Offspring;
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static FAILED: Probe = Probe {
    suite: "continue",
    name: "memory-failure",
    statement: "CONTINUE of a page of the page cache that has suffered a memory error fails with EIO and maps \
                nothing.",
    consumers: &[CLONES],
};

const PAGE: usize = 2;

#[derive(Debug)]
struct Failed(Backing);

impl Trial for Failed {
    fn axes(&self) -> String {
        format!("backing={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        if !stage.disposable {
            return Err(Stop::Precondition(
                "takes a page of memory away: only asked in a VM".into(),
            ));
        }
        let lab = Lab::new(stage, self.0, 0)?;
        // By a child: whoever maps the page may get a signal for it.
        let child = Offspring::here(stage, || {
            let page = lab.block.at(SPARE, PAGE..PAGE + 1);
            let rc = lab.block.map_pages(PAGE..PAGE + 1, SPARE, libc::MAP_FIXED_NOREPLACE);
            if !rc.is_ok() || touch::store(page.start, tag::KEPT).is_err() {
                return format!("filling the page cache: {rc}");
            }
            memory::advise(page, libc::MADV_HWPOISON).to_string()
        })?;
        let said = child.word()?;
        child.end()?;
        match said.as_str() {
            "0" => {}
            "EINVAL" => {
                let why = "madvise(MADV_HWPOISON): EINVAL (CONFIG_MEMORY_FAILURE)";
                return Err(Stop::Unsupported(why.into()));
            }
            _ => return Err(Stop::Precondition(format!("madvise(MADV_HWPOISON): {said}"))),
        }
        lab.register(0..PAGES, REGISTER_MODE_MINOR)?;
        seen.step("continue");
        outcome(("continue", "field"), lab.uffd.resume(lab.page(PAGE), 0), seen);
        lab.entries("entries", seen)?;
        seen.fact("unregister", lab.uffd.unregister(lab.all()));
        seen.step("load");
        let loaded = touch::load(lab.page(PAGE).start);
        seen.fact("load", loaded.map_or_else(|signal| signal.to_string(), |_| "ran".to_owned()));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "mfill_atomic_pte_continue() in mm/userfaultfd.c: EIO for PageHWPoison; shared memory keeps \
                    such pages since commit a76054266661 (5.16)";
        want(
            says,
            &[
                ("continue", "EIO"),
                ("field", "-5"),
                ("entries", "------"),
                ("unregister", "0"),
                ("load", crate::poison::SIGBUS),
            ],
        )
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a {} block", self.0),
            "a child maps page 2 a second time, writes to it, and calls madvise(MADV_HWPOISON) of that \
             mapping (takes CONFIG_MEMORY_FAILURE and root)"
                .to_owned(),
            format!("register the block for minor faults; UFFDIO_CONTINUE of page {PAGE}"),
            "UFFDIO_UNREGISTER of the block; load from the page".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::trial(&FAILED, Failed(Backing::Shmem), true)]
}
