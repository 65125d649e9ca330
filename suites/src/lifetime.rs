//! The suite `lifetime`: fork, exec and exit of the process, and ioctls on its memory afterwards.

mod core_dump;
pub(crate) mod dead;
mod followed;
mod fork;
mod killed;
mod last;
mod outlived;
mod shared;

use crate::point::{Backing, Mode};
use crate::probe::Case;
use crate::stage::Stage;
use crate::touch;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let groups: [fn() -> Vec<Case>; 8] = [
        fork::cases,
        shared::cases,
        followed::cases,
        last::cases,
        killed::cases,
        dead::cases,
        outlived::cases,
        core_dump::cases,
    ];
    groups.iter().flat_map(|cases| cases()).collect()
}

/// Memory that a child inherits, and what it is registered for.
const INHERITED: [(Backing, Mode); 6] = [
    (Backing::Anon, Mode::Missing),
    (Backing::Shmem, Mode::Missing),
    (Backing::Private, Mode::Missing),
    (Backing::SharedAnon, Mode::Missing),
    (Backing::Anon, Mode::Wp),
    (Backing::Shmem, Mode::Wp),
];

/// Stores a value in a page, or loads from it: how that ended.
fn touched(stage: &Stage, page: usize, store: Option<u64>) -> String {
    let done = match store {
        Some(value) => touch::store(page, value).map(|()| "ran".to_owned()),
        None => touch::load(page)
            .map(|value| format!("ran:{}", crate::waiter::content(stage.tag(value)))),
    };
    done.unwrap_or_else(|signal| signal.to_string())
}
