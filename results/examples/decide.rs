//! Decides by `uname -r`: `cargo run -p uffd-results --example decide -- "$(uname -r)"`.
use uffd_results::{Dataset, Release, ReleaseError};

/// A thread waits in a page of a block; other memory is mapped over that page; UNREGISTER of the block.
const REPLACED: &str =
    "unregister/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]";
/// COPY while an event of the userfaultfd is unread, which fails with EAGAIN.
const UNREAD: &str = "copy/event-unread[backing=anon]";

pub(crate) fn decide(release: &str) -> Result<String, ReleaseError> {
    let release = Release::parse(release)?;
    let mut text = String::new();
    for (what, case, fact) in
        [("waiter after UNREGISTER", REPLACED, "waiter"), ("field on EAGAIN", UNREAD, "field")]
    {
        let answer = Dataset::recorded().fact(case, fact, &release);
        let why = answer.why.map(|why| format!(": {why}")).unwrap_or_default();
        let value = answer.value.unwrap_or("unknown");
        text += &format!("{what}: {value} ({}{why})\n", answer.certainty);
    }
    Ok(text)
}

fn main() -> Result<(), ReleaseError> {
    print!("{}", decide(&std::env::args().nth(1).unwrap_or_default())?);
    Ok(())
}
