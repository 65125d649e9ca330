//! What the two words of `diff` name.

use crate::ask::distinct;
use crate::ask::words::meant;
use crate::cli::told;
use crate::cli::which::Which;
use crate::diff::Side;
use crate::known;
use crate::store::{self, Store, StoreError};
use anyhow::{Context, Result, bail};
use std::path::Path;
use uffd_results::{Case, Certainty, Dataset, Recorded, printable};

/// Two kernels and what holds their answers.
pub(super) struct Sides {
    /// What is recorded, if one of the two names a kernel of it.
    recorded: Option<Dataset>,
    /// The files among the two.
    files: [Option<Dataset>; 2],
    /// The places of the recorded ones.
    places: [usize; 2],
}

/// Two labels and what they stand for.
type Pair<'d> = ([String; 2], (Side<'d>, Side<'d>));

fn is_folder(name: &str) -> String {
    format!("{} is a folder: `diff --folders A B` compares two of them", printable(name))
}

impl Sides {
    pub(super) fn find(a: &str, b: &str, store: &Store) -> Result<Self> {
        let file = |name: &str| -> Result<Option<Dataset>> {
            let path = Path::new(name);
            if !name.contains('/') && !path.is_file() {
                return Ok(None);
            }
            if path.is_dir() {
                bail!(is_folder(name));
            }
            let (record, _) = store::read_foreign(path)?;
            let records = [record];
            told::of(&records, name);
            known::whole_dataset(&records).map(Some).with_context(|| printable(name))
        };
        let files = [file(a)?, file(b)?];
        let recorded = match &files {
            [Some(_), Some(_)] => None,
            _ => Some(recorded(store)?),
        };
        let mut places = [0, 0];
        for (n, name) in [a, b].into_iter().enumerate() {
            if let (None, Some(data)) = (&files[n], &recorded) {
                let found = place(data, Some(name));
                // A folder may have the name of a kernel.
                let is_dir = Path::new(name).is_dir();
                places[n] = if is_dir { found.with_context(|| is_folder(name))? } else { found? };
            }
        }
        Ok(Self { recorded, files, places })
    }

    pub(super) fn pair(&self) -> Pair<'_> {
        static NOTHING: std::sync::LazyLock<Dataset> = std::sync::LazyLock::new(Dataset::default);
        let side = |n: usize| {
            let data = self.files[n].as_ref().or(self.recorded.as_ref()).unwrap_or(&NOTHING);
            Side { data, kernel: self.places[n] }
        };
        let (a, b) = (side(0), side(1));
        let label = |n: usize, side: Side<'_>| {
            let name = side.data.kernels().get(side.kernel).map_or(String::new(), name);
            if self.files[n].is_some() { format!("{name} (file)") } else { name }
        };
        ([label(0, a), label(1, b)], (a, b))
    }
}

/// Everything that is recorded, with cases that the suite has no more; what is built in without.
fn recorded(store: &Store) -> Result<Dataset> {
    match store.load() {
        Ok(records) => {
            told::of(&records, &store.folder().display().to_string());
            known::whole_dataset(&records)
        }
        Err(StoreError::Empty(_)) => Ok(known::built_in().data),
        Err(e) => Err(e.into()),
    }
}

/// `6.12.118 (6.12.118+deb13-cloud-amd64)`.
pub(super) fn name(kernel: &Recorded) -> String {
    format!("{} ({})", kernel.upstream, kernel.release)
}

/// The kernels of two folders.
pub(super) struct Folders<'d> {
    /// Those that both have, with their labels.
    pub(super) both: Vec<Pair<'d>>,
    /// Those that only the first has, and those that only the second has.
    pub(super) one: [Vec<&'d Recorded>; 2],
}

/// The kernels that both folders have, and those that only one has.
pub(super) fn of_folders<'d>(a: &'d Dataset, b: &'d Dataset) -> Folders<'d> {
    let (mut both, mut gone) = (Vec::new(), Vec::new());
    let same = |x: &Recorded, y: &Recorded| x.release == y.release && x.machine == y.machine;
    for (kernel, left) in a.kernels().iter().enumerate() {
        let Some(other) = b.kernels().iter().position(|right| same(left, right)) else {
            gone.push(left);
            continue;
        };
        let revision = |k: &Recorded| format!("{} by suite {}", name(k), k.revision);
        let labels = [revision(left), revision(&b.kernels()[other])];
        let sides = (Side { data: a, kernel }, Side { data: b, kernel: other });
        both.push((labels, sides));
    }
    let is_new = |right: &&Recorded| !a.kernels().iter().any(|left| same(left, right));
    let new = b.kernels().iter().filter(is_new).collect();
    Folders { both, one: [gone, new] }
}

/// The kernel of a name, by its place: a series stands for its newest, with `:oldest` for its oldest;
/// no name for the newest of all.
pub(super) fn place(data: &Dataset, text: Option<&str>) -> Result<usize> {
    let newest = data.kernels().len().checked_sub(1);
    let Some(text) = text else { return newest.context("no kernel is recorded") };
    let (word, end) = text.split_once(':').unwrap_or((text, "newest"));
    let which: Which = word.parse().with_context(|| {
        format!("{text:?} names neither a kernel nor, with a / or as it stands here, a file")
    })?;
    let places = places(data, &which)?;
    let found = match (end, &which) {
        ("oldest", Which::Series(_)) => places.first(),
        ("newest", Which::Series(_)) => places.last(),
        _ if text.contains(':') => bail!("{text:?}: only a series has :oldest and :newest"),
        _ if places.len() > 1 => {
            let names: Vec<&str> =
                places.iter().map(|i| data.kernels()[*i].release.as_str()).collect();
            bail!("{word} is recorded more than once: name one of {}", names.join(" "));
        }
        _ => places.first(),
    };
    found.copied().with_context(|| format!("{word} has no place"))
}

/// The recorded kernels that a word names: a series, a build, or an upstream version.
pub(super) fn places(data: &Dataset, which: &Which) -> Result<Vec<usize>> {
    let places = which.places(data)?;
    if !places.is_empty() {
        return Ok(places);
    }
    let kernels = data.kernels();
    let name = |place: usize| kernels[place].label.clone();
    if let Which::Release(release) = which {
        // Another flavour of a recorded build answers as that one does; two kernels that agree are not one.
        let answer = data.resolve(release, Some);
        if let (Some(place), Certainty::WithinSeries) = (answer.value, answer.certainty) {
            crate::cli::out::note(&format!("{which} is taken for {}, its source", name(place)));
            return Ok(vec![place]);
        }
        let near: Vec<String> = answer.basis.iter().map(|(_, place)| name(*place)).collect();
        if !near.is_empty() {
            bail!("{which} is not recorded; the nearest that are: {}", near.join(" "));
        }
    }
    let all: Vec<String> = (0..kernels.len()).map(name).collect();
    bail!("{which} is not recorded; there are {}", all.join(" "))
}

/// The value of an axis that a word means, as `ask` takes words; an error says what there is.
pub(super) fn value<'d>(data: &'d Dataset, axis: &str, word: &str) -> Result<&'d str> {
    let values = distinct(data.cases().filter_map(|case| case.axis(axis)));
    if values.is_empty() {
        let ids: Vec<String> = data.cases().map(Case::id).collect();
        let points = ids.iter().filter_map(|id| id.strip_suffix(']')?.split_once('['));
        let pairs = points.flat_map(|(_, axes)| axes.split(',')).filter_map(|a| a.split_once('='));
        let mut names = distinct(pairs.map(|(name, _)| name));
        names.sort_unstable();
        bail!("no recorded case has an axis {axis:?}; there are: {}", names.join(" "));
    }
    if let Some(value) = values.iter().find(|value| **value == word) {
        return Ok(value);
    }
    let meant = meant(axis, word);
    let found: Vec<&str> = values.iter().filter(|value| meant.contains(value)).copied().collect();
    match found[..] {
        [value] => Ok(value),
        [] => bail!("no recorded case has {axis}={word}; there are: {}", values.join(" ")),
        _ => bail!("{axis}={word} can be {}: name one of them", found.join(" or ")),
    }
}
