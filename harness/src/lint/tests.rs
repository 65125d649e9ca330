use super::*;
use crate::known;
use crate::store::Store;
use rstest::{fixture, rstest};
use std::path::Path;
use std::sync::OnceLock;
use uffd_results::{Cases, Facts, Record};

/// The stored records and what is odd in them, which the tests add to.
struct Stored {
    records: Vec<Record>,
    cases: HashMap<String, Case>,
}

#[fixture]
fn stored() -> &'static Stored {
    static STORED: OnceLock<Stored> = OnceLock::new();
    STORED.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let records = Store::new(Path::new(folder)).load().expect("stored records");
        Stored { records, cases: known::cases() }
    })
}

fn findings(records: &[Record], notes: &[Note], stored: &Stored) -> Vec<Finding> {
    let data = known::dataset(records).expect("a dataset");
    lint(&Known::from(data), notes, &stored.cases)
}

/// The newest record with one fact of one case changed.
fn changed(stored: &Stored, value: &str) -> (Vec<Record>, String) {
    let mut records = stored.records.clone();
    let record = records.last_mut().expect("a record");
    let version = record.upstream().expect("a version");
    let passes = |id: &str, outcome: &Outcome| {
        let case = stored.cases.get(id)?;
        (judge(case, outcome, version).verdict == Verdict::Pass).then_some(())?;
        outcome.facts.get("copy").filter(|seen| *seen == "0").map(|_| ())
    };
    let (id, outcome) =
        record.cases.iter().find(|(id, o)| passes(id, o).is_some()).expect("a case that copies");
    let text = outcome.to_string().replace("copy=0", &format!("copy={value}"));
    let (id, other) = (id.to_owned(), Outcome::done(Facts::parse(&text).expect("facts")));
    let cases = record
        .cases
        .iter()
        .map(|(i, o)| (i.to_owned(), if i == id { other.clone() } else { o.clone() }));
    record.cases = Cases::new(cases.collect());
    (records, id)
}

fn note(probe: &str) -> Note {
    let (says, source) = ("So.".to_owned(), "mm/a.c: b()".to_owned());
    Note { probe: probe.to_owned(), kernels: Vec::new(), facts: Vec::new(), says, source }
}

/// The findings that the records do not have as they are.
fn new(found: Vec<Finding>, stored: &Stored) -> Vec<Finding> {
    let before = findings(&stored.records, &[], stored);
    found.into_iter().filter(|finding| !before.contains(finding)).collect()
}

#[rstest]
fn one_fact_changed_by_hand_is_found_until_it_is_noted(stored: &'static Stored) {
    let (records, id) = changed(stored, "EIO");
    let probe = id.split('[').next().expect("a probe");
    let found = new(findings(&records, &[], stored), stored);
    let [Finding { kind: Kind::Partial, place, what }] = &found[..] else { panic!("{found:?}") };
    assert!(place.contains(probe) && what.contains(&id) && what.contains("saw EIO"), "{found:?}");

    let right = Note { facts: vec!["copy".into()], kernels: vec!["6.12".into()], ..note(probe) };
    assert_eq!(new(findings(&records, std::slice::from_ref(&right), stored), stored), []);
    let elsewhere = Note { kernels: vec!["5.10".into()], ..right };
    assert!(new(findings(&records, &[elsewhere], stored), stored).contains(&found[0]));
}

#[rstest]
#[case(note("copy/nowhere"), Kind::Orphan, "no recorded probe")]
#[case(Note { says: " ".into(), ..note("*") }, Kind::Orphan, "says nothing")]
#[case(Note { kernels: vec!["9.9".into()], ..note("*") }, Kind::Orphan, "no recorded kernel is")]
#[case(Note { facts: vec!["none".into()], ..note("*") }, Kind::Orphan, "the fact \"none\"")]
#[case(Note { kernels: vec!["5.10".into()], ..note("copy/*") }, Kind::Orphan, "explain on 5.10")]
fn notes_must_be_about_something(
    stored: &'static Stored,
    #[case] wrong: Note,
    #[case] kind: Kind,
    #[case] what: &str,
) {
    let (records, _) = changed(stored, "EIO");
    let found = findings(&records, &[wrong], stored);
    assert!(found.iter().any(|f| f.kind == kind && f.what.contains(what)), "{found:?}");
}

#[rstest]
fn two_notes_for_one_thing_and_two_records_of_one_kernel_overlap(stored: &'static Stored) {
    let (mut records, id) = changed(stored, "EIO");
    let probe = id.split('[').next().expect("a probe");
    let found = findings(&records, &[note(probe), note(probe)], stored);
    assert!(found.iter().any(|f| f.kind == Kind::Overlap && f.what.contains("note 1")));
    records.push(records[1].clone());
    let found = findings(&records, &[], stored);
    assert!(found.iter().any(|f| f.kind == Kind::Overlap && f.what.contains("recorded twice")));
}

#[rstest]
fn a_change_that_nothing_explains_is_found(stored: &'static Stored) {
    let (records, id) = changed(stored, "0");
    // The same again on a kernel behind it, with a fact more of which nothing is expected.
    let mut records = [records[1].clone(), records[1].clone()];
    let outcome = records[1].cases.get(&id).expect("the case");
    let text = format!("{outcome} more=x");
    let more = Outcome::done(Facts::parse(&text).expect("facts"));
    let cases = records[1]
        .cases
        .iter()
        .map(|(i, o)| (i.to_owned(), if i == id { more.clone() } else { o.clone() }));
    records[1].cases = Cases::new(cases.collect());
    records[1].kernel.release = "6.12.119".into();
    records[1].kernel.upstream = "6.12.119".into();
    let found = findings(&records, &[], stored);
    let found: Vec<_> = found.iter().filter(|f| f.kind == Kind::Unexplained).collect();
    let [only] = &found[..] else { panic!("{found:?}") };
    assert!(only.place.ends_with("on 6.12.119") && only.what.contains("now x"), "{only:?}");
}
