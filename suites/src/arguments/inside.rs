//! An argument struct that stands in the registered range itself, on a page that is missing.

use super::ground::{ARGUMENT, Ground, argument_page};
use super::twist::grounds;
use crate::abi::command::Command;
use crate::evidence;
use crate::expect::Expected;
use crate::memory::PAGE;
use crate::outcome::{Seen, Stop};
use crate::point::PAGES;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};
use uffd_results::KernelVersion;

static INSIDE: Probe = Probe {
    suite: "arguments",
    name: "struct-registered",
    statement: "An ioctl whose struct stands on a missing registered page parks in that page's fault; \
                when the page is placed it reads the struct from it and does its work.",
    consumers: &["handlers in the process that they serve: libfabric, Android ART, umap"],
};

/// The page of the block on which the struct stands.
const STRUCT: usize = 4;

/// An ioctl on such a struct.
#[derive(Clone, Copy, Debug)]
struct Inside(Ground);

impl Trial for Inside {
    fn axes(&self) -> String {
        format!("ioctl={},backing={}", self.0.command, self.0.backing)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let ground = self.0;
        seen.step("set-up");
        let scene = ground.scene(stage, 0)?;
        let words = ground.good(&scene);
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        let page = scene.block.range(STRUCT..STRUCT + 1);
        let uffd = scene.uffd.duplicate();
        let uffd = uffd.map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
        seen.step("call");
        let mut caller = Waiter::begin(stage, move || {
            let rc = uffd.raw(ground.command.request(), page.start);
            rc.0.map_or(Access::Ran(None), Access::Failed)
        })?;
        let parked = caller.settle(&scene.uffd, &scene.queue)?;
        let word = if parked == Fate::Again { "parks".into() } else { parked.to_string() };
        seen.fact("caller", word);
        if parked != Fate::Again {
            return Ok(());
        }
        seen.fact("fault", scene.read_fault()?);
        let (rc, field) = scene.uffd.copy(page, ARGUMENT, 0);
        seen.fact("placed", rc);
        seen.fact("placed-field", field);
        seen.step("end");
        seen.fact("returned", caller.end()?);
        if let Some(field) = ground.result(page.start)? {
            seen.fact("field", field);
        }
        seen.step("survey");
        let all = scene.block.range(0..PAGES);
        seen.fact("reg", evidence::registration(&[(all, PAGE)])?.concat());
        let letter = |value| if value == words[0] { 's' } else { stage.letter(value) };
        seen.fact("pages", evidence::pages(all, PAGE, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let ground = self.0;
        let says =
            "copy_from_user() of the struct is the kernel's access to the page, with no lock held";
        let mut facts = vec![
            Expected::new("caller", "parks", says),
            Expected::new("fault", "read@4", says),
            Expected::new("placed", "0", says),
            Expected::new("placed-field", PAGE.to_string(), says),
            Expected::new("returned", "ran", says),
        ];
        if ground.command.has_result() && ground.command != Command::Register {
            facts.push(Expected::new("field", PAGE.to_string(), says));
        }
        let ended = ground.command == Command::Unregister;
        facts.push(Expected::new("reg", (if ended { "." } else { "m" }).repeat(PAGES), says));
        let here = match ground.command {
            Command::Copy => 'c',
            Command::Zeropage => '0',
            Command::Move => 'n',
            _ => '-',
        };
        facts.push(Expected::new("pages", format!("--{here}ks-"), says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Ground { command, backing, .. } = self.0;
        vec![
            format!("map a {backing} block of {PAGES} pages and register it for missing pages"),
            format!(
                "a thread calls {command} with a struct on page {STRUCT}, which is missing: it parks"
            ),
            format!(
                "UFFDIO_COPY to page {STRUCT} of a page with a good struct; wait for the thread"
            ),
        ]
    }
}

/// The cases: ioctls on memory that is registered for missing pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        let other = matches!(
            ground.command,
            Command::Continue | Command::Writeprotect | Command::Rwprotect | Command::SetMode
        );
        if !other && !ground.in_kernel && !ground.backing.is_huge() {
            cases.push(Case::trial(&INSIDE, Inside(ground), plain));
        }
    }
    cases
}
