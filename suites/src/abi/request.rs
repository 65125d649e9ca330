//! Ioctls as data: one type for those that concern a range, issued from a struct of ours or from
//! one that lies in memory of the arena, where reading or writing it can fault.

use super::newer::{UFFDIO_MOVE, UFFDIO_POISON};
use super::{Field, Range, Rc, SENTINEL, Uffd, WRITEPROTECT_MODE_WP};
use std::fmt;
use userfaultfd_sys as sys;

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

    /// The word used in case ids.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Zeropage => "zeropage",
            Self::Continue => "continue",
            Self::Protect => "protect",
            Self::Unprotect => "unprotect",
            Self::Poison => "poison",
            Self::Move => "move",
            Self::Wake => "wake",
            Self::Register => "register",
            Self::Unregister => "unregister",
        }
    }

    /// Issues it for `at`; COPY and MOVE take their pages from `source`.
    pub fn issue(self, uffd: &Uffd, at: Range, source: usize) -> (Rc, Option<Field>) {
        let mut words = self.words(at, source);
        let rc = match self {
            Self::Wake | Self::Unregister => uffd.ioctl(self.number(), first::<2>(&mut words)),
            Self::Protect | Self::Unprotect => uffd.ioctl(self.number(), first::<3>(&mut words)),
            Self::Copy | Self::Move => uffd.ioctl(self.number(), first::<5>(&mut words)),
            _ => uffd.ioctl(self.number(), first::<4>(&mut words)),
        };
        (rc, self.result_word().map(|n| Field(words[n].cast_signed())))
    }

    /// The ioctl's number.
    pub fn number(self) -> u64 {
        match self {
            Self::Copy => sys::UFFDIO_COPY.into(),
            Self::Zeropage => sys::UFFDIO_ZEROPAGE.into(),
            Self::Continue => sys::UFFDIO_CONTINUE.into(),
            Self::Protect | Self::Unprotect => sys::UFFDIO_WRITEPROTECT.into(),
            Self::Poison => UFFDIO_POISON,
            Self::Move => UFFDIO_MOVE,
            Self::Wake => sys::UFFDIO_WAKE.into(),
            Self::Register => sys::UFFDIO_REGISTER.into(),
            Self::Unregister => sys::UFFDIO_UNREGISTER.into(),
        }
    }

    /// Its struct as words, with the sentinel in the result field; the rest is zero.
    pub fn words(self, at: Range, source: usize) -> [u64; 5] {
        let (start, len, source) = (at.start as u64, at.len as u64, source as u64);
        let unseen = SENTINEL.cast_unsigned();
        match self {
            Self::Copy | Self::Move => [start, source, len, 0, unseen],
            Self::Zeropage | Self::Continue | Self::Poison => [start, len, 0, unseen, 0],
            Self::Protect => [start, len, WRITEPROTECT_MODE_WP, 0, 0],
            Self::Register => [start, len, super::REGISTER_MODE_MISSING, unseen, 0],
            Self::Unprotect | Self::Wake | Self::Unregister => [start, len, 0, 0, 0],
        }
    }

    /// Which word is the signed result field.
    pub const fn result_word(self) -> Option<usize> {
        match self {
            Self::Copy | Self::Move => Some(4),
            Self::Zeropage | Self::Continue | Self::Poison => Some(3),
            _ => None,
        }
    }
}

/// The first words, as many as the ioctl's struct has.
fn first<const N: usize>(words: &mut [u64; 5]) -> &mut [u64; N] {
    words.first_chunk_mut().unwrap_or_else(|| unreachable!("no struct is longer"))
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
    fn a_struct_is_as_long_as_the_number_says() {
        for request in Request::ALL {
            let size = request.number() >> 16 & 0x3fff;
            let words = match request {
                Request::Wake | Request::Unregister => 2,
                Request::Protect | Request::Unprotect => 3,
                Request::Copy | Request::Move => 5,
                _ => 4,
            };
            assert_eq!(size, words * 8, "{request}");
        }
    }
}
