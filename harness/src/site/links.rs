//! Where each page stands, and how one page names another: always by a relative path, so that the site
//! works from any folder and from the file system.

use std::fmt::Write as _;
use uffd_results::Recorded;

/// A page's place, from which it names others.
#[derive(Clone, Debug)]
pub(super) struct Here {
    up: String,
}

impl Here {
    /// The place of a page, given its path below the site's folder.
    pub(super) fn at(path: &str) -> Self {
        Self { up: "../".repeat(path.matches('/').count()) }
    }

    /// A file of the site, given its path below the site's folder.
    pub(super) fn to(&self, path: &str) -> String {
        format!("{}{path}", self.up)
    }

    /// A probe's page.
    pub(super) fn probe(&self, name: &str) -> String {
        self.to(&probe(name))
    }

    /// A kernel's page.
    pub(super) fn kernel(&self, kernel: &Recorded) -> String {
        self.to(&self::kernel(kernel))
    }

    /// A contract's page.
    pub(super) fn contract(&self, name: &str) -> String {
        self.to(&contract(name))
    }

    /// The page of two series that stand side by side.
    pub(super) fn pair(&self, older: &str, newer: &str) -> String {
        self.to(&pair(older, newer))
    }
}

/// The path of a probe's page, given its name.
pub(super) fn probe(name: &str) -> String {
    let (suite, rest) = name.split_once('/').unwrap_or(("probe", name));
    format!("probe/{}/{}.html", plain(suite), plain(rest))
}

/// The path of a kernel's page. Releases are told apart even where they differ in odd characters only.
pub(super) fn kernel(kernel: &Recorded) -> String {
    let Recorded { label, release, machine, .. } = kernel;
    // One release can be built for two machines.
    if label.ends_with(&format!("{release}, {machine})")) {
        return format!("kernel/{}-{}.html", plain(release), plain(machine));
    }
    format!("kernel/{}.html", plain(release))
}

/// The path of the page that says what an operation does after a change.
pub(super) fn answer(op: &str, change: &str) -> String {
    format!("answer/{}-{}.html", plain(op), plain(change))
}

/// The path of a contract's page, given its name.
pub(super) fn contract(name: &str) -> String {
    format!("contract/{}.html", plain(name))
}

/// The path of the page of two series.
pub(super) fn pair(older: &str, newer: &str) -> String {
    format!("changes/{}-to-{}.html", plain(older), plain(newer))
}

/// A text as a file's name that needs no escape in an address: letters, digits, `.`, `-` and `_` stay,
/// every other byte becomes `~` and its two hex digits, so that different texts stay different.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => out += "~2e",
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => out.push(byte.into()),
            other => {
                let _ = write!(out, "~{other:02x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.118+deb13-cloud-amd64", "6.12.118~2bdeb13-cloud-amd64")]
    #[case("../x", "~2e.~2fx")]
    #[case("a\"><b>", "a~22~3e~3cb~3e")]
    fn names_stay_apart_and_in_their_folder(#[case] text: &str, #[case] name: &str) {
        assert_eq!(plain(text), name);
    }

    #[test]
    fn links_go_up_as_deep_as_their_page_stands() {
        assert_eq!(Here::at("probe/copy/munmap.html").to("matrix.html"), "../../matrix.html");
        assert_eq!(Here::at("index.html").probe("copy/munmap"), "probe/copy/munmap.html");
    }
}
