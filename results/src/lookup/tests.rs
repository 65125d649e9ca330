use super::*;
use crate::dataset::tests::small;
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
