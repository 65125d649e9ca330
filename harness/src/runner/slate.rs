//! A page that a case's process shares with its runner: what the case says outlives its death.
//!
//! The case appends lines; the runner reads them when the process has ended or was ended.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use uffd_results::{End, Facts, Outcome};
use uffd_suites::outcome::Sink;
use uffd_suites::stage::NOTES;

/// Bytes before the text: its length.
const HEAD: usize = 8;

/// The shared memory.
#[derive(Debug)]
pub(crate) struct Slate(*mut AtomicU32);

impl Slate {
    /// An empty one in the stage's notes, of which a stage has one.
    ///
    /// # Safety
    /// At `notes` lie [`NOTES`] bytes for as long as the process lives, zero at first, and aligned to a
    /// word; nobody else in this process uses them.
    pub(crate) unsafe fn new(notes: usize) -> Self {
        Self(ptr::with_exposed_provenance_mut(notes))
    }

    fn len(&self) -> &AtomicU32 {
        // SAFETY: the memory begins with the length, is aligned to a word and never unmapped.
        unsafe { &*self.0 }
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
        if at + line.len() > NOTES {
            return;
        }
        // SAFETY: within the mapping; only the case writes, and the runner reads no byte beyond
        // the length, which is stored afterwards.
        unsafe {
            self.0.byte_add(at).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        };
        self.len().store(used + u32::try_from(line.len()).unwrap_or(0), Ordering::Release);
    }

    /// Says how the case ended; the last thing that it does.
    pub(crate) fn end(&self, end: End, detail: &str) {
        self.say('e', &format!("{} {detail}", end.word()));
    }

    /// What was said: the facts, the step begun last, and the end if the case came to one.
    pub(crate) fn read(&self) -> Said {
        let len = (self.len().load(Ordering::Acquire) as usize).min(NOTES - HEAD);
        // SAFETY: within the mapping, and written before the length was.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.byte_add(HEAD).cast::<u8>(), len) };
        let mut said = Said::default();
        let mut facts = Vec::new();
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split_at_checked(1) {
                Some(("f", fact)) => facts.push(fact.to_owned()),
                Some(("s", step)) => step.clone_into(&mut said.step),
                Some(("d", _)) => said.disturbed = true,
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

    fn disturbed(&mut self) {
        self.say('d', "");
    }
}

/// What a case has said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) facts: Facts,
    pub(crate) step: String,
    pub(crate) end: Option<(End, String)>,
    /// Whether somebody else has changed what the case saw.
    pub(crate) disturbed: bool,
}

impl Said {
    /// The outcome of a case that came to its own end; `otherwise` of one that did not.
    pub(crate) fn outcome(self, otherwise: impl FnOnce(&str) -> (End, String)) -> Outcome {
        let Self { facts, step, end, .. } = self;
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

    fn slate() -> Slate {
        let notes = vec![0_u64; NOTES / 8].leak();
        // SAFETY: memory that is never given back, aligned enough for the length.
        unsafe { Slate::new(notes.as_mut_ptr().expose_provenance()) }
    }

    #[test]
    fn what_is_said_is_read() {
        let slate = slate();
        let mut sink = &slate;
        sink.step("copy");
        sink.fact("copy", "ENOENT");
        assert!(!slate.read().disturbed);
        sink.disturbed();
        let said = slate.read();
        assert!(said.disturbed);
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
        let slate = slate();
        let mut sink = &slate;
        sink.fact("copy", "0 0");
        slate.end(End::Done, "");
        assert_eq!(slate.read().outcome(|_| unreachable!()).end, End::Broken);
    }
}
