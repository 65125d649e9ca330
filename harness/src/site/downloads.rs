//! Downloads: the same facts for programs.

use super::links::Here;
use super::page::{Kind, Page};
use super::world::World;
use crate::export::{self, SMALL, Selection};
use crate::known::Known;
use anyhow::Result;
use maud::html;

const PATH: &str = "downloads.html";

/// A file that is offered.
pub(super) struct File {
    /// Its path below the site's folder.
    pub(super) path: &'static str,
    /// What it is, in a sentence.
    says: &'static str,
    /// What it holds.
    pub(super) text: String,
}

/// The schemas, as they stand in the repository.
const SCHEMAS: [(&str, &str, &str); 3] = [
    (
        "data/export-1.json",
        "JSON Schema of uffd-conform.json.",
        include_str!("../../../results/schema/export-1.json"),
    ),
    (
        "data/record-2.json",
        "JSON Schema of a record, a kernel's whole answer.",
        include_str!("../../../results/schema/record-2.json"),
    ),
    (
        "data/run-2.json",
        "JSON Schema of a line of `uffd-conform run --format jsonl`.",
        include_str!("../../../results/schema/run-2.json"),
    ),
];

/// The files.
pub(super) fn files(known: &Known) -> Result<Vec<File>> {
    let all = Selection::new(Vec::new(), &known.data)?;
    let small = Selection::new(export::found(&SMALL, &known.data), &known.data)?;
    let mut files = vec![
        File {
            path: "data/uffd-conform.json",
            says: "Everything: kernels, statements, what each case showed on each kernel, contracts with their verdicts.",
            text: export::json(known, &all).to_string() + "\n",
        },
        File {
            path: "data/uffd-conform.csv",
            says: "A line a case, fact and run of kernels that agree.",
            text: export::csv(&known.data, &all),
        },
        File {
            path: "data/uffd_conform.h",
            says: "A C99 header with what migration code asks most, and a lookup by release string; it needs nothing beside it.",
            text: export::c_header(&known.data, &small)?,
        },
        File {
            path: "data/uffd_conform.rs",
            says: "The same as a Rust module that needs core only.",
            text: export::rust(&known.data, &small)?,
        },
    ];
    files.extend(SCHEMAS.map(|(path, says, text)| File { path, says, text: text.to_owned() }));
    Ok(files)
}

/// The page.
pub(super) fn page(world: &World<'_>, files: &[File]) -> Page {
    let here = Here::at(PATH);
    let body = html! {
        p { "What " (super::words::count(world.kernels().len(), "kernel")) " answered, for programs. Formats, and what is promised of "
            "them, are in " code { "docs/formats.md" } " of the repository; selections of your own: "
            code { "uffd-conform export --only FILTER" } "." }
        div.wide tabindex="0" role="region" aria-label="Files" {
            table {
                thead { tr { @for name in ["File", "Size", "What it is"] { th scope="col" { (name) } } } }
                tbody { @for file in files {
                    tr {
                        th scope="row" { a href=(here.to(file.path)) download { (file.path.trim_start_matches("data/")) } }
                        td { (size(file.text.len())) }
                        td.text { (file.says) }
                    }
                } }
            }
        }
        h2 #library { "As a library" }
        p { "The Rust crate " code { "uffd-results" } " has all of it built in, makes no system call and has no unsafe code." }
    };
    Page {
        path: PATH.to_owned(),
        title: "Downloads".to_owned(),
        kind: Kind::Page,
        summary: "The recorded facts as JSON, CSV, a C header and a Rust module, with schemas."
            .to_owned(),
        words: "export data json csv header schema library".to_owned(),
        scripts: &[],
        body,
    }
}

/// A number of bytes for people.
fn size(bytes: usize) -> String {
    let tenths = bytes / 100_000;
    if tenths < 10 {
        format!("{} kB", bytes.div_ceil(1000))
    } else {
        format!("{}.{} MB", tenths / 10, tenths % 10)
    }
}
