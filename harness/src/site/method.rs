//! How it is measured.

use super::links::Here;
use super::page::{Kind, Page};
use super::world::World;
use maud::html;
use std::collections::BTreeMap;

const PATH: &str = "method.html";

/// The page.
pub(super) fn page(world: &World<'_>) -> Page {
    let here = Here::at(PATH);
    let mut under: BTreeMap<&str, usize> = BTreeMap::new();
    let mut revisions: BTreeMap<&str, usize> = BTreeMap::new();
    for kernel in world.kernels() {
        *under.entry(kernel.accelerator.as_str()).or_default() += 1;
        *revisions.entry(kernel.revision.as_str()).or_default() += 1;
    }
    let body = html! {
        h2 #case { "A case is one question" }
        p { "A probe is a question to the kernel; a case is that question with one value for every axis, such as the kind of "
            "memory, the change, who waits. Each case runs in a process of its own, and writes down all that it sees: return "
            "values, errno, the result field (poisoned before the call, so that \"not written\" shows), messages, the waiter's "
            "fate, the content and the registration of every page." }
        h2 #asleep { "\"Not woken\" is proved, not waited for" }
        p { "The waiter parks in its fault; " code { "poll(2)" } " says that its message is queued, "
            code { "/proc/self/task/TID/syscall" } " that it is off the CPU, and its switch counters are noted. A wake-up takes the "
            "waiter off the userfaultfd's queue inside the waking call, and " code { "/proc/self/fdinfo" } " counts that queue. So "
            "after the operation one look decides: total 0 is woken; total 1 with the same counters is asleep; a new unread message "
            "and other counters are \"woken, and parked again\". Where the sources disagree the case is " i { "broken" } ", and "
            "says nothing of the kernel. For each family of claims that nobody is woken a control has a waiter that must wake." }
        h2 #judged { "Facts first, judgement later" }
        p { "Records hold facts only. Whether a statement holds is worked out of them, against an expectation with its source: a "
            "man page, kernel documentation, a commit, or the words \"observed only\". A skip is never a pass: a kernel that could "
            "not be asked is shown as such." }
        h2 #between { "Nothing is said of kernels that were not asked" }
        p { "Where something begins or ends, two recorded releases are named: the last without it and the first with it. Stable "
            "series carry changes, so a number between them decides nothing." }
        h2 #where { "Where it ran" }
        ul {
            @for (accelerator, n) in under { li { (n) " under " code { (accelerator) } } }
            @for (revision, n) in revisions { li { (n) " with suite revision " code { (revision) } } }
        }
        p { "Kernels are a distribution's own images, each named with its package and hash on its "
            a href=(here.to("kernels.html")) { "page" } ". A case that brings the kernel down or hangs costs that case alone." }
        h2 #repeat { "Repeat it" }
        pre { code { "./scripts/sweep                 # ask every kernel again, in VMs\nuffd-conform run                # ask the running one\nuffd-conform show 'CASE'        # everything that is known of one case\nuffd-conform check              # does this host keep what programs assume?\nuffd-conform publish            # this site" } }
    };
    Page {
        path: PATH.to_owned(),
        title: "How it is measured".to_owned(),
        kind: Kind::Page,
        summary: "How a question becomes a fact: one process a case, evidence in place of waiting, judgement afterwards."
            .to_owned(),
        words: "method evidence fdinfo proof".to_owned(),
        scripts: &[],
        body,
    }
}
