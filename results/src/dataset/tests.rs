//! A small dataset for tests, and tests of the table and its text.

use super::*;
use crate::facts::Facts;
use crate::record::{Cases, Environment, Kernel, Package, SCHEMA, Suite};
use rstest::rstest;
use std::collections::BTreeMap;

/// The kernels of [`small`], by `uname -r`.
pub(crate) const RELEASES: [(&str, &str); 6] = [
    ("5.10.262", "5.10.0-46-cloud-amd64"),
    ("6.1.170", "6.1.0-47-cloud-amd64"),
    ("6.1.192", "6.1.0-56-cloud-amd64"),
    ("6.12.43", "6.12.43+deb13-cloud-amd64"),
    ("6.12.118", "6.12.118+deb13-cloud-amd64"),
    ("7.3.4", "7.3.4+deb13-cloud-amd64"),
];

/// The facts of each case, a kernel a column; `!word` is another end than done, empty is not asked.
const CASES: [(&str, [&str; 6]); 5] = [
    ("copy/a[backing=anon,part=head]", ["copy=0"; 6]),
    (
        "copy/a[backing=shmem,part=head]",
        ["copy=1", "copy=1", "copy=1", "copy=0", "copy=0", "copy=0"],
    ),
    (
        "copy/a[backing=shmem,part=tail]",
        ["copy=1", "copy=1", "copy=1", "copy=0", "copy=0", "copy=0"],
    ),
    (
        "move/b[backing=anon]",
        ["!unsupported", "!unsupported", "!unsupported", "move=0", "!precondition", "!hang"],
    ),
    ("wake/c", ["field=-11", "", "field=-11", "field=0", "field=-11", "field=-11 more=x"]),
];

/// A record of [`RELEASES`] by its place.
pub(crate) fn record(kernel: usize) -> Record {
    let (upstream, release) = RELEASES[kernel];
    let outcome = |text: &str| match text.strip_prefix('!').and_then(End::from_word) {
        Some(end) => Outcome::ended(end, "why not", Facts::new()),
        None => Outcome::done(Facts::parse(text).expect("facts")),
    };
    let asked = CASES.iter().filter(|(_, facts)| !facts[kernel].is_empty());
    Record {
        schema: SCHEMA,
        kernel: Kernel {
            upstream: upstream.into(),
            release: release.into(),
            version: format!("#1 SMP Debian {upstream}-1"),
            machine: "x86_64".into(),
            package: Some(Package {
                name: "linux".into(),
                version: format!("{upstream}-1"),
                sha256: "0".repeat(64),
            }),
            image_sha256: None,
            config: BTreeMap::new(),
        },
        environment: Environment {
            accelerator: "tcg".into(),
            cpus: 1,
            memory_mib: 1024,
            page_size: 4096,
            huge_pages_2m: 16,
            uffd: "syscall".into(),
            uffd_features: Vec::new(),
            kvm: false,
            append: String::new(),
            sysctls: BTreeMap::new(),
        },
        suite: Suite { version: "0.1.0".into(), revision: "abc".into() },
        by: None,
        cases: Cases::new(asked.map(|(id, f)| ((*id).to_owned(), outcome(f[kernel]))).collect()),
    }
}

/// All of them; what is expected is that `copy` and `move` are 0.
pub(crate) fn small() -> Dataset {
    let records: Vec<Record> = (0..RELEASES.len()).rev().map(record).collect();
    let question = |name: &str, statement: &str| Question {
        name: name.into(),
        statement: statement.into(),
        consumers: vec!["QEMU: here".into()],
    };
    let questions = vec![question("copy/a", "COPY fills."), question("gone/x", "Is not asked.")];
    let mut data = Dataset::of(&records, questions, |_, outcome, _| {
        let fact = outcome.facts.get("copy").or(outcome.facts.get("move"));
        Some(fact.is_none_or(|value| value == "0"))
    })
    .expect("versions");
    let (probe, fact, why) = ("copy/a".into(), "copy".into(), "commit abc".into());
    data.explain(vec![Reason { newer: 3, probe, fact, why }]);
    data
}

/// One tree can be built for two machines, and each has its place.
#[test]
fn a_release_on_two_machines_is_two_kernels() {
    let mut other = record(3);
    other.kernel.machine = "aarch64".into();
    let both = [record(3), other.clone()];
    let data = Dataset::of(&both, Vec::new(), |_, _, _| Some(true)).expect("versions");
    let machines: Vec<&str> = data.kernels().iter().map(|k| k.machine.as_str()).collect();
    assert_eq!(machines, ["aarch64", "x86_64"]);
    assert_eq!(Dataset::parse(&data.to_text()), Ok(data));
    let twice = [other.clone(), other];
    let twice = Dataset::of(&twice, Vec::new(), |_, _, _| Some(true)).expect("versions");
    Dataset::parse(&twice.to_text()).expect_err("one kernel, twice");
}

#[test]
fn the_table_holds_what_the_records_do() {
    let data = small();
    let upstream: Vec<String> = data.kernels().iter().map(|k| k.upstream.to_string()).collect();
    assert_eq!(upstream, RELEASES.map(|(upstream, _)| upstream.to_owned()));
    let ids: Vec<String> = data.cases().map(Case::id).collect();
    assert_eq!(ids, CASES.map(|(id, _)| id.to_owned()));
    for kernel in 0..RELEASES.len() {
        for (id, outcome) in record(kernel).cases.iter() {
            assert_eq!(data.case(id).expect("a case").outcome(kernel), Some(outcome), "{id}");
        }
    }
    let case = data.case("copy/a[backing=shmem,part=tail]").expect("a case");
    assert_eq!(
        (case.axis("part"), case.axis("par"), case.probe().suite()),
        (Some("tail"), None, "copy")
    );
    assert_eq!(
        (case.probe().statement(), case.is_as_expected(2), case.is_as_expected(3)),
        ("COPY fills.", false, true)
    );
    assert_eq!(data.why(3, "copy/a", "copy"), Some("commit abc"));
}

#[rstest]
#[case("wake/c", 1, "field", None)]
#[case("wake/c", 0, "field", Some("-11"))]
#[case("wake/c", 0, "more", Some(NONE))]
#[case("move/b[backing=anon]", 0, "end", Some("unsupported"))]
#[case("move/b[backing=anon]", 4, "end", None)]
#[case("move/b[backing=anon]", 5, "end", Some("hang"))]
fn facts(#[case] id: &str, #[case] kernel: usize, #[case] fact: &str, #[case] value: Option<&str>) {
    assert_eq!(small().case(id).expect("a case").fact(kernel, fact), value);
}

#[test]
fn what_the_suite_no_longer_asks_is_left_out() {
    let data = Dataset::of(&[record(0)], vec![], |id, _, _| (id != "wake/c").then_some(true));
    let data = data.expect("versions");
    assert!(data.probe("wake/c").is_none() && data.case("move/b[backing=anon]").is_some());
}

/// Two flavours of a version, or two machines, must not be told by one name.
#[rstest]
#[case(&[("6.12.118", "a", "x86_64"), ("7.3.4", "b", "x86_64")], &["6.12.118", "7.3.4"])]
#[case(
    &[("6.12.118", "a", "x86_64"), ("6.12.118", "b", "x86_64"), ("7.3.4", "c", "x86_64")],
    &["6.12.118 (a)", "6.12.118 (b)", "7.3.4"]
)]
#[case(
    &[("7.3.4", "b", "aarch64"), ("7.3.4", "b", "x86_64"), ("7.3.4", "c", "x86_64")],
    &["7.3.4 (b, aarch64)", "7.3.4 (b, x86_64)", "7.3.4 (c)"]
)]
fn kernels_of_one_version_are_told_apart(
    #[case] kernels: &[(&str, &str, &str)],
    #[case] labels: &[&str],
) {
    let of = |(upstream, release, machine): &(&str, &str, &str)| {
        let mut record = record(0);
        record.kernel.upstream = (*upstream).to_owned();
        record.kernel.release = (*release).to_owned();
        record.kernel.machine = (*machine).to_owned();
        record
    };
    let records: Vec<Record> = kernels.iter().map(of).collect();
    let data = Dataset::of(&records, Vec::new(), |_, _, _| Some(true)).expect("versions");
    let read = Dataset::parse(&data.to_text()).expect("a dataset");
    for data in [data, read] {
        let said: Vec<&str> = data.kernels().iter().map(|kernel| kernel.label.as_str()).collect();
        assert_eq!(said, labels);
    }
}

#[test]
fn the_text_round_trips() {
    let data = small();
    let text = data.to_text();
    assert_eq!(Dataset::parse(&text), Ok(data), "{text}");
    let empty = Dataset::default();
    assert_eq!(Dataset::parse(&empty.to_text()), Ok(empty));
}

#[test]
fn no_part_of_a_text_is_taken_for_the_whole() {
    let text = small().to_text();
    for end in 0..text.len() - 1 {
        assert!(Dataset::parse(&text[..end]).is_err(), "cut at {end}");
    }
}

#[rstest]
#[case("data 2", "data 1", "line 1: it does not begin")]
#[case("0*6", "0*7", "more than 6 kernels")]
#[case("0*6", "0*5", "fewer outcomes")]
#[case("0*6", "99*6", "no outcome 99")]
#[case("0*6", "0*99999999999999999999", "not a number that fits")]
#[case("copy/a\t", "zopy/a\t", "not in order")]
#[case("\t0\n", "\t77\n", "whose row does not exist")]
#[case("5.10.262\t", "x\t", "does not begin with a kernel version")]
#[case("kernels 6", "kernels 99999999999", "")]
#[case("end\n", "end\nmore\n", "nothing behind it")]
#[case("copy/a\t", "\u{1}copy/a\t", "can't be shown")]
fn wrong_texts_are_refused(#[case] from: &str, #[case] to: &str, #[case] message: &str) {
    let text = small().to_text().replacen(from, to, 1);
    let error = Dataset::parse(&text).expect_err("refused").to_string();
    assert!(error.contains(message), "{error}");
}

/// That a kernel lacks the feature is an answer of the kernel; what its machine lacks is none.
#[test]
fn who_could_not_answer_says_nothing() {
    let answers: Vec<End> = End::ALL.into_iter().filter(|end| is_answer(*end)).collect();
    assert_eq!(answers, [End::Done, End::Hang, End::Killed, End::Unsupported, End::Panic]);
}
