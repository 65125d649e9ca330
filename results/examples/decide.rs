//! Decides by `uname -r`: `cargo run -p uffd-results --example decide -- "$(uname -r)"`.
use uffd_results::{Dataset, Release, ReleaseError};

/// A thread waits in a page of a block; other memory is mapped over that page; UNREGISTER of the block.
const REPLACED: &str =
    "unregister/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]";
/// COPY while an event of the userfaultfd is unread, which fails with EAGAIN.
const UNREAD: &str = "copy/event-unread[backing=anon]";

pub(crate) fn decide(release: &str) -> Result<String, ReleaseError> {
    let release = Release::parse(release)?;
    let look_up = |what, case, fact| {
        let answer = Dataset::recorded().fact(case, fact, &release);
        match (answer.value, answer.why) {
            (None, Some(why)) => format!("{what}: unknown ({why})\n"),
            (value, _) => format!("{what}: {} ({})\n", value.unwrap_or("?"), answer.certainty),
        }
    };
    Ok(look_up("waiter after UNREGISTER", REPLACED, "waiter")
        + &look_up("field on EAGAIN", UNREAD, "field"))
}

fn main() -> Result<(), ReleaseError> {
    print!("{}", decide(&std::env::args().nth(1).unwrap_or_default())?);
    Ok(())
}
