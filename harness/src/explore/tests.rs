use super::*;
use rstest::rstest;
use uffd_results::{End, Facts};
use uffd_suites::explore::{Generator, LONGEST, Offer, Step};

const ASKED: &str = "map anon a0..6; open 1; register 1 missing a0..6; user-read a2; copy 1 a2";

fn sequence(text: &str) -> Sequence {
    text.parse().expect("a sequence of this test")
}

fn done(text: &str) -> Outcome {
    Outcome::done(Facts::parse(text).expect("facts of this test"))
}

fn differ(a: &str, b: &str) -> Option<(usize, String, [String; 2])> {
    match compare(&sequence(ASKED), &[done(a), done(b)]) {
        Compared::Differ(Difference { step, fact, values, .. }) => Some((step, fact, values)),
        Compared::Same => None,
        Compared::Unanswered(why) => panic!("{why}"),
    }
}

const SEEN: &str = "1=map=0;a-reg=......-- 2=open=0 3=register=0;a-reg=mmmmmm-- \
                    4=user-read=waits;queue-1=1/1 5=copy=0;field=4096;w4=ran:copied;queue-1=0/0";

#[test]
fn equal_answers_are_the_same() {
    assert_eq!(differ(SEEN, SEEN), None);
}

#[rstest]
#[case("5=copy=0", "5=copy=EEXIST", 4, "copy", ["0", "EEXIST"])]
#[case("field=4096", "field=untouched", 4, "field", ["4096", "untouched"])]
#[case(";w4=ran:copied", "", 4, "w4", ["ran:copied", "asleep"])]
#[case("w4=ran:copied", "w4=again", 4, "w4", ["ran:copied", "again"])]
#[case(";queue-1=0/0", "", 4, "queue-1", ["0/0", "1/1"])]
#[case(";a-reg=mmmmmm--", "", 2, "a-reg", ["mmmmmm--", "......--"])]
#[case("2=open=0", "2=open=0;events=remap@a0>b0", 1, "events", ["(nothing)", "remap@a0>b0"])]
#[case("1=map=0;a-reg=......--", "1=map=0;a-pages=--0-----;a-reg=......--", 0, "a-pages", ["--------", "--0-----"])]
fn each_kind_of_fact_is_noticed_when_it_is_another(
    #[case] from: &str,
    #[case] to: &str,
    #[case] step: usize,
    #[case] fact: &str,
    #[case] values: [&str; 2],
) {
    let other = SEEN.replacen(from, to, 1);
    assert_ne!(other, SEEN);
    assert_eq!(differ(SEEN, &other), Some((step, fact.to_owned(), values.map(str::to_owned))));
    let turned = [values[1].to_owned(), values[0].to_owned()];
    assert_eq!(differ(&other, SEEN), Some((step, fact.to_owned(), turned)));
}

#[test]
fn every_word_of_every_step_counts() {
    for (n, word) in SEEN.split([' ', ';']).enumerate() {
        let other: Vec<String> = SEEN
            .split([' ', ';'])
            .enumerate()
            .map(|(m, w)| if m == n { format!("{word}x") } else { w.to_owned() })
            .collect();
        // Words of a step begin anew with the step's number.
        let joined = other.iter().fold(String::new(), |text, word| {
            let new = word.as_bytes()[0].is_ascii_digit();
            let gap = if text.is_empty() {
                ""
            } else if new {
                " "
            } else {
                ";"
            };
            text + gap + word
        });
        assert!(differ(SEEN, &joined).is_some(), "{joined}");
    }
}

#[test]
fn the_last_close_counts() {
    let closed = format!("{SEEN} after=w4=SEGV_MAPERR");
    assert_eq!(differ(SEEN, SEEN), None);
    let (step, fact, _) = differ(SEEN, &closed).expect("a difference");
    assert_eq!((step, fact.as_str()), (5, "w4"));
}

#[test]
fn an_end_of_another_kind_is_a_difference_and_no_answer_is_none() {
    let facts = Facts::parse("1=map=0;a-reg=......--").expect("facts");
    let with = |end| [done(SEEN), Outcome::ended(end, "why", facts.clone())];
    for end in [End::Hang, End::Panic, End::Killed] {
        let Compared::Differ(difference) = compare(&sequence(ASKED), &with(end)) else {
            panic!("{end:?}")
        };
        assert_eq!((difference.step, difference.fact.as_str()), (1, "end"));
        assert_eq!(difference.values, ["done", end.word()]);
    }
    for end in [End::Broken, End::NotRun, End::Precondition, End::Denied, End::Flaky] {
        assert!(
            matches!(compare(&sequence(ASKED), &with(end)), Compared::Unanswered(_)),
            "{end:?}"
        );
    }
}

#[rstest]
#[case("a-reg", ["mm..mm--", "mmmmmm--"], "b-reg", ["..m.----", "m.m.----"], true)]
#[case("a-reg", ["mm..mm--", "mmmmmm--"], "a-reg", ["mm--mm--", "mmmmmm--"], false)]
#[case("w3", ["asleep", "again"], "w12", ["asleep", "again"], true)]
#[case("w3", ["asleep", "again"], "w3", ["asleep", "ran"], false)]
#[case("field", ["4096", "-14"], "field", ["8192", "-14"], true)]
#[case("events", ["unmap@a0..2", "unmap@a0,unmap@a1"], "events", ["unmap@b1..3", "unmap@b1,unmap@b2"], true)]
#[case("copy", ["0", "ENOENT"], "copy", ["0", "EEXIST"], false)]
fn differences_are_alike_where_only_places_and_numbers_are_not(
    #[case] fact: &str,
    #[case] values: [&str; 2],
    #[case] other_fact: &str,
    #[case] other: [&str; 2],
    #[case] alike: bool,
) {
    let difference = |fact: &str, values: [&str; 2]| Difference {
        step: 3,
        verb: "copy".into(),
        fact: fact.into(),
        values: values.map(str::to_owned),
    };
    let one = difference(fact, values).signature();
    assert_eq!(one == difference(other_fact, other).signature(), alike);
}

/// Two kernels of which the second fails to do the last of two steps if the first came before.
struct Planted {
    first: Step,
    second: Step,
    asked: usize,
}

impl Planted {
    fn answer(&self, sequence: &Sequence, is_second: bool) -> Outcome {
        let mut met = false;
        let said = sequence.steps().iter().enumerate().map(|(n, step)| {
            let fails = is_second && met && step.verb() == self.second.verb();
            met |= step.verb() == self.first.verb();
            format!("{}={}={}", n + 1, step.verb(), if fails { "EINVAL" } else { "0" })
        });
        done(&said.collect::<Vec<_>>().join(" "))
    }
}

impl Sides for Planted {
    fn ask(&mut self, sequences: &[Sequence]) -> anyhow::Result<Vec<[Outcome; 2]>> {
        self.asked += sequences.len();
        let answers = |s| [self.answer(s, false), self.answer(s, true)];
        Ok(sequences.iter().map(answers).collect())
    }
}

#[rstest]
fn a_planted_cause_of_two_steps_is_found(#[values(1, 2, 3)] seed: u64) {
    let step = |text: &str| text.parse::<Step>().expect("a step");
    let (first, second) = (step("mprotect none a0"), step("munmap a0"));
    let mut planted = Planted { first, second, asked: 0 };
    let generator = Generator::new(seed, LONGEST, Offer::ALL.to_vec());
    let mut findings = Findings::default();
    let sequences: Vec<Sequence> = (0..300).map(|n| generator.sequence(n)).collect();
    for (sequence, outcomes) in sequences.iter().zip(planted.ask(&sequences).expect("answers")) {
        findings.take(sequence, outcomes);
    }
    let found = findings.into_found();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].count > 3);
    let shrunk = shrink(found, &mut planted, &mut |_| {}).expect("answers");
    let [Shrunk { found, repeats: true }] = &shrunk[..] else { panic!("{shrunk:?}") };
    let verbs: Vec<&str> = found.sequence.steps().iter().map(|step| step.verb()).collect();
    assert_eq!(verbs, ["mprotect", "munmap"], "{shrunk:?}");
    assert!(!found.sequence.to_string().contains(".."), "one page each: {shrunk:?}");
}

/// Two kernels that differ only the first time that they are asked.
struct Once(bool);

impl Sides for Once {
    fn ask(&mut self, sequences: &[Sequence]) -> anyhow::Result<Vec<[Outcome; 2]>> {
        let other = if std::mem::replace(&mut self.0, false) { "1=map=EINVAL" } else { "1=map=0" };
        Ok(sequences.iter().map(|_| [done("1=map=0"), done(other)]).collect())
    }
}

#[test]
fn what_does_not_repeat_is_told_so() {
    let mut once = Once(true);
    let asked = sequence("map anon a0");
    let mut findings = Findings::default();
    for outcomes in once.ask(std::slice::from_ref(&asked)).expect("answers") {
        findings.take(&asked, outcomes);
    }
    let shrunk = shrink(findings.into_found(), &mut once, &mut |_| {}).expect("answers");
    assert_eq!(shrunk.len(), 1);
    assert!(!shrunk[0].repeats);
}
