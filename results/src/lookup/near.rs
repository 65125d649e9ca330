//! Which recorded kernels speak for a release.
//!
//! Only `core` is used and nothing is allocated, since `uffd-conform export --format rust` hands this
//! file on as it stands.

/// An upstream version, as `release` reads it.
type Number = (u16, u16, u16, u16);

/// The places of the recorded kernels that are nearest to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Near {
    /// It lies between these, or is one of them: they speak for it, and all that answered between. Where the
    /// older one is of another series, all of that series speak: what its later releases took over from newer
    /// series, its first ones show to be new.
    Around(usize, usize),
    /// It is newer than all; this is the newest.
    Newer(usize),
    /// It is older than all; this is the oldest.
    Older(usize),
    /// It may be newer than all, or lie somewhere between these.
    PerhapsNewer(usize, usize),
    /// It may be older than all, or lie somewhere between these.
    PerhapsOlder(usize, usize),
    /// Nobody answered.
    Nobody,
}

/// The kernels nearest to one that is built from a version between `low` and `high`, of those that
/// answered: their places and versions, from the oldest to the newest.
pub(crate) fn near(
    low: Number,
    high: Number,
    answered: impl Iterator<Item = (usize, Number)>,
) -> Near {
    let (mut below, mut above, mut inside) = (None, None, None);
    let mut series: Option<(usize, Number)> = None;
    for (place, number) in answered {
        if number <= low {
            below = Some(place);
            series =
                series.filter(|(_, first)| in_series(*first, number)).or(Some((place, number)));
        }
        if number >= high && above.is_none() {
            above = Some(place);
        }
        if low < number && number < high {
            inside = Some((inside.map_or(place, |(first, _)| first), place));
        }
    }
    match (below, above, inside) {
        // Two builds of one upstream release: both speak for it.
        (Some(below), Some(above), _) => {
            let first = series.filter(|(_, first)| !in_series(*first, low)).map(|(place, _)| place);
            Near::Around(first.unwrap_or(below).min(above), below.max(above))
        }
        (None, _, Some((first, last))) => Near::PerhapsOlder(first, last),
        (Some(_), None, Some((first, last))) => Near::PerhapsNewer(first, last),
        (Some(below), None, None) => Near::Newer(below),
        (None, Some(above), None) => Near::Older(above),
        (None, None, None) => Near::Nobody,
    }
}

/// Whether two versions are of one series.
pub(crate) fn in_series(a: Number, b: Number) -> bool {
    (a.0, a.1) == (b.0, b.1)
}
