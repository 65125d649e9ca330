//! Records that somebody else made: what there is to say of one, and how it joins those that are
//! here. Pure; that its texts are harmless `uffd_results::Record::read` has seen to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use uffd_results::{Cases, KernelVersion, Outcome, Record, Release, is_answer};
use uffd_suites::probe::Case;

/// What a person should know of a record before it is taken; nothing of it speaks against that.
pub(crate) fn remarks(record: &Record, text: &str, cases: &HashMap<String, Case>) -> Vec<String> {
    let mut remarks = Vec::new();
    let revision = uffd_suites::REVISION;
    if record.suite.revision != revision {
        remarks.push(format!(
            "it was asked by suite revision {}, this program has {revision}: a case may have asked \
             something else then, under the same id",
            record.suite.revision
        ));
    }
    let unknown: Vec<&str> =
        record.cases.iter().map(|(id, _)| id).filter(|id| !cases.contains_key(*id)).collect();
    if !unknown.is_empty() {
        let shown = unknown[..unknown.len().min(3)].join(", ");
        remarks.push(format!(
            "{} cases are none of this suite: they are kept, but nothing is said of them ({shown})",
            unknown.len()
        ));
    }
    if record.kernel.image_sha256.is_none() {
        remarks.push("its image is not known: two builds of one name can't be told apart".into());
    }
    let answers = record.cases.iter().filter(|(_, outcome)| is_answer(outcome.end)).count();
    if answers == 0 {
        remarks.push("it has no answer at all".into());
    }
    if record.to_json() != text {
        remarks.push(
            "it is not written as this program writes it: members that it does not know \
                      are left out, values that stand twice count once"
                .into(),
        );
    }
    remarks
}

/// Whether release and upstream version name one series; why not, if they don't.
pub fn contradiction(record: &Record) -> Option<String> {
    let kernel = &record.kernel;
    let release = match Release::parse(&kernel.release) {
        Ok(_) => KernelVersion::parse(&kernel.release).ok()?,
        Err(e) => return Some(format!("kernel.release: {e}")),
    };
    let upstream = record.upstream().ok()?;
    (release.series() != upstream.series()).then(|| {
        format!(
            "kernel.release is {}, but kernel.upstream {}: not of one series",
            kernel.release, kernel.upstream
        )
    })
}

/// A case that two records of one kernel answer differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The case.
    pub case: String,
    /// The first fact that differs.
    pub fact: String,
    /// What is recorded here.
    pub ours: String,
    /// What the other record says.
    pub theirs: String,
}

/// A record with the cases that it lacked.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The record.
    pub record: Record,
    /// How many cases were added.
    pub added: usize,
    /// How many stand in both, with an answer in only one: what was here is kept.
    pub skipped: usize,
    /// The answers that disagree: what was here is kept.
    pub conflicts: Vec<Conflict>,
}

/// Adds to a record the cases that it lacks and another one of the same kernel has. What is there
/// already is never replaced. An error says why the two are not of one kernel and suite.
pub fn merge(ours: &Record, theirs: &Record) -> Result<Merged, String> {
    same_subject(ours, theirs)?;
    let (mut added, mut skipped, mut conflicts) = (0, 0, Vec::new());
    let mut cases: Vec<(String, Outcome)> =
        ours.cases.iter().map(|(id, outcome)| (id.to_owned(), outcome.clone())).collect();
    for (id, new) in theirs.cases.iter() {
        let Some(old) = ours.cases.get(id) else {
            cases.push((id.to_owned(), new.clone()));
            added += 1;
            continue;
        };
        let Some(fact) = old.first_difference(new) else { continue };
        if is_answer(old.end) && is_answer(new.end) {
            let [ours, theirs] = [old, new].map(|outcome| outcome.value(fact).to_owned());
            conflicts.push(Conflict { case: id.to_owned(), fact: fact.to_owned(), ours, theirs });
        } else {
            skipped += 1;
        }
    }
    let by = if added == 0 { ours.by.clone() } else { both(ours.by.as_ref(), theirs.by.as_ref()) };
    let schema = ours.schema.max(theirs.schema);
    let record = Record { schema, cases: Cases::new(cases), by, ..ours.clone() };
    Ok(Merged { record, added, skipped, conflicts })
}

/// A case that records of one kernel answer in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The case.
    pub case: String,
    /// The first fact in which two of the answers differ.
    pub fact: String,
    /// Its values, sorted.
    pub values: Vec<String>,
}

/// Records of one kernel as one, whatever their order: a case has the answer that they agree on, or, if
/// none has one, a reason why not. Also the cases on which they disagree, which the record then lacks.
/// An error says why they are not of one kernel and suite.
pub fn join(records: &[Record]) -> Result<(Record, Vec<Disagreement>), String> {
    // The one that says most stands for all in what is not compared; of equals, any fixed one.
    let rank = |record: &&Record| (record.kernel.image_sha256.is_some(), record.cases.len());
    let mut ranked: Vec<&Record> = records.iter().collect();
    ranked.sort_by_cached_key(|record| (std::cmp::Reverse(rank(record)), record.to_json()));
    let Some((base, rest)) = ranked.split_first() else { return Err("there are none".into()) };
    for other in rest {
        same_subject(base, other)?;
    }
    let mut cases: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for (id, outcome) in ranked.iter().flat_map(|record| record.cases.iter()) {
        let known = cases.entry(id).or_default();
        if !known.contains(&outcome) {
            known.push(outcome);
        }
    }
    let (mut kept, mut disagreements) = (Vec::new(), Vec::new());
    for (id, mut outcomes) in cases {
        outcomes.sort_by_cached_key(|outcome| (!is_answer(outcome.end), outcome.to_string()));
        let answers = outcomes.iter().filter(|outcome| is_answer(outcome.end)).count();
        match (outcomes.as_slice(), answers) {
            ([first, second, ..], 2..) => {
                let fact = first.first_difference(second).unwrap_or("end").to_owned();
                let values = outcomes[..answers].iter().map(|o| o.value(&fact).to_owned());
                let values: BTreeSet<String> = values.collect();
                let (case, values) = (id.to_owned(), values.into_iter().collect());
                disagreements.push(Disagreement { case, fact, values });
            }
            ([first, ..], _) => kept.push((id.to_owned(), (*first).clone())),
            ([], _) => {}
        }
    }
    let names = records.iter().filter_map(|r| r.by.as_deref()).flat_map(|by| by.split(", "));
    let names: BTreeSet<&str> = names.collect();
    let by = (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "));
    let schema = records.iter().map(|record| record.schema).max().unwrap_or(base.schema);
    let record = Record { schema, cases: Cases::new(kept), by, ..(*base).clone() };
    Ok((record, disagreements))
}

/// Everybody who gave a part.
fn both(ours: Option<&String>, theirs: Option<&String>) -> Option<String> {
    match (ours, theirs) {
        (Some(a), Some(b)) if !a.split(", ").any(|name| name == b) => Some(format!("{a}, {b}")),
        (Some(a), _) => Some(a.clone()),
        (None, theirs) => theirs.cloned(),
    }
}

fn same_subject(ours: &Record, theirs: &Record) -> Result<(), String> {
    let (a, b) = (&ours.kernel, &theirs.kernel);
    let facts = [
        ("kernel.release", &a.release, &b.release),
        ("kernel.version", &a.version, &b.version),
        ("kernel.machine", &a.machine, &b.machine),
        ("kernel.upstream", &a.upstream, &b.upstream),
        ("suite.revision", &ours.suite.revision, &theirs.suite.revision),
        ("environment.append", &ours.environment.append, &theirs.environment.append),
    ];
    if let Some((place, ours, theirs)) = facts.into_iter().find(|(_, a, b)| a != b) {
        return Err(format!("{place} is {ours:?} here and {theirs:?} in the file"));
    }
    match (&a.image_sha256, &b.image_sha256) {
        (Some(a), Some(b)) if a != b => {
            Err(format!("kernel.image_sha256 is {a} here and {b} in the file"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::{fixture, rstest};
    use uffd_results::{End, Facts};

    fn done(text: &str) -> Outcome {
        Outcome::done(Facts::parse(text).expect("facts"))
    }

    #[fixture]
    fn record() -> Record {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let store = crate::store::Store::new(std::path::Path::new(folder));
        let mut record = store.load().expect("stored records").remove(0);
        let cases = [("copy/a[x=1]", done("copy=0")), ("copy/a[x=2]", done("copy=0"))];
        record.cases = Cases::new(cases.map(|(id, o)| (id.to_owned(), o)).into());
        record
    }

    #[rstest]
    fn what_is_there_is_kept_and_what_is_missing_comes(record: Record) {
        let skip = Outcome::ended(End::Precondition, "no pages", Facts::new());
        let cases = [
            ("copy/a[x=1]", done("copy=EIO")),
            ("copy/a[x=2]", skip),
            ("copy/a[x=3]", done("a=1")),
        ];
        let cases = Cases::new(cases.map(|(id, o)| (id.to_owned(), o)).into());
        let theirs = Record { cases, by: Some("A".into()), ..record.clone() };
        let merged = merge(&record, &theirs).expect("one kernel");
        let conflict = |case: &str, fact: &str, ours: &str, theirs: &str| {
            let [case, fact, ours, theirs] = [case, fact, ours, theirs].map(str::to_owned);
            Conflict { case, fact, ours, theirs }
        };
        assert_eq!(merged.conflicts, [conflict("copy/a[x=1]", "copy", "0", "EIO")]);
        assert_eq!((merged.added, merged.skipped), (1, 1));
        assert_eq!(merged.record.cases.get("copy/a[x=1]"), Some(&done("copy=0")));
        assert_eq!(merged.record.cases.get("copy/a[x=3]"), Some(&done("a=1")));
        assert_eq!(merged.record.by.as_deref(), Some("A"));
        let again = merge(&merged.record, &Record { by: Some("B".into()), ..theirs }).expect("one");
        assert_eq!((again.added, again.record.by.as_deref()), (0, Some("A")));
    }

    #[rstest]
    fn joined_records_do_not_depend_on_their_order(record: Record) {
        let skip = Outcome::ended(End::Precondition, "no pages", Facts::new());
        let with = |cases: Vec<(&str, Outcome)>| {
            let cases = cases.into_iter().map(|(id, o)| (id.to_owned(), o)).collect();
            Record { cases: Cases::new(cases), ..record.clone() }
        };
        let a = with(vec![("copy/a[x=1]", done("copy=0")), ("copy/a[x=2]", skip.clone())]);
        let b = with(vec![("copy/a[x=2]", done("copy=0")), ("copy/a[x=3]", done("copy=EIO"))]);
        let c = with(vec![("copy/a[x=3]", done("copy=0")), ("copy/a[x=4]", skip.clone())]);
        let orders =
            [[&a, &b, &c], [&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]];
        let joined: Vec<_> =
            orders.map(|order| join(&order.map(Clone::clone)).expect("one kernel")).into();
        assert!(joined.windows(2).all(|pair| pair[0] == pair[1]));
        let (record, disagreements) = &joined[0];
        let disagreement = Disagreement {
            case: "copy/a[x=3]".into(),
            fact: "copy".into(),
            values: vec!["0".into(), "EIO".into()],
        };
        assert_eq!(disagreements, &[disagreement]);
        assert_eq!(record.cases.get("copy/a[x=1]"), Some(&done("copy=0")));
        assert_eq!(
            record.cases.get("copy/a[x=2]"),
            Some(&done("copy=0")),
            "an answer beats a skip"
        );
        assert_eq!(record.cases.get("copy/a[x=3]"), None);
        assert_eq!(record.cases.get("copy/a[x=4]"), Some(&skip));
        let alone = join(std::slice::from_ref(&a)).expect("one record");
        assert_eq!(alone, (a.clone(), Vec::new()), "one alone stays as it is");
    }

    #[rstest]
    #[case("kernel.version", |r: &mut Record| r.kernel.version += "x")]
    #[case("kernel.machine", |r: &mut Record| r.kernel.machine += "x")]
    #[case("kernel.image_sha256", |r: &mut Record| r.kernel.image_sha256 = Some("0".repeat(64)))]
    #[case("suite.revision", |r: &mut Record| r.suite.revision += "x")]
    fn records_of_two_kernels_are_not_merged(
        record: Record,
        #[case] place: &str,
        #[case] change: fn(&mut Record),
    ) {
        let mut other = record.clone();
        change(&mut other);
        let why = merge(&record, &other).expect_err("refused");
        assert!(why.starts_with(place), "{why}");
    }

    #[rstest]
    fn what_there_is_to_say_is_said(mut record: Record) {
        let text = record.to_json();
        let remarks = |record: &Record| remarks(record, &text, &crate::known::cases());
        assert!(remarks(&record).iter().any(|r| r.contains("2 cases are none of this suite")));
        record.suite.revision = "other".into();
        record.cases = Cases::default();
        record.kernel.image_sha256 = None;
        let all = remarks(&record).join("\n");
        for word in ["revision other", "image is not known", "no answer at all", "not written as"] {
            assert!(all.contains(word), "{word}: {all}");
        }
    }

    #[rstest]
    fn release_and_version_must_agree(mut record: Record) {
        assert_eq!(contradiction(&record), None);
        record.kernel.upstream = "7.1".into();
        assert!(contradiction(&record).is_some_and(|why| why.contains("not of one series")));
        record.kernel.release = "banana".into();
        assert!(contradiction(&record).is_some_and(|why| why.contains("banana")));
    }

    /// Otherwise a record of ours would be refused where it is read.
    #[test]
    fn every_case_of_the_suite_has_a_well_formed_id() {
        for case in uffd_suites::cases() {
            assert!(uffd_results::is_case_id(&case.id()), "{}", case.id());
        }
    }
}
