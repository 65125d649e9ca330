//! Choosing case ids by words: what filters on the command line and in contracts mean.

/// Whether a case id has what a filter asks for: the filter as a part of it or, if the filter has a
/// `*`, the whole id as that pattern, in which `*` stands for any text.
///
/// ```
/// assert!(uffd_results::id_matches("copy/", "copy/munmap[part=head]"));
/// assert!(uffd_results::id_matches("copy/*part=head*", "copy/munmap[part=head]"));
/// assert!(!uffd_results::id_matches("copy/*part=tail*", "copy/munmap[part=head]"));
/// ```
pub fn id_matches(filter: &str, id: &str) -> bool {
    if filter.contains('*') { glob(filter, id) } else { id.contains(filter) }
}

/// Whether a value is one of `allowed`: values joined by `|`, in which `?` is any one character and
/// `*` any text.
pub(crate) fn value_matches(allowed: &str, value: &str) -> bool {
    allowed.split('|').any(|pattern| glob(pattern, value))
}

/// Whether `text` is `pattern`, with `*` for any text and `?` for any one byte.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on if the text behind the last star turns out to be longer.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|b| *b == b'?' || *b == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("copy/", "copy/munmap[x=1]", true)]
    #[case("copy/*", "copy/munmap[x=1]", true)]
    #[case("*x=1*", "copy/munmap[x=1]", true)]
    #[case("copy/*[x=2]", "copy/munmap[x=1]", false)]
    #[case("*", "anything", true)]
    #[case("munmap*", "copy/munmap[x=1]", false)]
    #[case("*a*a", "ba", false)]
    #[case("*a*a", "aba", true)]
    #[case("", "anything", true)]
    fn ids(#[case] filter: &str, #[case] id: &str, #[case] expected: bool) {
        assert_eq!(id_matches(filter, id), expected);
    }

    #[rstest]
    #[case("0|EAGAIN", "EAGAIN", true)]
    #[case("??c?", "--c-", true)]
    #[case("??c?", "--c", false)]
    #[case("unmap(*", "unmap(0..1)", true)]
    #[case("asleep", "asleep-again", false)]
    #[case("(none)", "(none)", true)]
    #[case("", "x", false)]
    fn values(#[case] allowed: &str, #[case] value: &str, #[case] expected: bool) {
        assert_eq!(value_matches(allowed, value), expected);
    }

    #[test]
    fn many_stars_end() {
        let (pattern, text) = ("*a".repeat(50), "a".repeat(2000) + "b");
        assert!(!glob(&pattern, &text));
    }
}
