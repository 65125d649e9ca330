use super::*;
use crate::dataset::tests::{record, small};
use crate::facts::Facts;
use crate::lookup::Certainty;
use crate::outcome::Outcome;
use crate::record::Cases;
use rstest::rstest;

fn assumption(cases: &[&str], except: &[&str], facts: &[(&str, &str)]) -> Assumption {
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
    let facts = facts.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
    Assumption {
        id: "test.a".into(),
        says: "It fills.".into(),
        r#where: words(&["file.c: function()"]),
        breaks: Breaks::Hang,
        effect: "It hangs.".into(),
        needs: vec![Need { cases: words(cases), except: words(except), facts }],
        not_asked: None,
    }
}

const KEPT: Option<Kept> = Some(Kept::Kept);
const BROKEN: Option<Kept> = Some(Kept::Broken);
const LACKS: Option<Kept> = Some(Kept::Unsupported);

#[rstest]
#[case(&["copy/a"], &[], &[("copy", "0")], [BROKEN, BROKEN, BROKEN, KEPT, KEPT, KEPT])]
#[case(&["copy/a"], &["*shmem*"], &[("copy", "0")], [KEPT; 6])]
#[case(&["copy/*"], &[], &[("copy", "0|1")], [KEPT; 6])]
#[case(&["copy/*"], &[], &[("copy", "0|1"), ("more", "(none)")], [KEPT; 6])]
#[case(&["move/b"], &[], &[("move", "0")], [LACKS, LACKS, LACKS, KEPT, None, BROKEN])]
#[case(&["move/b"], &[], &[("end", "done|hang")], [LACKS, LACKS, LACKS, KEPT, None, KEPT])]
#[case(&["wake/c"], &[], &[("field", "-11")], [KEPT, None, KEPT, BROKEN, KEPT, KEPT])]
fn verdicts(
    #[case] cases: &[&str],
    #[case] except: &[&str],
    #[case] facts: &[(&str, &str)],
    #[case] expected: [Option<Kept>; 6],
) {
    let data = small();
    let assumption = assumption(cases, except, facts);
    let bound = assumption.bind(&data);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|kernel| bound.kept(kernel)), expected);
}

/// What some needs say is no answer for all, but a breach is one.
#[rstest]
#[case(&[("copy", "0|1")], [KEPT; 3], [KEPT, None, BROKEN])]
#[case(&[("copy", "0")], [BROKEN; 3], [KEPT, None, BROKEN])]
fn each_need_must_be_answered(
    #[case] first: &[(&str, &str)],
    #[case] old: [Option<Kept>; 3],
    #[case] new: [Option<Kept>; 3],
) {
    let data = small();
    let mut both = assumption(&["copy/*"], &[], first);
    both.needs.extend(assumption(&["move/b"], &[], &[("move", "0")]).needs);
    let bound = both.bind(&data);
    assert_eq!([0, 1, 2].map(|kernel| bound.kept(kernel)), old);
    assert_eq!([3, 4, 5].map(|kernel| bound.kept(kernel)), new);
}

/// One kernel that showed that of two cases.
fn shown(first: Outcome, second: Outcome) -> Dataset {
    let mut record = record(0);
    let cases = [("copy/a[x=1]", first), ("copy/a[x=2]", second)];
    record.cases = Cases::new(cases.map(|(id, seen)| (id.to_owned(), seen)).into());
    Dataset::of(&[record], Vec::new(), |_, _, _| Some(true)).expect("versions")
}

fn ended(end: End, facts: &str) -> Outcome {
    let facts = Facts::parse(facts).expect("facts");
    if end == End::Done { Outcome::done(facts) } else { Outcome::ended(end, "why", facts) }
}

/// What was seen before a hang fits, the hang does not.
#[rstest]
#[case(End::Hang)]
#[case(End::Killed)]
#[case(End::Panic)]
fn who_shows_the_fact_and_does_not_end_breaks_it(#[case] end: End) {
    let data = shown(ended(End::Done, "copy=0"), ended(end, "copy=0"));
    let needed = assumption(&["copy/a"], &[], &[("copy", "0")]);
    let bound = needed.bind(&data);
    assert_eq!(bound.kept(0), BROKEN);
    let [case, fact, allowed, seen] = ["copy/a[x=2]", "end", "done", end.word()].map(str::to_owned);
    assert_eq!(bound.breaches(0), [Breach { case, fact, allowed, seen }]);
    let allowed = assumption(&["copy/a"], &[], &[("copy", "0"), ("end", "done|hang|killed|panic")]);
    assert_eq!((allowed.bind(&data).kept(0), allowed.bind(&data).breaches(0)), (KEPT, vec![]));
}

#[rstest]
#[case::kept_then_lacking(ended(End::Done, "copy=0"), ended(End::Unsupported, ""), KEPT)]
#[case::lacking_then_kept(ended(End::Unsupported, ""), ended(End::Done, "copy=0"), KEPT)]
#[case::lacking_then_broken(ended(End::Unsupported, ""), ended(End::Done, "copy=1"), BROKEN)]
#[case::broken_then_lacking(ended(End::Done, "copy=1"), ended(End::Unsupported, ""), BROKEN)]
#[case::broken_then_kept(ended(End::Done, "copy=1"), ended(End::Done, "copy=0"), BROKEN)]
#[case::lacking(ended(End::Unsupported, ""), ended(End::Unsupported, ""), LACKS)]
#[case::kept_then_silent(ended(End::Done, "copy=0"), ended(End::Flaky, ""), KEPT)]
#[case::silent(ended(End::Precondition, ""), ended(End::Flaky, ""), None)]
fn cases_that_say_different_things(
    #[case] first: Outcome,
    #[case] second: Outcome,
    #[case] kept: Option<Kept>,
) {
    let data = shown(first, second);
    let assumption = assumption(&["copy/a"], &[], &[("copy", "0")]);
    assert_eq!(assumption.bind(&data).kept(0), kept);
}

/// Of the values that a fact may have, each must be allowed.
#[rstest]
#[case("0", "0", KEPT)]
#[case("1", "0", BROKEN)]
#[case("0|1", "0", BROKEN)]
#[case("1|0", "0", BROKEN)]
#[case("0|1", "0|1", KEPT)]
#[case("0|1|2", "0|1", BROKEN)]
#[case("0|1", "?", KEPT)]
fn what_may_be_otherwise_must_all_be_allowed(
    #[case] other: &str,
    #[case] allowed: &str,
    #[case] kept: Option<Kept>,
) {
    let data = shown(ended(End::Done, "copy=0"), ended(End::Done, "copy=0"));
    let assumption = assumption(&["copy/a"], &[], &[("copy", allowed)]);
    let in_the_second = |case: Case<'_>| {
        if case.axis("x") == Some("2") { vec![("copy", other)] } else { Vec::new() }
    };
    assert_eq!(assumption.bind(&data).kept_if(0, in_the_second), kept);
}

#[rstest]
#[case::repaired(ended(End::Done, "copy=1"), KEPT)]
#[case::hung(ended(End::Hang, "copy=0"), BROKEN)]
#[case::lacking(ended(End::Unsupported, ""), LACKS)]
#[case::silent(ended(End::Denied, ""), None)]
fn what_was_seen_stays_but_for_the_fact(#[case] seen: Outcome, #[case] kept: Option<Kept>) {
    let data = shown(seen.clone(), seen);
    let assumption = assumption(&["copy/a"], &[], &[("copy", "0")]);
    assert_eq!(assumption.bind(&data).kept_if(0, |_| vec![("copy", "0")]), kept);
}

#[test]
fn a_breach_names_case_and_fact() {
    let data = small();
    let assumption = assumption(&["copy/a"], &[], &[("copy", "0")]);
    let breaches = assumption.bind(&data).breaches(0);
    assert_eq!(breaches.len(), 2);
    let [case, fact, allowed, seen] =
        ["copy/a[backing=shmem,part=head]", "copy", "0", "1"].map(str::to_owned);
    assert_eq!(breaches[0], Breach { case, fact, allowed, seen });
}

#[test]
fn a_release_is_looked_up() {
    let data = small();
    let assumption = assumption(&["copy/a"], &[], &[("copy", "0")]);
    let answer = assumption.bind(&data).on(&Release::parse("6.12.90").expect("a release"));
    assert_eq!((answer.value, answer.certainty), (KEPT, Certainty::WithinSeries));
}

#[test]
fn json_round_trips() {
    let contract = Contract {
        name: "test".into(),
        title: "Test".into(),
        about: "Tests.".into(),
        snapshot: "1.0".into(),
        shares: vec![],
        assumptions: vec![assumption(&["copy/a"], &[], &[("copy", "0")])],
    };
    let text = serde_json::to_string(&contract).expect("json");
    assert_eq!(serde_json::from_str::<Contract>(&text).expect("own output"), contract);
    let wrong = text.replace("\"says\"", "\"sais\"");
    assert!(serde_json::from_str::<Contract>(&wrong).is_err());
}
