use super::*;
use rstest::rstest;
use uffd_results::Facts;

/// A page awaited, moved from under its thread and placed too late: as every kernel answers it.
const ASKED: &str = "map anon a0..6; open 1; register 1 missing a0..6; user-read a2; munmap a2; \
                     copy 1 a2; wake 1 a2; close 1";
const SEEN: &str = "1=map=0;a-reg=......-- 2=open=0 3=register=0;a-reg=mmmmmm-- \
                    4=user-read=waits;queue-1=1/1 5=munmap=0;a-reg=mm-mmm-- 6=copy=ENOENT;field=-2 \
                    7=wake=0;w4=SEGV_MAPERR;queue-1=0/0 8=close=0;a-reg=..-...--";

fn breach(asked: &str, seen: &str) -> Option<Breach> {
    let facts = Facts::parse(seen).expect("facts of this test");
    first_breach(&asked.parse().expect("a sequence of this test"), &Outcome::done(facts))
}

#[test]
fn what_every_kernel_answers_breaks_no_rule() {
    assert_eq!(breach(ASKED, SEEN), None);
}

/// Every word that the rules speak of, once turned: each must be noticed, and nothing else blamed.
#[rstest]
#[case("register=0;a-reg=mmmmmm--", "register=0;a-reg=mmmmm.--", 2, "a-reg", "mmmmmm--")]
#[case("user-read=waits;queue-1=1/1", "user-read=ran:zero", 3, "user-read", "waits")]
#[case("munmap=0;a-reg=mm-mmm--", "munmap=0;a-reg=mm-mmm--;w4=again", 4, "w4", "asleep")]
#[case("munmap=0;a-reg=mm-mmm--", "munmap=0", 4, "a-reg", "mm-mmm--")]
#[case("munmap=0;a-reg=mm-mmm--", "munmap=0;a-reg=mm-mm.--", 4, "a-reg", "mm-mmm--")]
#[case("copy=ENOENT;field=-2", "copy=0;field=4096", 5, "copy", "ENOENT")]
#[case("copy=ENOENT;field=-2", "copy=EEXIST;field=-17", 5, "copy", "ENOENT")]
#[case("wake=0;w4=SEGV_MAPERR;queue-1=0/0", "wake=0", 6, "w4", "woken")]
#[case("wake=0;w4=SEGV_MAPERR;queue-1=0/0", "wake=ENOENT", 6, "wake", "0")]
#[case("close=0;a-reg=..-...--", "close=0", 7, "a-reg", "..-...--")]
fn each_turned_fact_is_noticed(
    #[case] from: &str,
    #[case] to: &str,
    #[case] step: usize,
    #[case] fact: &str,
    #[case] wanted: &str,
) {
    let other = SEEN.replacen(from, to, 1);
    assert_ne!(other, SEEN);
    let breach = breach(ASKED, &other).expect("a breach");
    assert_eq!((breach.step, &*breach.fact, &*breach.wanted), (step, fact, wanted));
    let sequence: Sequence = ASKED.parse().expect("a sequence of this test");
    let outcome = Outcome::done(Facts::parse(&other).expect("facts"));
    let right = corrected(&sequence, &outcome);
    assert_ne!(right, outcome);
    assert_ne!(
        first_breach(&sequence, &right).map(|b| (b.step, b.fact)),
        Some((step, fact.into()))
    );
}

#[rstest]
// A page that is there already, and one that is not.
#[case(
    "zeropage 1 a1; copy 1 a1",
    "4=zeropage=0;field=4096;a-pages=-0------ 5=copy=0;field=4096",
    "copy",
    "EEXIST"
)]
#[case("copy 1 a1", "4=copy=EEXIST;field=-17", "copy", "0")]
#[case("copy 1 a1", "4=copy=0;field=4096", "a-pages", "-c------")]
#[case("copy 1 a1", "4=copy=0;field=1;a-pages=-c------", "field", "4096")]
// Registration that moves along without having been asked to, or that of memory beside it that does not stay.
#[case("mremap a1 to b0", "4=mremap=0;a-reg=m-mmmm--;b-reg=m-------", "b-reg", ".-------")]
#[case("mremap a1 to b0", "4=mremap=0;a-reg=.-....--;b-reg=.-------", "a-reg", "m-mmmm--")]
#[case("open 2; register 2 missing a0", "4=open=0 5=register=0", "register", "EBUSY")]
#[case("register 1 missing c0..2", "4=register=0", "register", "EINVAL")]
#[case("unregister 1 a0..6", "4=unregister=0", "a-reg", "......--")]
#[case("user-read a7", "4=user-read=waits;queue-1=1/1", "user-read", "SEGV_MAPERR")]
fn broken_rules_are_named(
    #[case] asked: &str,
    #[case] seen: &str,
    #[case] fact: &str,
    #[case] wanted: &str,
) {
    let start = "map anon a0..6; open 1; register 1 missing a0..6";
    let told = "1=map=0;a-reg=......-- 2=open=0 3=register=0;a-reg=mmmmmm--";
    let breach = breach(&format!("{start}; {asked}"), &format!("{told} {seen}")).expect("a breach");
    assert_eq!((&*breach.fact, &*breach.wanted), (fact, wanted));
}

#[test]
fn where_the_state_is_not_known_nothing_is_said() {
    // A guarded page may be filled or not, and events change what moves along.
    let asked = "map anon a0..6; open 1 events; register 1 missing a0..6; guard a1; copy 1 a1; mremap a2 to b0";
    let told = "1=map=0;a-reg=......-- 2=open=0 3=register=0;a-reg=mmmmmm-- 4=guard=0";
    for copied in ["5=copy=0;field=4096;a-pages=-c------", "5=copy=EEXIST;field=-17"] {
        let seen =
            format!("{told} {copied} 6=mremap=0;events=remap@a2>b0;a-reg=mm-mmm--;b-reg=m-------");
        assert_eq!(breach(asked, &seen), None);
    }
}

#[test]
fn a_sequence_that_hangs_breaks_a_rule() {
    let facts = Facts::parse("1=map=0;a-reg=......--").expect("facts");
    let sequence: Sequence = "map anon a0..6; dontneed a0..6".parse().expect("a sequence");
    let hung = Outcome::ended(End::Hang, "in step \"2\"".to_owned(), facts);
    assert_eq!(first_breach(&sequence, &hung).map(|b| b.fact), Some("end".to_owned()));
    assert_eq!(corrected(&sequence, &hung).end, End::Done);
}
