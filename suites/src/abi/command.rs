//! The ioctls as numbers and words, for cases that pass what no method of [`Uffd`](super::Uffd)
//! would: every argument struct is a row of 64-bit words.

use super::{features, ioc, newer};
use std::fmt;
use userfaultfd_sys as sys;

/// An ioctl of a userfaultfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `UFFDIO_API`: api, features, ioctls.
    Api,
    /// `UFFDIO_REGISTER`: start, length, mode, ioctls.
    Register,
    /// `UFFDIO_UNREGISTER`: start, length.
    Unregister,
    /// `UFFDIO_WAKE`: start, length.
    Wake,
    /// `UFFDIO_COPY`: destination, source, length, mode, result.
    Copy,
    /// `UFFDIO_ZEROPAGE`: start, length, mode, result.
    Zeropage,
    /// `UFFDIO_CONTINUE`: start, length, mode, result.
    Continue,
    /// `UFFDIO_WRITEPROTECT`: start, length, mode.
    Writeprotect,
    /// `UFFDIO_POISON`: start, length, mode, result.
    Poison,
    /// `UFFDIO_MOVE`: destination, source, length, mode, result.
    Move,
    /// `UFFDIO_RWPROTECT`: start, length, mode.
    Rwprotect,
    /// `UFFDIO_SET_MODE`: features to enable, to disable.
    SetMode,
}

/// The most words that an argument has.
pub const WORDS: usize = 5;

impl Command {
    /// Every ioctl, in the order in which cases are listed.
    pub const ALL: &'static [Self] = &[
        Self::Api,
        Self::Register,
        Self::Unregister,
        Self::Wake,
        Self::Copy,
        Self::Zeropage,
        Self::Continue,
        Self::Writeprotect,
        Self::Poison,
        Self::Move,
        Self::Rwprotect,
        Self::SetMode,
    ];

    /// The word used in case ids, and for the fact that has what it returned.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::Wake => "wake",
            Self::Copy => "copy",
            Self::Zeropage => "zeropage",
            Self::Continue => "continue",
            Self::Writeprotect => "writeprotect",
            Self::Poison => "poison",
            Self::Move => "move",
            Self::Rwprotect => "rwprotect",
            Self::SetMode => "set-mode",
        }
    }

    /// Its number.
    pub const fn request(self) -> u64 {
        match self {
            Self::Api => sys::UFFDIO_API as u64,
            Self::Register => sys::UFFDIO_REGISTER as u64,
            Self::Unregister => sys::UFFDIO_UNREGISTER as u64,
            Self::Wake => sys::UFFDIO_WAKE as u64,
            Self::Copy => sys::UFFDIO_COPY as u64,
            Self::Zeropage => sys::UFFDIO_ZEROPAGE as u64,
            Self::Continue => sys::UFFDIO_CONTINUE as u64,
            Self::Writeprotect => sys::UFFDIO_WRITEPROTECT as u64,
            Self::Poison => newer::UFFDIO_POISON,
            Self::Move => newer::UFFDIO_MOVE,
            Self::Rwprotect => newer::UFFDIO_RWPROTECT,
            Self::SetMode => newer::UFFDIO_SET_MODE,
        }
    }

    /// Words of its argument.
    pub const fn words(self) -> usize {
        (self.request() >> 16 & 0x3fff) as usize / 8
    }

    /// Where its argument has the length of a range; a start stands at 0.
    pub const fn length_at(self) -> Option<usize> {
        match self {
            Self::Api | Self::SetMode => None,
            Self::Copy | Self::Move => Some(2),
            _ => Some(1),
        }
    }

    /// Where its argument has mode bits.
    pub const fn mode_at(self) -> Option<usize> {
        match self {
            Self::Api | Self::SetMode | Self::Unregister | Self::Wake => None,
            Self::Copy | Self::Move => Some(3),
            _ => Some(2),
        }
    }

    /// Whether its last word is only written by the kernel.
    pub const fn has_result(self) -> bool {
        matches!(
            self,
            Self::Register
                | Self::Copy
                | Self::Zeropage
                | Self::Continue
                | Self::Poison
                | Self::Move
        )
    }

    /// A feature that tells a kernel that has it; 0 where the kernel has none.
    pub const fn needs(self) -> u64 {
        match self {
            Self::Poison => features::POISON,
            Self::Move => features::MOVE,
            Self::Rwprotect | Self::SetMode => features::RWP,
            _ => 0,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An ioctl number of userfaultfd's type with these parts: direction (1 writes, 2 reads), number,
/// and size of the argument in bytes.
pub const fn number(direction: u64, nr: u64, size: usize) -> u64 {
    ioc(direction, nr, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_structs() {
        let words: Vec<usize> = Command::ALL.iter().map(|c| c.words()).collect();
        assert_eq!(words, [3, 4, 2, 2, 5, 4, 4, 3, 4, 5, 3, 2]);
        assert!(words.iter().all(|n| *n <= WORDS));
    }
}
