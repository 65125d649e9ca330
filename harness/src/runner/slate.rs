//! A page that a case's process shares with its runner: what the case says outlives its death.
//!
//! The case appends lines; the runner reads them when the process has ended or was ended.

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use uffd_results::{End, Facts, Outcome};
use uffd_suites::outcome::Sink;

/// Size of the shared memory, in bytes: many times what a case says.
const SIZE: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();
/// Bytes before the text: its length.
const HEAD: usize = 8;

/// The shared page.
#[derive(Debug)]
pub(crate) struct Slate(NonNull<u8>);

impl Slate {
    /// A new empty one, to be shared with children that are forked later.
    pub(crate) fn new() -> nix::Result<Self> {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let at = unsafe { mmap_anonymous(None, SIZE, prot, MapFlags::MAP_SHARED)? };
        Ok(Self(at.cast()))
    }

    fn len(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins with the length, is aligned to a page and never unmapped.
        unsafe { self.0.cast::<AtomicU32>().as_ref() }
    }

    /// Forgets what was said.
    pub(crate) fn clear(&self) {
        self.len().store(0, Ordering::Release);
    }

    fn say(&self, kind: char, what: &str) {
        let line = format!("{kind}{}\n", what.replace('\n', " "));
        let bytes = line.as_bytes();
        let used = self.len().load(Ordering::Relaxed);
        let at = HEAD + used as usize;
        if at + line.len() > SIZE.get() {
            return;
        }
        // SAFETY: within the mapping; only the case writes, and the runner reads no byte beyond
        // the length, which is stored afterwards.
        unsafe {
            self.0.add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        };
        self.len().store(used + u32::try_from(line.len()).unwrap_or(0), Ordering::Release);
    }

    /// Says how the case ended; the last thing that it does.
    pub(crate) fn end(&self, end: End, detail: &str) {
        self.say('e', &format!("{} {detail}", end.word()));
    }

    /// What was said: the facts, the step begun last, and the end if the case came to one.
    pub(crate) fn read(&self) -> Said {
        let len = (self.len().load(Ordering::Acquire) as usize).min(SIZE.get() - HEAD);
        // SAFETY: within the mapping, and written before the length was.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.add(HEAD).as_ptr(), len) };
        let mut said = Said::default();
        let mut facts = Vec::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split_at_checked(1) {
                Some(("f", fact)) => facts.push(fact.to_owned()),
                Some(("s", step)) => step.clone_into(&mut said.step),
                Some(("e", end)) => {
                    let (word, detail) = end.split_once(' ').unwrap_or((end, ""));
                    said.end = End::from_word(word).map(|end| (end, detail.to_owned()));
                }
                _ => {}
            }
        }
        match Facts::parse(&facts.join(" ")) {
            Ok(facts) => said.facts = facts,
            Err(e) => said.end = Some((End::Broken, format!("the case's facts: {e}"))),
        }
        said
    }
}

impl Sink for &Slate {
    fn fact(&mut self, name: &'static str, value: &str) {
        self.say('f', &format!("{name}={value}"));
    }

    fn step(&mut self, name: &'static str) {
        self.say('s', name);
    }
}

/// What a case has said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) facts: Facts,
    pub(crate) step: String,
    pub(crate) end: Option<(End, String)>,
}

impl Said {
    /// The outcome of a case that came to its own end; `otherwise` of one that did not.
    pub(crate) fn outcome(self, otherwise: impl FnOnce(&str) -> (End, String)) -> Outcome {
        let Self { facts, step, end } = self;
        match end {
            Some((End::Done, _)) => Outcome::done(facts),
            Some((end, detail)) => Outcome::ended(end, detail, facts),
            None => {
                let (end, detail) = otherwise(&step);
                Outcome::ended(end, detail, facts)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let slate = Slate::new().expect("slate");
        let mut sink = &slate;
        sink.step("copy");
        sink.fact("copy", "ENOENT");
        let said = slate.read();
        assert_eq!((said.step.as_str(), said.facts.to_string()), ("copy", "copy=ENOENT".into()));
        let outcome = said.outcome(|step| (End::Hang, format!("during {step}")));
        assert_eq!(outcome.to_string(), "hang (during copy) after copy=ENOENT");
        slate.end(End::Done, "");
        assert_eq!(slate.read().outcome(|_| (End::Hang, String::new())).end, End::Done);
        slate.clear();
        assert!(slate.read().facts.is_empty());
    }

    #[test]
    fn facts_that_are_none_break_the_case() {
        let slate = Slate::new().expect("slate");
        let mut sink = &slate;
        sink.fact("copy", "0 0");
        slate.end(End::Done, "");
        assert_eq!(slate.read().outcome(|_| unreachable!()).end, End::Broken);
    }
}
