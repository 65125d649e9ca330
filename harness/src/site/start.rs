//! The start page: what this is, what everybody gets wrong, and where to go.

use super::guarantees;
use super::links::Here;
use super::page::{Kind, Page};
use super::words::{self, count};
use super::world::{Series, World};
use crate::recipes::Recipe;
use crate::report::claims::{self, Claim, Truth};
use maud::{Markup, html};
use uffd_results::{CLAIMS, Extent, Held, Run, Support};

const PATH: &str = "index.html";

/// Three facts that people get wrong: what is so, and the probes whose statements say it.
const FACTS: [(&str, &str, &[&str]); 3] = [
    (
        "No change of a mapping wakes anybody",
        "munmap, mmap over, mremap, madvise: a thread parked in the fault stays parked, whatever the memory is.",
        &["claims/change-wakes"],
    ),
    (
        "UFFDIO_WAKE is the way out, and needs no registration",
        "Wake the old address range. The thread runs its fault again and meets what is there now: zeros, new data, \
         SIGSEGV or EFAULT.",
        &["claims/wake-is-enough"],
    ),
    (
        "UFFDIO_UNREGISTER returns 0 and leaves waiters asleep",
        "It wakes only those whose page is still registered for missing faults; not those in a changed part, not \
         those of write protection or minor faults.",
        &["claims/cleanup-frees", "unregister/munmap"],
    ),
];

/// The page.
pub(super) fn page(world: &World<'_>, recipes: &[Recipe]) -> Page {
    let here = Here::at(PATH);
    let cases: usize = world.questions.iter().map(|q| q.cases.len()).sum();
    let summary = format!(
        "What {} really did to userfaultfd when memory mappings changed: {}, {}, asked and recorded.",
        count(world.kernels().len(), "Linux kernel"),
        count(world.questions.len(), "statement"),
        count(cases, "case"),
    );
    let body = html! {
        p { (summary) }
        p { "Live migration and snapshot restore (QEMU postcopy, CRIU lazy-pages, Firecracker, Cloud Hypervisor, crosvm) "
            "serve other threads' page faults while mappings change under them. What the kernel then does to an ioctl, "
            "and to the thread that waits, is mostly undocumented; believing the wrong thing hangs or corrupts a VM." }
        h2 #stuck { "A VM stands still" }
        div.cards.pairs {
            div.card { h3 { a href=(here.to("ask.html")) { "Ask" } }
                p { "Choose the operation, the change and who waits: see what every kernel answers, and the way out." } }
            div.card { h3 { a href=(here.to("guarantees.html")) { "Guarantees" } }
                p { "What holds on every recorded kernel, what never to rely on, and what to do:" }
                ul { @for recipe in recipes {
                    li { a href=(format!("{}#{}", here.to("guarantees.html"), recipe.id)) { (recipe.title) } " "
                        (guarantees::sign(world, recipe).inline()) }
                } } }
            div.card { h3 { a href=(here.to("matrix.html")) { "Matrix" } }
                p { "All statements against all kernels, with filters. Only "
                    a href=(format!("{}#changed=1", here.to("matrix.html"))) { "what differs between kernels" } ", or "
                    a href=(here.to("changes.html")) { "between two series" } "." } }
            div.card { h3 { a href=(here.to("contracts.html")) { "Programs" } }
                p { "What QEMU, CRIU, Firecracker and others assume, and which kernels keep it." } }
        }
        h2 #facts { "Three facts that everybody gets wrong" }
        div.cards { @for fact in FACTS { (self::fact(world, &here, fact)) } }
        h2 #claims { "What was claimed, and what kernels do" }
        p { "A QEMU patch (" i { "migrate/ram: Tolerate partially changed mappings in postcopy code" } ") and the answer to "
            "it said these things. A cell says on how many cases of the newest recorded release it is true." }
        (claims(world, &here))
        h2 #more { "More" }
        ul {
            li { a href=(here.to("kernels.html")) { "The kernels" } ", each with its surprises" }
            li { a href=(here.to("method.html")) { "How it is measured" } ", and why \"not woken\" is proved and not waited for" }
            li { a href=(here.to("downloads.html")) { "Downloads" } ": JSON, CSV, a C header, schemas" }
        }
    };
    Page {
        path: PATH.to_owned(),
        title: "What Linux does to userfaultfd when memory mappings change".to_owned(),
        kind: Kind::Page,
        summary,
        words: "start home facts claims".to_owned(),
        scripts: &[],
        body,
    }
}

fn fact(world: &World<'_>, here: &Here, (title, says, probes): (&str, &str, &[&str])) -> Markup {
    html! {
        div.card {
            h3 { (title) }
            p { (says) }
            p.soft { "Seen in "
                @for (i, name) in probes.iter().enumerate() {
                    @if i > 0 { "; " }
                    a href=(here.probe(name)) { (name) } ": " (extent(world, name))
                }
            }
        }
    }
}

/// On which kernels what a probe states is so. Of a claim, which can be false everywhere, it is said
/// whether it is true, as its row below does; and whether that is what the suite expects.
fn extent(world: &World<'_>, probe: &str) -> String {
    let Some(probe) = world.data.probe(probe) else { return "not recorded".to_owned() };
    let went = (0..world.kernels().len()).filter_map(|kernel| Some((kernel, probe.held(kernel)?)));
    let as_expected = Support::of(went).extent(Held::Holds);
    let standing = |kernel| Some((kernel, probe.stands(kernel)?));
    let standing: Vec<(usize, Held)> = (0..world.kernels().len()).filter_map(standing).collect();
    let on_all = format!("on all {}", count(standing.len(), "kernel"));
    if probe.suite() != CLAIMS {
        return match as_expected {
            Extent::All => format!("as stated {on_all}"),
            other => format!("as stated {}", other.say(world.kernels())),
        };
    }
    let support = Support::of(standing);
    let said = match support.runs() {
        [] => return "no kernel answered".to_owned(),
        [Run { value: Held::Holds, .. }] => format!("true {on_all}"),
        [Run { value: Held::Fails, .. }] => format!("false {on_all}"),
        [_] => format!("true in some cases and false in others {on_all}"),
        _ => format!("true {}", support.extent(Held::Holds).say(world.kernels())),
    };
    if as_expected == Extent::All { format!("{said}, as this project expects") } else { said }
}

fn claims(world: &World<'_>, here: &Here) -> Markup {
    let claims = claims::all(world.records);
    html! {
        div.wide tabindex="0" role="region" aria-label="Claims against series" {
            table {
                thead { tr {
                    th scope="col" { "Claim" }
                    @for series in &world.series { th scope="col" { (series.name) } }
                    th scope="col" { "False for" }
                } }
                tbody {
                    @for claim in &claims {
                        tr {
                            th scope="row" { (claim.probe.statement) br; a href=(here.probe(&claim.probe.to_string())) { (claim.probe) } }
                            @for series in &world.series { (cell(claim, series)) }
                            td.text { (claim.exceptions) }
                        }
                    }
                }
            }
        }
    }
}

fn cell(claim: &Claim, series: &Series) -> Markup {
    let truth = series.kernels.last().and_then(|at| claim.truth.get(*at)).copied();
    let sign = |held| words::held(held);
    html! {
        @match truth.unwrap_or(Truth { yes: 0, all: 0 }) {
            Truth { all: 0, .. } => td class=(sign(None).class) { "? not asked" },
            Truth { yes: 0, .. } => td class=(sign(Some(Held::Fails)).class) { "✗ false" },
            Truth { yes, all } if yes == all => td class=(sign(Some(Held::Holds)).class) { "✓ true" },
            Truth { yes, all } => td class=(sign(Some(Held::Partly)).class) { "◐ " (yes) " of " (all) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known;
    use rstest::rstest;

    /// Of a claim the sentence says what its row says, and of others how their cases went.
    #[rstest]
    #[case("claims/change-wakes", "false on all N kernels, as this project expects")]
    #[case("claims/wake-is-enough", "true on all N kernels, as this project expects")]
    #[case(
        "claims/cleanup-frees",
        "true in some cases and false in others on all N kernels, as this project expects"
    )]
    #[case("unregister/munmap", "as stated on all N kernels")]
    #[case("claims/nobody-said", "not recorded")]
    fn what_is_so_is_said(#[case] probe: &str, #[case] says: &str) {
        let known = known::built_in();
        let world = World::of(&[], &known, &[]);
        let kernels = count(world.kernels().len(), "kernel");
        assert_eq!(extent(&world, probe), says.replace("N kernels", &kernels));
    }
}
