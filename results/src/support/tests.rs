use super::*;
use crate::dataset::tests::small;
use rstest::rstest;

#[rstest]
#[case("xxx", Extent::All, "on all")]
#[case("---", Extent::Never, "on none")]
#[case("--xx", Extent::Since { after: 1, by: 2 }, "6.1.170 < since <= 6.1.192")]
#[case("- x", Extent::Since { after: 0, by: 2 }, "5.10.262 < since <= 6.1.192")]
#[case("xx--", Extent::Until { last: 1, before: 2 }, "6.1.170 <= until < 6.1.192")]
#[case("-xx-x", Extent::In(vec![(1, 2), (4, 4)]), "in 6.1.170 to 6.1.192, 6.12.118 only")]
#[case("-x-", Extent::In(vec![(1, 1)]), "in 6.1.170 only")]
#[case("", Extent::Never, "on none")]
fn extents(#[case] seen: &str, #[case] extent: Extent, #[case] said: &str) {
    let answers = seen.char_indices().filter(|(_, value)| *value != ' ');
    let found = Support::of(answers).extent('x');
    assert_eq!(found.say(small().kernels()), said);
    assert_eq!(found, extent);
}

#[test]
fn runs_never_overlap() {
    let support = Support::of("aab ba".char_indices().filter(|(_, c)| *c != ' '));
    let runs: Vec<(char, usize, usize)> =
        support.runs().iter().map(|r| (r.value, r.first, r.last)).collect();
    assert_eq!(runs, [('a', 0, 1), ('b', 2, 4), ('a', 5, 5)]);
}

#[test]
fn a_statement_differs_by_the_axis_that_decides() {
    let data = small();
    let probe = data.probe("copy/a").expect("a probe");
    let statements = data.statements_of(probe);
    let copy = statements.iter().find(|s| s.fact == "copy").expect("the fact");
    assert_eq!((copy.differs_by(), copy.changes(), copy.groups.len()), (Some("backing"), true, 2));
    assert_eq!(copy.groups[0].cases.len(), 2, "the largest group is first");
    assert_eq!(copy.groups[0].support.extent("0"), Extent::Since { after: 2, by: 3 });
    let end = statements.iter().find(|s| s.fact == "end").expect("the fact");
    assert_eq!((end.differs_by(), end.changes()), (None, false));
}

#[test]
fn what_a_kernel_lacks_has_no_facts() {
    let data = small();
    let statements = data.statements_of(data.probe("move/b").expect("a probe"));
    let moved = statements.iter().find(|s| s.fact == "move").expect("the fact");
    // Where it is unsupported nothing is said of the fact; the hang of 7.3 left none.
    assert_eq!(moved.groups[0].support.extent("0"), Extent::Until { last: 3, before: 5 });
    let support = data.probe("move/b").expect("a probe").support(&data);
    assert_eq!(support.runs().len(), 3, "unsupported, holds, fails: {support:?}");
}

/// A claim that is false, as it should be by the sources, is false all the same.
#[rstest]
#[case(&["true", "true"], Some(Held::Holds))]
#[case(&["false", "false"], Some(Held::Fails))]
#[case(&["true", "false"], Some(Held::Partly))]
#[case(&["open", "true"], Some(Held::Holds))]
#[case(&["open", "open"], None)]
fn a_claim_stands_if_it_is_true(#[case] said: &[&str], #[case] stands: Option<Held>) {
    let outcome = |word: &&str| match *word {
        "open" => "!precondition\t\t".to_owned(),
        word => format!("claim={word}"),
    };
    let outcomes: Vec<String> = said.iter().map(outcome).collect();
    for expected in ["", "d"] {
        let cell = |(i, word): (usize, &&str)| {
            format!("{i}{}\n", if *word == "open" { "" } else { expected })
        };
        let rows: String = said.iter().enumerate().map(cell).collect();
        let kernel = "6.12.43\t6.12.43-x\t#1\tx86_64\t-\t-\ttcg\tabc";
        let text = format!(
            "uffd-results data 2\nkernels 1\n{kernel}\noutcomes 2\n{}\nrows 2\n{rows}probes 1\n\
             claims/x\tIt wakes.\n a=1\t0\n a=2\t1\nreasons 0\napart 0\nend\n",
            outcomes.join("\n")
        );
        let data = Dataset::parse(&text).expect("a table");
        assert_eq!(data.probe("claims/x").expect("a probe").stands(0), stands, "{text}");
    }
}
