//! Facts in plain words.
//!
//! Belongs here: the sentence for each fact of a point of the grid. Facts of trials have as many
//! meanings as there are trials; they are told by name.

use super::gather::{LENGTH, Seen};
use uffd_results::End;

/// What is said of one part of what a case showed; equal keys of two cases can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Which part.
    pub(crate) key: String,
    /// A sentence.
    pub(crate) text: String,
    /// Whether it stands in a line of its own.
    pub(crate) is_line: bool,
}

/// The operations of the grid as the facts name them, with their ioctls.
const IOCTLS: [(&str, &str); 8] = [
    ("copy", "UFFDIO_COPY"),
    ("zeropage", "UFFDIO_ZEROPAGE"),
    ("continue", "UFFDIO_CONTINUE"),
    ("writeprotect", "UFFDIO_WRITEPROTECT"),
    ("poison", "UFFDIO_POISON"),
    ("move", "UFFDIO_MOVE"),
    ("unregister", "UFFDIO_UNREGISTER"),
    ("wake", "UFFDIO_WAKE"),
];

/// Who waits, in a word: of cases with several kinds of waiters `waiter`.
pub(crate) fn subject<'a>(mut waiters: impl Iterator<Item = Option<&'a str>>) -> &'static str {
    let is_vcpu = |waiter: Option<&str>| waiter.is_some_and(|w| w.starts_with("vcpu-"));
    let Some(first) = waiters.next().map(is_vcpu) else { return "waiter" };
    match (first, waiters.all(|waiter| is_vcpu(waiter) == first)) {
        (true, true) => "vCPU",
        (false, true) => "thread",
        _ => "waiter",
    }
}

/// What a case showed, in sentences.
pub(crate) fn clauses(seen: &Seen, is_point: bool, subject: &str) -> Vec<Clause> {
    let mut said = Vec::new();
    let mut say = |key: &str, text: String| {
        said.push(Clause { key: key.to_owned(), text, is_line: is_point });
    };
    if seen.end != End::Done {
        say("end", ended(seen));
    }
    if !is_point {
        for (name, value) in &seen.facts {
            say(name, format!("{name}={value}"));
        }
        return said;
    }
    if let Some(errno) = seen.fact("change").filter(|rc| *rc != "0") {
        say("change", format!("The change itself fails with {errno}."));
    }
    for (fact, ioctl) in IOCTLS {
        if let Some(rc) = seen.fact(fact) {
            say("op", format!("{}{}.", returned(ioctl, rc), field(seen.fact("field"))));
        }
    }
    if let Some(fate) = seen.fact("waiter") {
        say("waiter", waiter(fate, subject));
    }
    if let (Some(rc), Some(fate)) = (seen.fact("rescue"), seen.fact("rescued")) {
        match fate {
            "again" => {
                // What removes a write protection is told below, as a fact.
                let fill = match seen.fact("unprotected") {
                    None => format!(
                        " To free the {subject}: fill the page, by UFFDIO_COPY of its data, or by \
                         UFFDIO_CONTINUE where minor faults are handled."
                    ),
                    Some(_) => String::new(),
                };
                say(
                    "rescue",
                    format!(
                        "UFFDIO_WAKE of its page wakes the {subject}, but does not free it: its page is \
                             still registered, so it faults again and waits with a new message.{fill}"
                    ),
                );
            }
            "asleep" => {
                say("rescue", format!("UFFDIO_WAKE of its page does not wake the {subject}."));
            }
            _ => {
                let rc = if rc == "0" {
                    "it returns 0".to_owned()
                } else {
                    format!("it fails with {rc}")
                };
                say(
                    "rescue",
                    format!(
                        "To free the {subject}: UFFDIO_WAKE of its page, at the address where it \
                         waits ({rc})."
                    ),
                );
                say("rescued", format!("After that the {subject} {}.", fate_of(fate, subject)));
            }
        }
    }
    if let Some(fate) = seen.fact("unprotected") {
        say(
            "unprotect",
            format!(
                "To free the {subject}: UFFDIO_WRITEPROTECT of its page without MODE_WP; then it \
                     {}.",
                fate_of(fate, subject)
            ),
        );
    }
    if let Some(fate) = seen.fact("closed") {
        say("closed", closed(fate, subject));
    }
    said
}

fn ended(seen: &Seen) -> String {
    let Seen { end, detail, .. } = seen;
    match end {
        End::Unsupported => format!("The kernel lacks it: {detail}."),
        End::Hang => format!("It hangs: {detail}."),
        End::Killed => format!("The process is killed: {detail}."),
        End::Panic => format!("The kernel goes down: {detail}."),
        _ => format!("It ends with {}: {detail}.", end.word()),
    }
}

fn returned(ioctl: &str, rc: &str) -> String {
    if rc == "0" { format!("{ioctl} returns 0") } else { format!("{ioctl} fails with {rc}") }
}

fn field(value: Option<&str>) -> String {
    match value {
        None => String::new(),
        Some("untouched") => "; its result field stays as it was".to_owned(),
        Some(LENGTH) => "; its result field holds the length".to_owned(),
        Some(value) => format!("; its result field holds {value}"),
    }
}

fn waiter(fate: &str, subject: &str) -> String {
    match fate {
        "asleep" => format!("The {subject} stays asleep: nothing has woken it."),
        "again" => format!(
            "The {subject} is woken, faults again on the same page and waits with a new message."
        ),
        fate => format!("The {subject} is woken and {}.", fate_of(fate, subject)),
    }
}

/// What the last close does for one who waits.
fn closed(fate: &str, subject: &str) -> String {
    let then = fate_of(fate, subject);
    if fate == "spins" {
        return format!(
            "Do not give up the context before UFFDIO_WRITEPROTECT without MODE_WP: after its last close the \
             {subject} {then}."
        );
    }
    let all = if fate == "ran:zero" { ", as does whoever meets a page not yet filled" } else { "" };
    format!(
        "Only if the context is to be given up: its last close frees the {subject} as well, which then {then}{all}."
    )
}

/// What an access does in the end, as what follows `the thread`.
fn fate_of(fate: &str, subject: &str) -> String {
    let call = if subject == "vCPU" { "KVM_RUN" } else { "system call" };
    match fate {
        "ran" => "goes on, its access done".to_owned(),
        "ran:zero" => "goes on and reads zeros".to_owned(),
        "ran:kept" => "goes on and reads what the page held before".to_owned(),
        "ran:copied" => "goes on and reads the copied data".to_owned(),
        "ran:new" => "goes on and reads the data of what is there now".to_owned(),
        "asleep" => "stays asleep".to_owned(),
        "again" => "faults again and waits with a new message".to_owned(),
        "spins" => "faults for ever at its page and keeps a CPU busy".to_owned(),
        "SEGV_MAPERR" => "gets SIGSEGV (SEGV_MAPERR: nothing is mapped there)".to_owned(),
        "SEGV_ACCERR" => "gets SIGSEGV (SEGV_ACCERR: the mapping forbids it)".to_owned(),
        signal if signal.starts_with("BUS_") => format!("gets SIGBUS ({signal})"),
        exit if exit.starts_with("exit:") => {
            format!("leaves KVM_RUN with exit reason {}", exit.trim_start_matches("exit:"))
        }
        errno if errno.starts_with('E') => format!("has its {call} fail with {errno}"),
        other => format!("ends with {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seen(facts: &[(&str, &str)]) -> Seen {
        let facts = facts.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Seen { end: End::Done, detail: String::new(), facts }
    }

    #[rstest]
    #[case(
        &[("copy", "ENOENT"), ("field", "-2"), ("waiter", "asleep"), ("rescue", "0"), ("rescued", "ran:zero")],
        &["fails with ENOENT; its result field holds -2", "vCPU stays asleep", "UFFDIO_WAKE", "reads zeros"]
    )]
    #[case(
        &[("zeropage", "EINVAL"), ("waiter", "asleep"), ("rescue", "0"), ("rescued", "again"), ("closed", "ran")],
        &["but does not free it", "fill the page, by UFFDIO_COPY", "its last close"]
    )]
    #[case(
        &[("rescue", "0"), ("rescued", "again"), ("unprotected", "ran"), ("closed", "ran:zero")],
        &["UFFDIO_WRITEPROTECT of its page without MODE_WP", "reads zeros, as does whoever"]
    )]
    #[case(&[("closed", "spins")], &["Do not give up the context before", "faults for ever at its page"])]
    #[case(&[("unregister", "0"), ("waiter", "EFAULT")], &["returns 0", "KVM_RUN fail with EFAULT"])]
    #[case(&[("change", "EINVAL")], &["The change itself fails with EINVAL"])]
    fn facts_become_sentences(#[case] facts: &[(&str, &str)], #[case] words: &[&str]) {
        let said = clauses(&seen(facts), true, "vCPU");
        let text: Vec<&str> = said.iter().map(|clause| clause.text.as_str()).collect();
        let text = text.join(" ");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }

    #[rstest]
    #[case(&["vcpu-read", "vcpu-write"], "vCPU")]
    #[case(&["user-read", "mlock"], "thread")]
    #[case(&["user-read", "vcpu-read"], "waiter")]
    #[case(&[], "waiter")]
    fn subjects(#[case] waiters: &[&str], #[case] expected: &str) {
        assert_eq!(subject(waiters.iter().copied().map(Some)), expected);
    }
}
