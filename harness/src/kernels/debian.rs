//! The order of Debian package versions.

use std::cmp::Ordering;

/// Compares two package versions as dpkg does: `1~rc1 < 1 < 1-1~bpo1 < 1-1 < 1-2`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((ea, ua, ra), (eb, ub, rb)) = (split(a), split(b));
    ea.cmp(&eb).then_with(|| part(ua, ub)).then_with(|| part(ra, rb))
}

/// Epoch, upstream part and revision.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares letters and numbers in turns.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (ta, tb) =
            (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        for i in 0..ta.len().max(tb.len()) {
            let (x, y) = (ta.as_bytes().get(i), tb.as_bytes().get(i));
            match weight(x).cmp(&weight(y)) {
                Ordering::Equal => {}
                other => return other,
            }
        }
        let (na, nb) = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let (na, nb) = (na.trim_start_matches('0'), nb.trim_start_matches('0'));
        match na.len().cmp(&nb.len()).then_with(|| na.cmp(nb)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    Ordering::Equal
}

/// Cuts off what `accept` holds for at the beginning.
fn take<'a>(text: &mut &'a str, accept: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// A tilde sorts before the end, the end before letters, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.9-1", "6.12.10-1", Ordering::Less)]
    #[case("6.12.90-1~bpo12+1", "6.12.90-1", Ordering::Less)]
    #[case("6.12.90-1", "6.12.90-2~bpo12+1", Ordering::Less)]
    #[case("6.1.172-1~deb11u1", "6.1.172-1", Ordering::Less)]
    #[case("7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", Ordering::Less)]
    #[case("1:1-1", "2-1", Ordering::Greater)]
    #[case("1.01-1", "1.1-1", Ordering::Equal)]
    #[case("1.0a", "1.0+", Ordering::Less)]
    #[case("1-1", "1-1", Ordering::Equal)]
    fn as_dpkg_orders(#[case] a: &str, #[case] b: &str, #[case] expected: Ordering) {
        assert_eq!(compare(a, b), expected);
        assert_eq!(compare(b, a), expected.reverse());
    }
}
