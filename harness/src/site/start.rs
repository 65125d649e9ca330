//! The start page.

use super::links::Here;
use super::page::{Kind, Page};
use super::world::World;
use maud::html;

/// The page.
pub(super) fn page(world: &World<'_>) -> Page {
    let here = Here::at("index.html");
    let body = html! {
        p { "What " (world.kernels().len()) " kernels did." }
        p { a href=(here.to("matrix.html")) { "Matrix" } }
    };
    Page {
        path: "index.html".to_owned(),
        title: "What Linux does to userfaultfd when memory mappings change".to_owned(),
        kind: Kind::Page,
        summary: "Asked of every kernel, recorded, published.".to_owned(),
        words: String::new(),
        scripts: &[],
        body,
    }
}
