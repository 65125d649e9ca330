//! A page a kernel: what it is, how it was asked, what is odd about it, what differs from its neighbours.

use super::changes::{between, table, words as meaning};
use super::links::{self, Here};
use super::page::{Kind, Page};
use super::words::{count, held, kept, share};
use super::world::{Question, World};
use crate::diff::Comparer;
use crate::notes::Note;
use maud::{Markup, html};
use std::collections::BTreeMap;
use uffd_results::{Held, Kept, Record, Recorded};

/// The list of all kernels.
pub(super) const LIST: &str = "kernels.html";

/// The list, and a page each.
pub(super) fn pages(world: &World<'_>, comparer: &Comparer) -> Vec<Page> {
    let each = (0..world.kernels().len()).map(|at| page(world, comparer, at));
    std::iter::once(list(world)).chain(each).collect()
}

fn list(world: &World<'_>) -> Page {
    let here = Here::at(LIST);
    let summary = format!("The {} recorded kernels.", world.kernels().len());
    let body = html! {
        p { (summary) " Of each series the oldest and the newest release that could be had." }
        div.wide tabindex="0" role="region" aria-label="Kernels" {
            table {
                thead { tr {
                    @for name in ["Kernel", "Release", "Package", "Asked under", "Cases", "Statements"] { th scope="col" { (name) } }
                } }
                tbody {
                    @for (at, kernel) in world.kernels().iter().enumerate() {
                        @let [holds, other, ..] = counts(world, at);
                        tr {
                            th scope="row" { (super::words::kernel(&here, kernel)) }
                            td { code { (kernel.release) } }
                            td { (kernel.package.as_deref().unwrap_or("own image")) }
                            td { (kernel.accelerator) }
                            td { (world.record(at).map_or(0, |record| record.cases.len())) }
                            td { "✓ " (holds) @if other > 0 { " · ✗ " (other) } }
                        }
                    }
                }
            }
        }
    };
    Page {
        path: LIST.to_owned(),
        title: "Kernels".to_owned(),
        kind: Kind::Page,
        summary,
        words: "releases versions distributions debian".to_owned(),
        scripts: &[],
        body,
    }
}

/// How many statements hold, hold in part or not, are lacking, and were not asked.
fn counts(world: &World<'_>, kernel: usize) -> [usize; 4] {
    let mut counts = [0; 4];
    for probe in world.questions.iter().filter_map(|q| world.data.probe(&q.name)) {
        let place = match probe.held(kernel) {
            Some(Held::Holds) => 0,
            Some(Held::Partly | Held::Fails) => 1,
            Some(Held::Unsupported) => 2,
            None => 3,
        };
        counts[place] += 1;
    }
    counts
}

fn page(world: &World<'_>, comparer: &Comparer, at: usize) -> Page {
    let kernel = &world.kernels()[at];
    let path = links::kernel(kernel);
    let here = Here::at(&path);
    let [holds, other, lacks, silent] = counts(world, at);
    let summary =
        format!("Linux {} ({}): {holds} statements hold.", kernel.upstream, kernel.release);
    let body = html! {
        p { (count(holds, "statement")) " hold, " (other) " do not or in part, " (lacks)
            " are about what it lacks, " (silent) " could not be asked." }
        (surprises(world, &here, at))
        (broken(world, &here, at))
        @for (neighbour, id, what) in [
            (at.checked_sub(1), "before", "the one before it"),
            (Some(at + 1).filter(|next| *next < world.kernels().len()), "after", "the one after it"),
        ] {
            @if let Some(neighbour) = neighbour {
                @let (older, newer) = (at.min(neighbour), at.max(neighbour));
                h2 id=(id) { "What differs from " (what) ", " (super::words::kernel(&here, &world.kernels()[neighbour])) }
                (table(&here, &between(world, comparer, older, newer), &format!("What differs from {what}")))
            }
        }
        (meaning())
        h2 #identity { "What was asked" }
        (identity(kernel, world.record(at)))
        p { "Ask it again: " code { "uffd-conform run -k " (kernel.upstream.to_string()) } ". All it answered: "
            code { "results/records/" (kernel.machine) "/" (kernel.upstream.series()) "/" (kernel.release) ".json" } }
    };
    Page {
        title: format!("Linux {}", kernel.upstream),
        kind: Kind::Kernel,
        summary,
        words: format!("{} {} {}", kernel.release, kernel.upstream.series(), kernel.version),
        scripts: &[],
        body,
        path,
    }
}

/// Statements that do not hold, and notes that name the kernel.
fn surprises(world: &World<'_>, here: &Here, at: usize) -> Markup {
    let kernel = &world.kernels()[at];
    let odd: Vec<(&Question, Held)> = world
        .questions
        .iter()
        .filter_map(|q| Some((q, world.data.probe(&q.name)?.held(at)?)))
        .filter(|(_, held)| matches!(held, Held::Partly | Held::Fails))
        .collect();
    let is_named = |note: &&Note| !note.kernels.is_empty() && note.names_kernel(kernel);
    let notes: Vec<&Note> = world.notes.iter().filter(is_named).collect();
    html! {
        h2 #surprises { "Surprises" }
        @if odd.is_empty() && notes.is_empty() { p { "None: it does what is expected of it, and nothing is noted." } }
        @for (question, sign) in odd {
            @let (good, all) = world.data.probe(&question.name).map_or((0, 0), |probe| share(probe, at));
            div.card.bad {
                p { (held(Some(sign)).inline()) " " (question.probe.statement) " "
                    a href=(here.probe(&question.name)) { (question.name) } ": " (good) " of " (count(all, "case")) }
            }
        }
        @for note in notes {
            div.card {
                p { (note.says) }
                p.soft { code { (note.probe) } " · " (note.source) }
            }
        }
    }
}

/// What programs assume and this kernel breaks.
fn broken(world: &World<'_>, here: &Here, at: usize) -> Markup {
    let mut broken: BTreeMap<&str, (&super::world::Assumed, Vec<&str>)> = BTreeMap::new();
    for contract in world.contracts.iter().filter(|c| c.name != "shared") {
        let assumed = world.assumed.get(contract.name.as_str()).into_iter().flatten();
        for one in assumed.filter(|one| one.kept[at] == Some(Kept::Broken)) {
            let entry = broken.entry(one.assumption.id.as_str()).or_insert((one, Vec::new()));
            entry.1.push(contract.name.as_str());
        }
    }
    html! {
        h2 #broken { "What programs assume and it does not keep" }
        @if broken.is_empty() { p { "Nothing that is known." } }
        ul {
            @for (id, (one, contracts)) in broken {
                li { (kept(Some(Kept::Broken)).inline()) " " (one.assumption.says)
                    @for contract in contracts { " " a href=(format!("{}#{id}", here.contract(contract))) { (contract) } } }
            }
        }
    }
}

fn identity(kernel: &Recorded, record: Option<&Record>) -> Markup {
    let mut pairs: Vec<(&str, String)> = vec![
        ("release", kernel.release.clone()),
        ("version", kernel.version.clone()),
        ("machine", kernel.machine.clone()),
        ("suite revision", kernel.revision.clone()),
    ];
    if let Some(Record { kernel, environment, by, .. }) = record {
        if let Some(package) = &kernel.package {
            pairs.push(("package", format!("{} {}", package.name, package.version)));
            pairs.push(("SHA-256 of the package", package.sha256.clone()));
        }
        pairs.extend(kernel.image_sha256.iter().map(|hash| ("SHA-256 of the image", hash.clone())));
        pairs.extend([
            ("asked under", environment.how()),
            ("CPUs", environment.cpus.to_string()),
            ("memory", format!("{} MiB", environment.memory_mib)),
            ("page size", format!("{} bytes", environment.page_size)),
            ("2 MiB huge pages", environment.huge_pages_2m.to_string()),
            ("userfaultfd by", environment.uffd.clone()),
            ("KVM", if environment.kvm { "yes" } else { "no" }.to_owned()),
            ("features of UFFDIO_API", environment.uffd_features.join(" ")),
        ]);
        pairs.extend(by.iter().map(|by| ("given by", by.clone())));
        let settings = |map: &BTreeMap<String, String>| {
            map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        pairs.push(("settings", settings(&environment.sysctls)));
        pairs.push(("configuration", settings(&kernel.config)));
    }
    html! {
        dl.pairs { @for (name, value) in pairs { dt { (name) } dd { (value) } } }
    }
}
