//! Any point of the grid by its axes: which recorded cases are meant, what they showed, and what that
//! means in plain words.
//!
//! Belongs here: from words to cases (`words`, `choose`), from cases to what kernels said of them
//! (`gather`), from facts to sentences (`say`), and what sentences have in common (`compare`). Pure, but for the lists of cases; how it is
//! printed stands in `cli::ask`.

pub(crate) mod choose;
pub(crate) mod compare;
pub(crate) mod gather;
pub(crate) mod say;
pub(crate) mod words;

use uffd_suites::probe::{Ask, Case};

/// A case of the suite with the values of its axes.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The case.
    pub(crate) case: Case,
    /// Its id.
    pub(crate) id: String,
    /// Its axes: of a point of the grid all of them, with its change, operation and mode; of a trial its own,
    /// with its probe, since what decides may be which of two questions was asked.
    axes: Vec<(String, String)>,
}

impl Asked {
    /// A case with its axes.
    pub(crate) fn new(case: Case) -> Self {
        let mut axes = Vec::new();
        if let Ask::Point(point) | Ask::Claim(point, _) = &case.ask {
            let own = [
                ("op", words::operation(point.op)),
                ("mode", point.mode.word()),
                ("change", point.change.name()),
            ];
            axes.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        } else {
            axes.push(("probe".to_owned(), case.probe.to_string()));
        }
        let rest = case.axes();
        let rest = rest.split(',').filter_map(|axis| axis.split_once('='));
        axes.extend(rest.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { case, id: case.id(), axes }
    }

    /// The value of an axis.
    pub(crate) fn axis(&self, name: &str) -> Option<&str> {
        self.axes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is a point of the grid, whose facts have one meaning each.
    pub(crate) const fn is_point(&self) -> bool {
        matches!(self.case.ask, Ask::Point(_) | Ask::Claim(..))
    }

    /// All axes with their values.
    pub(crate) fn axes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.axes.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Each word once, in the order in which they come.
pub(crate) fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = Vec::new();
    for word in words {
        if !known.contains(&word) {
            known.push(word);
        }
    }
    known
}
