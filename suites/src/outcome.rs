//! How a case speaks: facts as it sees them, the step it is in, and why it stopped early.

use std::fmt;

/// How often a case is asked in all, as long as somebody else disturbs it: then its outcome stands.
pub const ASKED_AT_MOST: u32 = 5;

/// Where facts and steps go as they happen, so that they outlive a case that hangs or dies.
pub trait Sink {
    /// A fact was seen.
    fn fact(&mut self, name: &'static str, value: &str);
    /// A step begins; named if the case does not come out of it.
    fn step(&mut self, name: &'static str);
    /// Somebody else had his hands on what the case works with.
    fn disturbed(&mut self) {}
}

/// A case's way to speak to its sink.
pub struct Seen<'a>(&'a mut dyn Sink);

impl fmt::Debug for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl<'a> Seen<'a> {
    /// Speaks to `sink`.
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self(sink)
    }

    /// Records a fact; a name at most once a case.
    pub fn fact(&mut self, name: &'static str, value: impl fmt::Display) {
        self.0.fact(name, &value.to_string());
    }

    /// Says what is done next.
    pub fn step(&mut self, name: &'static str) {
        self.0.step(name);
    }

    /// Says that somebody else, such as a daemon of the kernel that looked at a page, has changed what a call
    /// returned: the case is asked again, but not for ever.
    pub fn disturbed(&mut self) {
        self.0.disturbed();
    }
}

/// Why a case could not see all its facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// This kernel lacks the feature.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The caller lacks the permission.
    #[error("denied: {0}")]
    Denied(String),
    /// This machine lacks something.
    #[error("precondition: {0}")]
    Precondition(String),
    /// Something that should have ended did not.
    #[error("hang: {0}")]
    Hang(String),
    /// The case is wrong, or its evidence contradicts itself.
    #[error("broken: {0}")]
    Broken(String),
}

impl Stop {
    /// The end that this stop means, and why.
    pub fn into_end(self) -> (uffd_results::End, String) {
        use uffd_results::End;
        match self {
            Self::Unsupported(why) => (End::Unsupported, why),
            Self::Denied(why) => (End::Denied, why),
            Self::Precondition(why) => (End::Precondition, why),
            Self::Hang(why) => (End::Hang, why),
            Self::Broken(why) => (End::Broken, why),
        }
    }
}
