use super::*;
use rstest::rstest;
use uffd_results::{Breaks, Cases, Facts, Need, SCHEMA};

/// Facts, or with `!` another end than done.
fn outcome(text: &str) -> Outcome {
    match text.strip_prefix('!').and_then(End::from_word) {
        Some(end) => Outcome::ended(end, "why", Facts::new()),
        None => Outcome::done(Facts::parse(text).expect("facts")),
    }
}

/// Of a kernel of that version, what some cases showed.
fn record(version: &str, cases: &[(&str, &str)]) -> Record {
    let of = crate::bench::testing::measured(version, &[]);
    let cases = cases.iter().map(|(id, seen)| ((*id).to_owned(), outcome(seen)));
    Record {
        schema: SCHEMA,
        kernel: uffd_results::Kernel { release: version.to_owned(), ..of.kernel },
        environment: of.environment,
        suite: of.suite,
        by: None,
        cases: Cases::new(cases.collect()),
    }
}

/// Of a kernel that keeps what is assumed in one case, and ends another one so.
fn ended(end: End) -> Findings {
    Findings {
        record: record("6.12", &[("copy/a", "copy=0"), ("copy/b", &format!("!{}", end.word()))]),
        left_out: 0,
        took: Duration::ZERO,
        nearest: Vec::new(),
        certainty: String::new(),
        surprises: Vec::new(),
        broken: Vec::new(),
        open: Vec::new(),
        sums: vec![("program".into(), [1, 0, 0])],
    }
}

#[rstest]
#[case(End::Done, Exit::Expected, "This kernel answers as recorded.")]
#[case(End::Precondition, Exit::Expected, "This kernel answers as recorded.")]
#[case(End::Broken, Exit::Different, "Not all was asked: 1 case has no answer")]
#[case(End::Flaky, Exit::Different, "Not all was asked: 1 case has no answer")]
#[case(End::NotRun, Exit::Different, "Not all was asked: 1 case has no answer")]
fn who_was_not_asked_all_has_not_passed(#[case] end: End, #[case] exit: Exit, #[case] says: &str) {
    let findings = ended(end);
    assert!(findings.exit(false) == exit);
    let said = text::verdict(&findings);
    assert!(said.starts_with(says), "{said}");
}

#[test]
fn a_user_without_privileges_is_not_asked_for_faults_of_the_kernel() {
    let kept: Vec<String> =
        uffd_suites::cases().iter().filter(|c| is_of_user_mode(c)).map(Case::id).collect();
    assert!(kept.iter().any(|id| id.contains("waiter=user-read")));
    for word in ["waiter=sys-read", "who=vm-write", "access=mlock", "waiter=vcpu-read"] {
        assert!(!kept.iter().any(|id| id.contains(word)), "{word}");
    }
}

/// COPY while an event is unread: the result field is written in 6.12.29 and from 6.15 on.
const UNREAD: &str = "copy/event-unread[backing=anon]";
const WRITTEN: &str = "copy=EAGAIN field=-11 pages=------ event=remove madvise=0";
const UNTOUCHED: &str = "copy=EAGAIN field=untouched pages=------ event=remove madvise=0";
/// MOVE of a pinned page: the kernel's configuration decides what ends it.
const PINNED: &str = "move/thp-pinned[pinned=7,moves=7,waiter=user-read]";

/// What is found of a kernel that showed that of a case, beside kernels that were recorded with it.
fn found(case: &str, version: &str, seen: &str, recorded: &[(&str, &str)]) -> Findings {
    let records: Vec<Record> =
        recorded.iter().map(|(version, seen)| record(version, &[(case, seen)])).collect();
    let known = Known::from(known::dataset(&records).expect("versions"));
    let cases = [known::cases().remove(case).expect("a case of the suite")];
    let own = record(version, &[(case, seen)]);
    find(own, Duration::ZERO, &cases, &[], &known).expect("versions")
}

/// Fact, what was seen, what was wanted, and the beginning of who says so.
#[rstest]
#[case::as_recorded("6.12.43", WRITTEN, &[("6.12.43", WRITTEN)], None)]
#[case::other_than_recorded(
    "6.12.43", UNTOUCHED, &[("6.12.43", WRITTEN)],
    Some(["field", "untouched", "-11", "recorded on 6.12.43"]))]
#[case::what_is_expected_but_not_recorded(
    "6.12.43", WRITTEN, &[("6.12.43", UNTOUCHED)],
    Some(["field", "-11", "untouched", "recorded on 6.12.43"]))]
#[case::between_two(
    "6.12.80", UNTOUCHED, &[("6.12.43", WRITTEN), ("6.12.118", WRITTEN)],
    Some(["field", "untouched", "-11", "recorded on 6.12.43 and 6.12.118"]))]
#[case::another_end_than_recorded(
    "6.12.43", "!hang", &[("6.12.43", WRITTEN)], Some(["end", "hang", "done", "recorded on 6.12.43"]))]
#[case::a_feature_gone(
    "6.12.43", "!unsupported", &[("6.12.43", WRITTEN)],
    Some(["end", "unsupported", "done", "recorded on 6.12.43"]))]
#[case::a_skip("6.12.43", "!precondition", &[("6.12.43", WRITTEN)], None)]
#[case::as_expected("6.12.43", WRITTEN, &[], None)]
#[case::a_hang("6.12.43", "!hang", &[], Some(["end", "hang", "done", "every case should end"]))]
#[case::other_than_expected(
    "6.12.43", UNTOUCHED, &[], Some(["field", "untouched", "-11", "commit 95567729173e"]))]
#[case::not_observed(
    "6.12.43", "copy=EAGAIN", &[], Some(["field", "(none)", "-11", "commit 95567729173e"]))]
#[case::without_the_feature("6.12.43", "!unsupported", &[], None)]
#[case::apart_as_expected("6.13.2", UNTOUCHED, &[("6.12.43", WRITTEN), ("6.15.3", WRITTEN)], None)]
#[case::apart_as_recorded(
    "6.13.2", WRITTEN, &[("6.12.43", WRITTEN), ("6.15.3", WRITTEN)],
    Some(["field", "-11", "untouched", "commit 95567729173e"]))]
fn what_is_no_surprise(
    #[case] version: &str,
    #[case] seen: &str,
    #[case] recorded: &[(&str, &str)],
    #[case] expected: Option<[&str; 4]>,
) {
    let surprises = found(UNREAD, version, seen, recorded).surprises;
    assert_eq!(surprises.len(), usize::from(expected.is_some()));
    for (Surprise { case, fact, here, wanted, source }, [f, h, w, who]) in
        surprises.iter().zip(expected)
    {
        assert_eq!([case, fact, here, wanted], [UNREAD, f, h, w]);
        assert!(source.starts_with(who), "{source}");
    }
}

#[rstest]
#[case("spins=true move=0 field=4096 waiter=asleep", None)]
#[case("spins=true move=0 field=-16 waiter=ran", Some(["waiter", "asleep"]))]
#[case("spins=false move=0 field=4096 waiter=asleep", Some(["spins", "true"]))]
#[case("spins=true move=EIO field=4096 waiter=asleep", Some(["move", "EBUSY"]))]
#[case("!hang", Some(["end", "done"]))]
fn what_the_configuration_decides_is_no_surprise(
    #[case] seen: &str,
    #[case] expected: Option<[&str; 2]>,
) {
    let recorded = [("6.12.43", "spins=true move=EBUSY field=-16 waiter=asleep")];
    let surprises = found(PINNED, "6.12.43", seen, &recorded).surprises;
    let named = surprises.first().map(|s| [s.fact.as_str(), &s.wanted]);
    assert_eq!((named, surprises.len()), (expected, usize::from(expected.is_some())));
}

#[test]
fn what_stands_beside_a_kernel_is_named() {
    let around = [("6.12.43", WRITTEN), ("6.12.118", WRITTEN)];
    let findings = found(UNREAD, "6.12.80", WRITTEN, &around);
    assert_eq!(findings.nearest, ["6.12.43", "6.12.118"]);
    assert_eq!(findings.certainty, "within series");
    let findings = found(UNREAD, "7.3", WRITTEN, &around);
    assert_eq!(findings.nearest, ["6.12.118"]);
    assert_eq!(findings.certainty, uffd_results::Why::Newer.to_string());
}

/// That the field is written, in all of these cases.
fn assumption() -> Assumption {
    let words = |word: &str| vec![word.to_owned()];
    Assumption {
        id: "test.field".into(),
        says: "The field is written.".into(),
        r#where: words("file.c: function()"),
        breaks: Breaks::Hang,
        effect: "It hangs.".into(),
        needs: vec![Need {
            cases: words("copy/event-unread"),
            except: Vec::new(),
            facts: [("field".to_owned(), "-11".to_owned())].into(),
        }],
        not_asked: None,
    }
}

fn broken(everywhere: bool) -> Broken {
    let (contract, assumption) = ("program".into(), assumption());
    Broken { contract, assumption, breaches: Vec::new(), everywhere }
}

fn surprise_of(fact: &str) -> Surprise {
    let [case, fact, here, wanted, source] =
        [UNREAD, fact, "untouched", "-11", "recorded on 6.12.43"].map(str::to_owned);
    Surprise { case, fact, here, wanted, source }
}

#[rstest]
#[case::nothing_odd([1, 0, 0], vec![], vec![], [Exit::Expected; 2])]
#[case::a_surprise([1, 0, 0], vec![surprise_of("field")], vec![], [Exit::Different; 2])]
#[case::a_surprise_alone([0, 0, 1], vec![surprise_of("field")], vec![], [Exit::Different; 2])]
#[case::broken_here([1, 1, 0], vec![], vec![broken(false)], [Exit::Different; 2])]
#[case::broken_everywhere([1, 1, 0], vec![], vec![broken(true)], [Exit::Expected, Exit::Different])]
#[case::only_broken_everywhere([0, 1, 0], vec![], vec![broken(true)], [Exit::Expected, Exit::Different])]
#[case::both([0, 2, 0], vec![], vec![broken(true), broken(false)], [Exit::Different; 2])]
#[case::nothing_answered([0, 0, 3], vec![], vec![], [Exit::Nothing; 2])]
#[case::nothing_asked([0, 0, 0], vec![], vec![], [Exit::Nothing; 2])]
fn how_a_check_ends(
    #[case] sum: [usize; 3],
    #[case] surprises: Vec<Surprise>,
    #[case] broken: Vec<Broken>,
    #[case] exits: [Exit; 2],
) {
    let sums = vec![("none".into(), [0; 3]), ("program".into(), sum)];
    let findings = Findings { surprises, broken, sums, ..ended(End::Done) };
    assert_eq!([findings.exit(false), findings.exit(true)], exits);
}

const SHMEM: &str = "copy/event-unread[backing=shmem]";

/// What is said of the assumption on a kernel, in both cases, beside kernels that were recorded with them.
fn judged(version: &str, seen: [&str; 2], recorded: &[(&str, [&str; 2])]) -> Findings {
    let both = |version: &str, [anon, shmem]: [&str; 2]| {
        record(version, &[(UNREAD, anon), (SHMEM, shmem)])
    };
    let records: Vec<Record> =
        recorded.iter().map(|(version, seen)| both(version, *seen)).collect();
    let text = |text: &str| text.to_owned();
    let program = Contract {
        name: text("program"),
        title: text("Program"),
        about: text("Tests."),
        snapshot: text("1.0"),
        shares: Vec::new(),
        assumptions: vec![assumption()],
    };
    let known = Known {
        contracts: vec![program.clone()],
        ..Known::from(known::dataset(&records).expect("versions"))
    };
    find(both(version, seen), Duration::ZERO, &[], &[&program], &known).expect("versions")
}

/// How many assumptions are kept, broken and open.
#[rstest]
#[case::all_answer([WRITTEN; 2], &[], [1, 0, 0])]
#[case::one_breaks([WRITTEN, UNTOUCHED], &[], [0, 1, 0])]
#[case::one_is_silent([WRITTEN, "!precondition"], &[], [1, 0, 0])]
#[case::all_are_silent(["!precondition"; 2], &[], [0, 0, 1])]
#[case::none_has_the_feature(["!unsupported"; 2], &[], [0, 0, 1])]
#[case::its_neighbour_keeps_it_there(
    [WRITTEN, "!precondition"], &[("6.12.118", [UNTOUCHED, WRITTEN])], [1, 0, 0])]
#[case::its_neighbour_breaks_it_there(
    [WRITTEN, "!precondition"], &[("6.12.118", [WRITTEN, UNTOUCHED])], [0, 0, 1])]
#[case::the_older_neighbour_does(
    [WRITTEN, "!flaky"], &[("6.12.43", [WRITTEN, UNTOUCHED]), ("6.12.118", [WRITTEN; 2])], [0, 0, 1])]
#[case::one_behind_its_neighbour_does(
    [WRITTEN, "!precondition"], &[("6.12.118", [WRITTEN; 2]), ("7.3", [WRITTEN, UNTOUCHED])], [1, 0, 0])]
fn what_is_silent_where_a_neighbour_breaks_is_open(
    #[case] seen: [&str; 2],
    #[case] recorded: &[(&str, [&str; 2])],
    #[case] sum: [usize; 3],
) {
    let findings = judged("6.12.80", seen, recorded);
    assert_eq!(findings.sums, [("program".to_owned(), sum)]);
    assert_eq!([findings.broken.len(), findings.open.len()], [sum[1], sum[2]]);
}

#[test]
fn why_an_assumption_is_open_is_said_once() {
    let findings = judged("6.12.80", ["!precondition"; 2], &[]);
    assert_eq!(findings.open[0].why, ["precondition: why"]);
    let breaches = &judged("6.12.80", [WRITTEN, UNTOUCHED], &[]).broken[0].breaches;
    let seen: Vec<[&str; 2]> = breaches.iter().map(|b| [b.case.as_str(), &b.seen]).collect();
    assert_eq!(seen, [[SHMEM, "untouched"]]);
}

#[rstest]
#[case::nobody_was_recorded(&[], false)]
#[case::all_break_it(&["untouched", "untouched"], true)]
#[case::one_keeps_it(&["untouched", "written"], false)]
#[case::the_first_keeps_it(&["written", "untouched"], false)]
#[case::some_lack_the_feature(&["unsupported", "untouched"], true)]
#[case::all_lack_the_feature(&["unsupported", "unsupported"], false)]
#[case::some_are_silent(&["silent", "untouched"], true)]
#[case::all_are_silent(&["silent", "silent"], false)]
fn what_is_broken_everywhere(#[case] recorded: &[&str], #[case] everywhere: bool) {
    let seen = |word: &&str| match *word {
        "untouched" => [UNTOUCHED; 2],
        "written" => [WRITTEN; 2],
        "silent" => ["!precondition"; 2],
        _ => ["!unsupported"; 2],
    };
    let versions = ["6.1.170", "6.12.118"];
    let recorded: Vec<(&str, [&str; 2])> =
        versions.into_iter().zip(recorded.iter().map(seen)).collect();
    let findings = judged("7.3", [UNTOUCHED; 2], &recorded);
    assert_eq!(findings.broken[0].everywhere, everywhere);
    assert_eq!(findings.exit(false) == Exit::Expected, everywhere);
}
