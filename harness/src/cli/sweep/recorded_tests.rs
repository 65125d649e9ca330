use super::{find, is_current, keep_others};
use crate::kernels::{Identity, Image};
use crate::store::{self, Store};
use rstest::{fixture, rstest};
use std::path::Path;
use uffd_results::{Cases, End, Facts, Outcome, Record};
use uffd_suites::probe::Case;

/// Cases that need no module, and what they have shown.
fn asked() -> (Vec<Case>, Vec<(String, Outcome)>) {
    let cases = uffd_suites::registry().iter().filter(|case| case.modules().is_empty()).take(3);
    let cases: Vec<Case> = cases.copied().collect();
    let done = |case: &Case| (case.id(), Outcome::done(Facts::parse("copy=0").expect("facts")));
    let outcomes = cases.iter().map(done).collect();
    (cases, outcomes)
}

/// A record of these cases by this program.
#[fixture]
fn record() -> Record {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let record = Store::new(Path::new(golden)).load().expect("stored records").remove(0);
    Record { suite: crate::cli::report::suite(), cases: Cases::new(asked().1), ..record }
}

/// The image that a record is of.
fn image(record: &Record) -> Image {
    let kernel = &record.kernel;
    let identity = Identity {
        upstream: record.upstream().expect("a version"),
        release: kernel.release.clone(),
        package: kernel.package.clone(),
        image_sha256: kernel.image_sha256.clone().expect("known"),
        config: kernel.config.clone(),
    };
    Image::bare(identity)
}

#[rstest]
fn a_record_of_more_cases_is_up_to_date(record: Record) {
    let (cases, _) = asked();
    assert!(is_current(&record, &image(&record), &cases[..1]));
    assert!(is_current(&record, &image(&record), &cases));
    let with = |end| {
        let (_, mut outcomes) = asked();
        outcomes[0].1 = Outcome::ended(end, "so", Facts::new());
        Record { cases: Cases::new(outcomes), ..record.clone() }
    };
    assert!(!is_current(&with(End::NotRun), &image(&record), &cases));
    assert!(is_current(&with(End::Precondition), &image(&record), &cases));
    let fewer = Record { cases: Cases::new(asked().1.split_off(1)), ..record.clone() };
    assert!(!is_current(&fewer, &image(&record), &cases));
}

#[rstest]
fn a_record_without_the_configuration_that_is_there_now_is_old(mut record: Record) {
    let with = image(&record);
    assert!(!with.identity.config.is_empty());
    record.kernel.config.clear();
    assert!(!is_current(&record, &with, &asked().0));
    assert!(is_current(&record, &image(&record), &asked().0));
}

#[rstest]
fn what_must_not_be_replaced_is_replaced_by_force_only(record: Record) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.json");
    let (same, mut other) = (image(&record), image(&record));
    other.identity.image_sha256 = "0".repeat(64);
    let is_here = |image: &Image, is_own, force| {
        find(&path, image, is_own, force)
            .map(|found| found.is_some())
            .map_err(|error| error.to_string())
    };
    assert_eq!(is_here(&same, true, false), Ok(false), "nothing is there");
    store::write(&path, &record).expect("written");
    assert_eq!(is_here(&same, true, false), Ok(true));
    assert_eq!(is_here(&other, false, false), Ok(true), "the package's next version");
    let error = is_here(&other, true, false).expect_err("refused");
    assert!(["r.json", "another build", "--force"].iter().all(|w| error.contains(w)), "{error}");
    assert_eq!(is_here(&other, true, true), Ok(true));
    let mut unknown = record.clone();
    unknown.kernel.image_sha256 = None;
    store::write(&path, &unknown).expect("written");
    let error = is_here(&same, true, false).expect_err("refused");
    assert!(error.contains("does not say of which image"), "{error}");
    std::fs::write(&path, "{\"schema\": 99, \"new\": []}").expect("written");
    let error = is_here(&same, false, false).expect_err("refused");
    assert!(["r.json", "schema 99", "--force"].iter().all(|w| error.contains(w)), "{error}");
    assert_eq!(is_here(&same, false, true), Ok(false));
}

#[rstest]
fn answers_to_what_is_not_asked_now_are_kept(record: Record) {
    let (_, outcomes) = asked();
    let old = Record { by: Some("A".into()), ..record.clone() };
    let fewer = || Record { cases: Cases::new(outcomes[..1].to_vec()), ..record.clone() };
    let mut new = fewer();
    assert!(matches!(keep_others(&mut new, &old, false), Ok(None)));
    assert_eq!(new, old);
    let mut new = fewer();
    new.suite.revision.push('x');
    let note = keep_others(&mut new, &old, false).expect("allowed").expect("a note");
    assert!(note.contains("2 answers") && new.cases.len() == 1, "{note}");
    let mut new = fewer();
    new.environment.accelerator = "kvm".into();
    let error = keep_others(&mut new, &old, false).expect_err("refused").to_string();
    assert!(error.contains("--full --resume"), "{error}");
    assert!(keep_others(&mut new, &old, true).expect("allowed").is_some());
    assert_eq!(new.cases.len(), 1);
}
