//! The ioctls of a range with their usual arguments: a thin layer over [`Command`], issued from a
//! struct of ours or from one that lies in memory of the arena, where reading or writing it can
//! fault. WRITEPROTECT counts twice, with and without MODE_WP.

use super::command::{Command, WORDS};
use super::{Field, REGISTER_MODE_MISSING, Range, Rc, SENTINEL, Uffd, WRITEPROTECT_MODE_WP};
use std::fmt;

/// An ioctl of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `UFFDIO_COPY`.
    Copy,
    /// `UFFDIO_ZEROPAGE`.
    Zeropage,
    /// `UFFDIO_CONTINUE`.
    Continue,
    /// `UFFDIO_WRITEPROTECT` with MODE_WP.
    Protect,
    /// `UFFDIO_WRITEPROTECT` without MODE_WP.
    Unprotect,
    /// `UFFDIO_POISON`.
    Poison,
    /// `UFFDIO_MOVE`.
    Move,
    /// `UFFDIO_WAKE`.
    Wake,
    /// `UFFDIO_REGISTER` for missing pages.
    Register,
    /// `UFFDIO_UNREGISTER`.
    Unregister,
}

impl Request {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::Copy,
        Self::Zeropage,
        Self::Continue,
        Self::Protect,
        Self::Unprotect,
        Self::Poison,
        Self::Move,
        Self::Wake,
        Self::Register,
        Self::Unregister,
    ];

    /// The ioctl that it is.
    pub const fn command(self) -> Command {
        match self {
            Self::Copy => Command::Copy,
            Self::Zeropage => Command::Zeropage,
            Self::Continue => Command::Continue,
            Self::Protect | Self::Unprotect => Command::Writeprotect,
            Self::Poison => Command::Poison,
            Self::Move => Command::Move,
            Self::Wake => Command::Wake,
            Self::Register => Command::Register,
            Self::Unregister => Command::Unregister,
        }
    }

    /// The word used in case ids.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Unprotect => "unprotect",
            _ => self.command().word(),
        }
    }

    /// Issues it for `at`; COPY and MOVE take their pages from `source`.
    pub fn issue(self, uffd: &Uffd, at: Range, source: usize) -> (Rc, Option<Field>) {
        let mut words = self.words(at, source);
        // The kernel reads and writes as much as the number says, which is no more than there is.
        let rc = uffd.ioctl(self.command().request(), &mut words);
        (rc, self.result_word().map(|n| Field(words[n].cast_signed())))
    }

    /// Its struct as words, with the sentinel in the result field; the rest is zero.
    pub fn words(self, at: Range, source: usize) -> [u64; WORDS] {
        let command = self.command();
        let mut words = [0; WORDS];
        words[0] = at.start as u64;
        if let Some(n) = command.length_at() {
            if n == 2 {
                words[1] = source as u64;
            }
            words[n] = at.len as u64;
        }
        if let Some(n) = command.mode_at() {
            words[n] = match self {
                Self::Protect => WRITEPROTECT_MODE_WP,
                Self::Register => REGISTER_MODE_MISSING,
                _ => 0,
            };
        }
        if command.has_result() {
            words[command.words() - 1] = SENTINEL.cast_unsigned();
        }
        words
    }

    /// Which word is the signed result field.
    pub const fn result_word(self) -> Option<usize> {
        let command = self.command();
        // REGISTER has a set of ioctls there.
        if command.has_result() && !matches!(self, Self::Register) {
            Some(command.words() - 1)
        } else {
            None
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{BLOCK, PAGE};

    #[test]
    fn the_result_field_lies_where_the_sentinel_is() {
        let at = Range { start: BLOCK, len: PAGE };
        for request in Request::ALL {
            let words = request.words(at, 0);
            let places: Vec<_> = (0..5).filter(|n| words[*n] == SENTINEL.cast_unsigned()).collect();
            match request.result_word() {
                Some(n) => assert_eq!(places, [n], "{request}"),
                None => assert!(places.is_empty() || *request == Request::Register, "{request}"),
            }
        }
    }

    #[test]
    fn a_range_and_its_modes_lie_where_the_structs_have_them() {
        let at = Range { start: BLOCK, len: PAGE };
        let (start, len) = (at.start as u64, at.len as u64);
        let unseen = SENTINEL.cast_unsigned();
        let words = |request: Request| request.words(at, 7);
        assert_eq!(words(Request::Copy), [start, 7, len, 0, unseen]);
        assert_eq!(words(Request::Move), [start, 7, len, 0, unseen]);
        assert_eq!(words(Request::Poison), [start, len, 0, unseen, 0]);
        assert_eq!(words(Request::Protect), [start, len, WRITEPROTECT_MODE_WP, 0, 0]);
        assert_eq!(words(Request::Unprotect), [start, len, 0, 0, 0]);
        assert_eq!(words(Request::Register), [start, len, REGISTER_MODE_MISSING, unseen, 0]);
        assert_eq!(words(Request::Unregister), [start, len, 0, 0, 0]);
    }
}
