use super::*;
use crate::dataset::tests::{record, small};
use crate::record::Record;
use rstest::rstest;

fn release(text: &str) -> Release {
    Release::parse(text).expect("a release")
}

const CASE: &str = "copy/a[backing=shmem,part=head]";

/// Certainty, value and the upstream versions that an answer rests on.
#[rstest]
#[case("6.12.43+deb13-cloud-amd64", "exact", Some("0"), "6.12.43")]
#[case("6.1.0-47-cloud-amd64", "exact", Some("1"), "6.1.170")]
#[case("6.1.0-47-amd64", "within series", Some("1"), "6.1.170")]
#[case("6.1.180", "within series", Some("1"), "6.1.170 6.1.192")]
#[case("6.12.43-arch1-1", "within series", Some("0"), "6.12.43")]
#[case("6.1.100", "between series", Some("1"), "5.10.262 6.1.170")]
#[case("6.1.0-50-amd64", "within series", Some("1"), "6.1.170 6.1.192")]
#[case("6.1.0-56-rt-amd64", "within series", Some("1"), "6.1.192")]
#[case("6.1.0-46-amd64", "between series", Some("1"), "5.10.262 6.1.170")]
#[case("6.1.0-57-amd64", "unknown", None, "6.1.192 6.12.43")]
#[case("6.1.0-0.deb11.50-amd64", "unknown", None, "5.10.262 6.1.170 6.1.192 6.12.43")]
#[case("6.1.0-50-generic", "unknown", None, "5.10.262 6.1.170 6.1.192 6.12.43")]
#[case("5.10.0-50-amd64", "between series", Some("1"), "5.10.262 6.1.170")]
#[case("5.10.0-20-amd64", "unknown", None, "5.10.262")]
#[case("5.10.0-50-generic", "unknown", None, "5.10.262")]
#[case("7.3.0-2-amd64", "unknown", None, "7.3.4")]
#[case("5.15.0-100-generic", "between series", Some("1"), "5.10.262 6.1.170")]
#[case("6.8.0-45-generic", "unknown", None, "6.1.170 6.1.192 6.12.43")]
#[case("6.12.200", "between series", Some("0"), "6.12.118 7.3.4")]
#[case("7.3.0-rc7", "between series", Some("0"), "6.12.43 6.12.118 7.3.4")]
#[case("7.3.9", "unknown", None, "7.3.4")]
#[case("4.19.1", "unknown", None, "5.10.262")]
#[case("5.14.0-503.el9.x86_64", "unknown", None, "")]
#[case("6.12.43+deb13-arm64", "unknown", None, "")]
#[case("6.12.43+deb13-arm64-16k", "unknown", None, "")]
#[case("6.8.0-45-generic-64k", "unknown", None, "")]
#[case("6.1.0-47-686-pae", "unknown", None, "")]
fn how_sure(
    #[case] text: &str,
    #[case] certainty: &str,
    #[case] value: Option<&str>,
    #[case] basis: &str,
) {
    let data = small();
    let answer = data.fact(CASE, "copy", &release(text));
    let rests: Vec<String> = answer.basis.iter().map(|(k, _)| k.upstream.to_string()).collect();
    assert_eq!(
        (answer.certainty.word(), answer.value, rests.join(" ").as_str()),
        (certainty, value, basis)
    );
    assert_eq!(answer.why.is_some(), value.is_none());
}

#[rstest]
#[case("7.3.9", Why::Newer)]
#[case("4.19.1", Why::Older)]
#[case("5.10.0-20-amd64", Why::Older)]
#[case("5.10.0-50-generic", Why::PerhapsOlder)]
#[case("5.10.0-0.bpo.50-amd64", Why::PerhapsOlder)]
#[case("7.3.0-2-amd64", Why::PerhapsNewer)]
#[case("7.3.0-0.deb13.2-amd64", Why::PerhapsNewer)]
#[case("6.8.0-45-generic", Why::Disagree)]
#[case("4.18.0-553.el8.x86_64", Why::CarriedBack)]
#[case("6.12.43-s390x", Why::Machine)]
fn unknown_says_why(#[case] text: &str, #[case] why: Why) {
    assert_eq!(small().fact(CASE, "copy", &release(text)).why, Some(why));
}

#[test]
fn a_build_with_another_version_is_not_exact() {
    let data = small();
    let same = release("6.1.0-47-cloud-amd64").with_version("#1 SMP Debian 6.1.170-1");
    let other = release("6.1.0-47-cloud-amd64").with_version("#1 SMP Debian 6.1.170-3");
    assert_eq!(data.fact(CASE, "copy", &same).certainty, Certainty::Exact);
    assert_eq!(data.fact(CASE, "copy", &other).certainty, Certainty::WithinSeries);
}

/// Of the builds around one the nearest that answered speak, and outside of its series they say less.
#[test]
fn a_build_whose_neighbour_was_not_asked_is_between_series() {
    // Of 6.1.170 the case was not asked.
    let data = small();
    let answer = data.fact("wake/c", "field", &release("6.1.0-50-amd64"));
    assert_eq!((answer.value, answer.certainty), (Some("-11"), Certainty::BetweenSeries));
}

#[test]
fn a_skip_is_no_answer_and_its_neighbours_speak() {
    let data = small();
    let case = "move/b[backing=anon]";
    // 6.12.118 lacked a precondition; its neighbours disagree.
    let answer = data.fact(case, "end", &release("6.12.118+deb13-cloud-amd64"));
    assert_eq!((answer.value, answer.why), (None, Some(Why::Disagree)));
    assert_eq!(data.fact(case, "end", &release("5.15.3")).value, Some("unsupported"));
    let outcome = data.outcome(case, &release("6.12.43")).value.expect("known");
    assert_eq!(outcome.facts.get("move"), Some("0"));
}

#[test]
fn nothing_is_known_of_what_nobody_asked() {
    let data = small();
    assert_eq!(data.fact("copy/z", "copy", &release("6.1.180")).why, Some(Why::NoSuchCase));
    assert_eq!(data.fact(CASE, "copi", &release("6.1.180")).why, Some(Why::NoSuchFact));
    assert_eq!(data.fact(CASE, "copi", &release("6.1.170")).why, Some(Why::NoSuchFact));
    assert_eq!(data.statement("copy/z", &release("6.1.180")).why, Some(Why::NoSuchCase));
    assert_eq!(
        Dataset::default().fact(CASE, "copy", &release("6.1.180")).why,
        Some(Why::NoSuchCase)
    );
}

#[rstest]
#[case("6.1.170", Held::Partly)]
#[case("7.3.4", Held::Holds)]
fn statements(#[case] text: &str, #[case] held: Held) {
    assert_eq!(small().statement("copy/a", &release(text)).value, Some(held));
}

/// What came with a late stable release says nothing of the mainline releases behind its series.
#[test]
fn a_series_that_changed_does_not_speak_for_the_next() {
    let data = small();
    let at = |kernel: usize| Some(data.kernels()[kernel].upstream.to_string() == "6.1.170");
    let between = data.resolve(&release("6.6.20"), at);
    assert_eq!((between.value, between.why), (None, Some(Why::Disagree)));
    let later = data.resolve(&release("6.1.200"), at);
    assert_eq!((later.value, later.certainty), (Some(false), Certainty::BetweenSeries));
}

/// Answers by kernel around a release; whether they make one, and on which it rests.
#[rstest]
#[case::one_between_disagrees("7.3.0-rc7", [0, 0, 0, 0, 1, 0], None, "6.12.43 6.12.118 7.3.4")]
#[case::the_first_disagrees("7.3.0-rc7", [0, 0, 0, 1, 0, 0], None, "6.12.43 6.12.118 7.3.4")]
#[case::all_agree("7.3.0-rc7", [1, 1, 1, 0, 0, 0], Some(0), "6.12.43 6.12.118 7.3.4")]
#[case::one_beside_disagrees("6.8.20", [0, 0, 1, 0, 0, 0], None, "6.1.170 6.1.192 6.12.43")]
#[case::one_further_off_disagrees("6.8.20", [1, 0, 0, 0, 1, 1], Some(0), "6.1.170 6.1.192 6.12.43")]
fn all_around_a_release_must_agree(
    #[case] text: &str,
    #[case] answers: [u8; 6],
    #[case] value: Option<u8>,
    #[case] basis: &str,
) {
    let data = small();
    let answer = data.resolve(&release(text), |kernel| Some(answers[kernel]));
    let rests: Vec<String> = answer.basis.iter().map(|(k, _)| k.upstream.to_string()).collect();
    assert_eq!((answer.value, rests.join(" ").as_str()), (value, basis));
    assert_eq!(answer.why, value.is_none().then_some(Why::Disagree));
    assert_eq!(answer.certainty == Certainty::Unknown, value.is_none());
}

/// Records by upstream version, release and machine.
fn built(kernels: &[(&str, &str, &str)]) -> Dataset {
    let of = |(upstream, release, machine): &(&str, &str, &str)| {
        let mut record = record(0);
        [record.kernel.upstream, record.kernel.release, record.kernel.machine] =
            [upstream, release, machine].map(|text| (*text).to_owned());
        record
    };
    let records: Vec<Record> = kernels.iter().map(of).collect();
    Dataset::of(&records, Vec::new(), |_, _, _| Some(true)).expect("versions")
}

/// What each kernel says is its release on its machine.
fn who(data: &Dataset, at: usize) -> String {
    let kernel = &data.kernels()[at];
    format!("{} {}", kernel.release, kernel.machine)
}

#[test]
fn neighbours_of_another_machine_do_not_speak() {
    let data = built(&[
        ("6.12.43", "6.12.43", "x86_64"),
        ("6.12.60", "6.12.60", "aarch64"),
        ("6.12.118", "6.12.118", "x86_64"),
    ]);
    let machine = |at: usize| Some(data.kernels()[at].machine.clone());
    let on = |machine: &str| release("6.12.80").on_machine(machine);
    let answer = data.resolve(&on("x86_64"), machine);
    assert_eq!(answer.value.as_deref(), Some("x86_64"));
    assert_eq!((answer.certainty, answer.basis.len()), (Certainty::WithinSeries, 2));
    let answer = data.resolve(&on("aarch64"), machine);
    assert_eq!((answer.value, answer.why), (None, Some(Why::Newer)));
    assert_eq!(data.resolve(&on("s390x"), machine).why, Some(Why::Machine));
}

#[test]
fn a_build_is_answered_by_the_one_of_its_machine() {
    let data = built(&[("6.12.43", "6.12.43", "aarch64"), ("6.12.43", "6.12.43", "x86_64")]);
    for machine in ["aarch64", "x86_64"] {
        let asked = release("6.12.43").on_machine(machine);
        let answer = data.resolve(&asked, |at| Some(who(&data, at)));
        assert_eq!(answer.value, Some(format!("6.12.43 {machine}")));
        assert_eq!(answer.certainty, Certainty::Exact);
    }
    let exact = data.exact(&release("6.12.43").on_machine("s390x"));
    assert_eq!(exact, None);
}

/// Two builds of one version both speak for a third, whichever of them answers otherwise.
#[rstest]
#[case("6.12.43-c", None, 2)]
#[case("6.12.43-a", Some("6.12.43-a x86_64"), 1)]
#[case("6.12.43-b", Some("6.12.43-b x86_64"), 1)]
fn builds_of_one_version_that_disagree_decide_nothing(
    #[case] text: &str,
    #[case] value: Option<&str>,
    #[case] basis: usize,
) {
    let data = built(&[("6.12.43", "6.12.43-a", "x86_64"), ("6.12.43", "6.12.43-b", "x86_64")]);
    let answer = data.resolve(&release(text), |at| Some(who(&data, at)));
    assert_eq!((answer.value.as_deref(), answer.basis.len()), (value, basis));
    assert_eq!(answer.why, value.is_none().then_some(Why::Disagree));
}
