use super::*;
use crate::dataset::tests::small;
use crate::lookup::Certainty;
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
