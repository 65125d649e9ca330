//! The words that name values of the grid's axes: those of case ids, and those that people use.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use std::ffi::OsStr;
use uffd_suites::point::{Backing, Discard, Mode, Msg, Op, Over, Part, Remap, Waiter};

/// The axes that every point of the grid has, or can have.
pub(crate) const GRID: [&str; 9] =
    ["op", "change", "part", "over", "how", "waiter", "backing", "msg", "mode"];

/// Operations by the word that names them.
const OPERATIONS: [(Op, &str); 9] = [
    (Op::Look, "look"),
    (Op::Copy, "copy"),
    (Op::Zeropage, "zeropage"),
    (Op::Continue, "continue"),
    (Op::Unprotect, "unprotect"),
    (Op::Poison, "poison"),
    (Op::Move, "move"),
    (Op::Unregister, "unregister"),
    (Op::Wake, "wake"),
];

/// The word for an operation.
pub(crate) fn operation(op: Op) -> &'static str {
    OPERATIONS.iter().find(|(o, _)| *o == op).map_or("look", |(_, word)| word)
}

/// Words that stand for one value or for several, beside the values themselves. The first of a list
/// of words is shown, the others are taken too.
type Nickname = (&'static [&'static str], &'static [&'static str]);

const VCPUS: &[&str] = &["vcpu-read", "vcpu-write", "vcpu-fetch"];
const CALLS: &[&str] = &[
    "sys-read",
    "sys-write",
    "vm-read",
    "vm-write",
    "populate-read",
    "populate-write",
    "mlock",
    "futex",
];

fn nicknames(axis: &str) -> &'static [Nickname] {
    match axis {
        "backing" => &[
            (&["anonymous", "private-anon", "anonymous-private"], &["anon"]),
            (&["memfd", "shared-memfd", "tmpfs", "shared"], &["shmem"]),
            (&["memfd-private"], &["private-memfd"]),
            (&["anon-shared"], &["shared-anon"]),
            (&["hugetlb", "hugetlbfs", "huge"], &["hugetlb-shared", "hugetlb-private"]),
        ],
        "mode" => &[(&["write-protect", "writeprotect", "uffd-wp"], &["wp"])],
        "change" => &[
            (&["none", "nothing", "no"], &["unchanged"]),
            (&["unmap", "unmapped"], &["munmap"]),
            (&["mmap", "map-over", "mmap-fixed", "replace", "replaced"], &["mmap-over"]),
            (&["moved", "resize", "resized"], &["mremap"]),
            (&["discarded", "balloon", "virtio-mem"], &["discard"]),
        ],
        "part" => {
            &[(&["all"], &["whole"]), (&["start", "front"], &["head"]), (&["end"], &["tail"])]
        }
        "over" => &[
            (&["anonymous"], &["anon"]),
            (&["memfd", "shmem"], &["shared"]),
            (&["none", "prot_none"], &["prot-none"]),
        ],
        "how" => &[
            (&["expand"], &["grow"]),
            (&["madv_dontneed", "madv-dontneed"], &["dontneed"]),
            (&["madv_remove", "madv-remove"], &["remove"]),
            (&["punch", "hole-punch"], &["punch-hole"]),
        ],
        "waiter" => &[
            (&["nobody"], &["none"]),
            (&["vcpu", "kvm", "guest"], VCPUS),
            (&["thread", "user", "read"], &["user-read"]),
            (&["write"], &["user-write"]),
            (&["syscall", "kernel"], CALLS),
            (&["gup"], &["vm-read", "vm-write"]),
        ],
        "msg" => &[(&["queued"], &["unread"])],
        "op" => &[
            (&["none", "nothing"], &["look"]),
            (&["writeprotect", "wp"], &["unprotect"]),
            (&["zero"], &["zeropage"]),
        ],
        _ => &[],
    }
}

/// The values of an axis of the grid, in the order in which cases are listed.
pub(crate) fn values(axis: &str) -> Vec<&'static str> {
    let remaps = || Remap::ALL.iter().map(|how| how.word());
    match axis {
        "op" => OPERATIONS.iter().map(|(_, word)| *word).collect(),
        "mode" => Mode::ALL.iter().map(|v| v.word()).collect(),
        "change" => vec!["unchanged", "munmap", "mmap-over", "mremap", "discard"],
        "part" => Part::ALL.iter().map(|v| v.word()).collect(),
        "over" => Over::ALL.iter().map(|v| v.word()).collect(),
        "how" => remaps().chain(Discard::ALL.iter().map(|v| v.word())).collect(),
        "waiter" => Waiter::GRID.iter().map(|v| v.word()).collect(),
        "backing" => Backing::ALL.iter().map(|v| v.word()).collect(),
        "msg" => Msg::ALL.iter().map(|v| v.word()).collect(),
        _ => Vec::new(),
    }
}

/// Changes that are asked beside the grid, by the words that people use, with what to ask for.
const BESIDE: [(&[&str], &str); 6] = [
    (&["mprotect", "protect"], "changes/mprotect"),
    (&["ftruncate", "truncate", "fallocate"], "changes/truncate"),
    (&["madvise", "madv_free", "free", "collapse"], "changes/madvise"),
    (&["fork"], "'*fork*'"),
    (&["exec", "execve"], "'*exec*'"),
    (&["exit", "kill"], "lifetime/"),
];

/// A word as it is compared: `UFFDIO_COPY` is `copy`.
fn plain(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    word.strip_prefix("uffdio_").or(word.strip_prefix("uffdio-")).unwrap_or(&word).to_owned()
}

/// The values that a word means; nothing if it is no word of that axis.
pub(crate) fn meant(axis: &str, word: &str) -> Vec<&'static str> {
    let word = plain(word);
    if let Some(value) = values(axis).into_iter().find(|value| *value == word) {
        return vec![value];
    }
    let nickname = nicknames(axis).iter().find(|(words, _)| words.contains(&word.as_str()));
    nickname.map_or(Vec::new(), |(_, values)| values.to_vec())
}

/// The values that a word on the command line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meant(pub(crate) Vec<&'static str>);

/// Reads a word of an axis; knows its words for messages and completion.
#[derive(Clone)]
pub(crate) struct Words {
    axis: &'static str,
    known: PossibleValuesParser,
}

/// The words of an axis, for an option.
pub(crate) fn parser(axis: &'static str) -> Words {
    let mut words: Vec<PossibleValue> = values(axis).into_iter().map(PossibleValue::new).collect();
    for (names, means) in nicknames(axis) {
        let Some((first, others)) = names.split_first() else { continue };
        let help = match means {
            [one] => format!("the same as {one}"),
            several => format!("any of {}", several.join(", ")),
        };
        let word = PossibleValue::new(*first).help(help);
        words.push(word.aliases(others.iter().copied()));
    }
    Words { axis, known: PossibleValuesParser::new(words) }
}

impl TypedValueParser for Words {
    type Value = Meant;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Meant, Error> {
        let word = plain(&value.to_string_lossy());
        let beside = BESIDE.iter().find(|(words, _)| words.contains(&word.as_str()));
        if let (Some((_, filter)), "change") = (beside, self.axis) {
            let message = format!(
                "{word} is no change of the grid, and is asked beside it: `uffd-conform ask {filter}`\n"
            );
            return Err(Error::raw(ErrorKind::InvalidValue, message));
        }
        let word = self.known.parse_ref(command, argument, OsStr::new(&word))?;
        Ok(Meant(meant(self.axis, &word)))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.known.possible_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("waiter", "kvm", VCPUS)]
    #[case("waiter", "vcpu-fetch", &["vcpu-fetch"])]
    #[case("waiter", "thread", &["user-read"])]
    #[case("change", "unmap", &["munmap"])]
    #[case("op", "UFFDIO_COPY", &["copy"])]
    #[case("op", "writeprotect", &["unprotect"])]
    #[case("backing", "hugetlb", &["hugetlb-shared", "hugetlb-private"])]
    #[case("backing", "teapot", &[])]
    fn words_mean_values(#[case] axis: &str, #[case] word: &str, #[case] expected: &[&str]) {
        assert_eq!(meant(axis, word), expected);
    }

    #[test]
    fn changes_beside_the_grid_have_cases() {
        let known = values("change");
        for (words, filter) in BESIDE {
            assert!(words.iter().all(|word| !known.contains(word)), "{words:?}");
            let filter = filter.trim_matches('\'').to_owned();
            assert!(
                crate::filter::choose(&[filter], true).is_ok_and(|cases| !cases.is_empty()),
                "{words:?}"
            );
        }
    }

    #[test]
    fn every_nickname_means_values_that_there_are_and_hides_none() {
        for axis in GRID {
            let values = values(axis);
            let mut seen: Vec<&str> = values.clone();
            for (words, means) in nicknames(axis) {
                assert!(means.iter().all(|value| values.contains(value)), "{axis} {words:?}");
                for word in *words {
                    assert!(!seen.contains(word), "{axis}: {word} means two things");
                    seen.push(word);
                }
            }
        }
    }
}
