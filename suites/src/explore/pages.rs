//! Pages of the arena as steps name them: a letter and numbers, `a2..4`, or `a2` for one page.

use crate::abi::Range;
use crate::memory::{BLOCK, ELSEWHERE, OTHER, PAGE};
use std::fmt;
use std::str::FromStr;

/// Pages of a place that steps can name.
pub(super) const WIDTH: u8 = 8;

/// Where memory can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `a`, where most happens.
    A,
    /// `b`, the first one to move to.
    B,
    /// `c`, one more.
    C,
}

impl Place {
    /// Every place, in the order of addresses.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
            Self::C => 'c',
        }
    }

    const fn base(self) -> usize {
        match self {
            Self::A => BLOCK,
            Self::B => ELSEWHERE,
            Self::C => OTHER,
        }
    }

    /// All of its addresses that steps can name.
    pub(super) const fn window(self) -> Range {
        Range { start: self.base(), len: WIDTH as usize * PAGE }
    }
}

/// Some pages in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pages {
    /// Where.
    pub place: Place,
    /// The first page's number.
    pub first: u8,
    /// How many.
    pub count: u8,
}

impl Pages {
    /// `count` pages from `first` on.
    pub(super) const fn new(place: Place, first: u8, count: u8) -> Self {
        Self { place, first, count }
    }

    /// The number of the first page behind.
    pub(super) const fn end(self) -> u8 {
        self.first + self.count
    }

    /// Its addresses.
    pub(super) const fn range(self) -> Range {
        let start = self.place.base() + self.first as usize * PAGE;
        Range { start, len: self.count as usize * PAGE }
    }

    /// As many pages elsewhere.
    pub(super) const fn at(self, place: Place, first: u8) -> Self {
        Self { place, first, count: self.count }
    }

    /// Whether two have a page in common.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.place == other.place && self.first < other.end() && other.first < self.end()
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(self) -> Option<String> {
        let outside = self.count == 0 || self.first >= WIDTH || self.end() > WIDTH;
        outside.then(|| format!("{self} is not among the {WIDTH} pages of a place"))
    }

    /// The pages of addresses: `a2..4`, or the addresses themselves if they are no place's.
    pub(super) fn name(start: usize, end: usize) -> String {
        for place in Place::ALL {
            let window = place.window();
            // What is unmapped may reach further than any step does.
            if (window.start..window.end()).contains(&start) {
                let number = |at: usize| (at - window.start) / PAGE;
                let (first, last) = (number(start), number(end.max(start)));
                let letter = place.letter();
                return if last == first + 1 {
                    format!("{letter}{first}")
                } else {
                    format!("{letter}{first}..{last}")
                };
            }
        }
        format!("{start:#x}..{end:#x}")
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, first, count } = self;
        write!(f, "{}{first}", place.letter())?;
        if *count == 1 {
            Ok(())
        } else {
            write!(f, "..{}", usize::from(*first) + usize::from(*count))
        }
    }
}

impl FromStr for Pages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} names no pages: a2, b0..6");
        let letter = text.chars().next().ok_or_else(fault)?;
        let place = Place::ALL.into_iter().find(|p| p.letter() == letter).ok_or_else(fault)?;
        let (first, end) = match text[1..].split_once("..") {
            Some((first, end)) => (first.parse::<u8>(), end.parse::<u8>()),
            None => (text[1..].parse::<u8>(), text[1..].parse::<u8>().map(|n| n.saturating_add(1))),
        };
        let (first, end) = (first.map_err(|_| fault())?, end.map_err(|_| fault())?);
        let pages = Self::new(place, first, end.checked_sub(first).ok_or_else(fault)?);
        pages.fault().map_or(Ok(pages), Err)
    }
}
