//! The frame around every page: head, navigation, search, foot; and the index that search reads.

use super::links::Here;
use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;

/// What a page is about; its word stands before the title in what search finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One of the few that stand in the navigation.
    Page,
    /// What becomes of a waiter and an operation after a change.
    Answer,
    /// A probe.
    Probe,
    /// A kernel.
    Kernel,
    /// What a program assumes.
    Contract,
    /// What changed between two series.
    Changes,
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// Its path below the site's folder.
    pub(super) path: String,
    /// Its title, without the site's name.
    pub(super) title: String,
    /// What it is about.
    pub(super) kind: Kind,
    /// One sentence: what search shows, and what others show who link to it.
    pub(super) summary: String,
    /// More words by which search finds it.
    pub(super) words: String,
    /// Scripts that it needs beside `site.js`, by path below the site's folder.
    pub(super) scripts: &'static [&'static str],
    /// What stands under its title.
    pub(super) body: Markup,
}

/// The pages of the navigation.
const NAVIGATION: &[(&str, &str)] = &[
    ("index.html", "Start"),
    ("ask.html", "Ask"),
    ("guarantees.html", "Guarantees"),
    ("matrix.html", "Matrix"),
    ("overview.html", "Overview"),
    ("kernels.html", "Kernels"),
    ("changes.html", "Changes"),
    ("contracts.html", "Programs"),
    ("bench.html", "Speed"),
];

impl Page {
    /// Its path, and all of its text.
    pub(super) fn html(self) -> (String, String) {
        let here = Here::at(&self.path);
        let title = if self.path == "index.html" {
            "uffd-conform: what Linux does to userfaultfd when mappings change".to_owned()
        } else {
            format!("{} · uffd-conform", self.title)
        };
        let text = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="description" content=(self.summary);
                    title { (title) }
                    link rel="stylesheet" href=(here.to("site.css"));
                    link rel="icon" href="data:,";
                    script src=(here.to("search-data.js")) defer {}
                    script src=(here.to("site.js")) defer {}
                    @for script in self.scripts {
                        script src=(here.to(script)) defer {}
                    }
                }
                body data-root=(here.to("")) {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        nav aria-label="Site" {
                            ul {
                                @for &(path, name) in NAVIGATION {
                                    li { a href=(here.to(path)) aria-current=[(path == self.path).then_some("page")] { (name) } }
                                }
                            }
                        }
                        form.search role="search" hidden {
                            label for="q" { "Search" }
                            input #q type="search" autocomplete="off" placeholder="press /"
                                aria-controls="found" aria-expanded="false";
                            ul #found hidden {}
                        }
                        button #theme type="button" hidden { "Dark" }
                    }
                    main #main tabindex="-1" {
                        h1 { (self.title) }
                        (self.body)
                    }
                    footer {
                        p {
                            "Made by " code { "uffd-conform publish" } " from recorded runs; nothing here was written by hand "
                            "that a kernel could have answered. Skips are no answers."
                        }
                    }
                }
            }
        };
        (self.path, text.into_string())
    }
}

/// What search reads: a script that holds every page's title, address, sentence and words.
pub(super) fn search_data(pages: &[Page]) -> Result<String> {
    let entries: Vec<_> = pages
        .iter()
        .map(|page| (page.kind, &page.title, &page.path, &page.summary, &page.words))
        .collect();
    data("SEARCH", &entries)
}

/// A script that holds a value and does nothing.
pub(super) fn data(name: &str, value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(value).with_context(|| format!("writing {name}"))?;
    // Of a script that stands in its own file only line ends of JavaScript need care.
    let json = json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    Ok(format!("const {name}={json};\n"))
}
