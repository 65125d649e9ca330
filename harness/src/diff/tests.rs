use super::*;
use rstest::rstest;
use uffd_results::{Cases, Facts, Record};

const POINT: &str = "copy/unchanged[backing=anon,waiter=user-read,msg=read]";
const OTHER: &str = "copy/unchanged[backing=shmem,waiter=user-read,msg=read]";

/// A stored record with other cases and another version.
fn record(upstream: &str, cases: &[(&str, Outcome)]) -> Record {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let store = crate::store::Store::new(std::path::Path::new(folder));
    let mut record = store.load().expect("stored records").remove(0);
    (record.kernel.upstream, record.kernel.release) = (upstream.into(), upstream.into());
    record.cases =
        Cases::new(cases.iter().map(|(id, outcome)| ((*id).to_owned(), outcome.clone())).collect());
    record
}

/// What is expected of a case on a kernel, the first where several values are.
fn expected(id: &str, kernel: uffd_results::KernelVersion) -> String {
    let case = known::cases().remove(id).expect("a case");
    let words: Vec<String> = case
        .expect(kernel)
        .iter()
        .map(|e| format!("{}={}", e.fact, e.value.split('|').next().unwrap_or_default()))
        .collect();
    words.join(" ")
}

fn good(id: &str) -> Outcome {
    let expected = expected(id, uffd_results::KernelVersion::new(6, 12, 1));
    Outcome::done(Facts::parse(&expected).expect("facts"))
}

fn bad(id: &str, value: &str) -> Outcome {
    let text = good(id).to_string().replace("copy=0", &format!("copy={value}"));
    Outcome::done(Facts::parse(&text).expect("facts"))
}

fn ended(end: End) -> Outcome {
    Outcome::ended(end, "why not", Facts::new())
}

fn compare(a: Option<Outcome>, b: Option<Outcome>) -> Compared {
    let side = |version, outcome: Option<Outcome>| {
        let cases: Vec<_> = outcome.into_iter().map(|outcome| (POINT, outcome)).collect();
        known::dataset(&[record(version, &cases)]).expect("a dataset")
    };
    let (a, b) = (side("6.12.1", a), side("6.12.2", b));
    let sides = (Side { data: &a, kernel: 0 }, Side { data: &b, kernel: 0 });
    Comparer::new().kernels(sides, &|_| true)
}

#[rstest]
#[case(Some(good(POINT)), Some(good(POINT)), None)]
#[case(None, None, None)]
#[case(None, Some(good(POINT)), Some(Category::New))]
#[case(Some(good(POINT)), None, Some(Category::Gone))]
#[case(Some(good(POINT)), Some(bad(POINT, "EIO")), Some(Category::Regression))]
#[case(Some(good(POINT)), Some(ended(End::Hang)), Some(Category::Regression))]
#[case(Some(bad(POINT, "EIO")), Some(good(POINT)), Some(Category::Fixed))]
#[case(Some(bad(POINT, "EIO")), Some(bad(POINT, "EBUSY")), Some(Category::Changed))]
#[case(Some(ended(End::Unsupported)), Some(good(POINT)), Some(Category::Changed))]
#[case(Some(ended(End::Unsupported)), Some(bad(POINT, "EIO")), Some(Category::Regression))]
#[case(Some(ended(End::Precondition)), Some(good(POINT)), Some(Category::Skipped))]
#[case(Some(good(POINT)), Some(ended(End::Broken)), Some(Category::Skipped))]
fn every_pair_has_its_category(
    #[case] a: Option<Outcome>,
    #[case] b: Option<Outcome>,
    #[case] category: Option<Category>,
) {
    let compared = compare(a, b);
    assert_eq!(compared.differences.first().map(|(category, _)| *category), category);
    assert!(compared.differences.len() <= compared.cases && compared.cases <= 1);
}

#[test]
fn the_first_fact_that_differs_is_named_with_its_source() {
    let compared = compare(Some(good(POINT)), Some(bad(POINT, "EIO")));
    let (_, found) = &compared.differences[0];
    assert_eq!((found.fact.as_str(), found.values.clone()), ("copy", ("0".into(), "EIO".into())));
    assert!(found.reason.as_ref().is_some_and(|why| !why.is_empty()), "{found:?}");
}

/// What is expected of every kernel, and kept by both, explains no change.
#[rstest]
#[case::left_open(
    "arguments/range[ioctl=register,backing=anon,waiter=user-read,msg=read,bad=nothing]",
    " field=",
    None
)]
#[case::changed(
    "arguments/event-unread[ioctl=copy,backing=anon,waiter=user-read,msg=read,wrong=struct]",
    " more=",
    Some("95567729173e")
)]
fn a_reason_is_that_of_the_change(#[case] id: &str, #[case] more: &str, #[case] why: Option<&str>) {
    let shown = |version: &str, value: &str| {
        let kernel = uffd_results::KernelVersion::parse(version).expect("a version");
        let outcome = format!("{}{more}{value}", expected(id, kernel));
        record(version, &[(id, Outcome::done(Facts::parse(&outcome).expect("facts")))])
    };
    let records = [shown("6.1.192", "0x1c"), shown("6.12.43", "0x13c")];
    let data = known::dataset(&records).expect("a dataset");
    let side = |kernel| Side { data: &data, kernel };
    let compared = Comparer::new().kernels((side(0), side(1)), &|_| true);
    let (_, found) = &compared.differences[0];
    match why {
        None => assert_eq!((found.fact.as_str(), &found.reason), ("field", &None)),
        Some(why) => assert!(found.reason.as_ref().is_some_and(|r| r.contains(why)), "{found:?}"),
    }
}

#[test]
fn an_axis_pairs_cases_that_differ_in_nothing_else() {
    let cases = [(POINT, good(POINT)), (OTHER, bad(OTHER, "EIO"))];
    let data = known::dataset(&[record("6.12.1", &cases)]).expect("a dataset");
    let side = Side { data: &data, kernel: 0 };
    for (values, turn, category) in [
        (("backing", "anon", "shmem"), ("0", "EIO"), Category::Regression),
        (("backing", "shmem", "anon"), ("EIO", "0"), Category::Fixed),
    ] {
        let compared = Comparer::new().axis(side, values, &|_| true);
        let [(found, difference)] = &compared.differences[..] else { panic!("{compared:?}") };
        assert_eq!((*found, compared.cases), (category, 1));
        assert_eq!(difference.values, (turn.0.to_owned(), turn.1.to_owned()));
        assert!(difference.axes.starts_with(&format!("backing={}|{}", values.1, values.2)));
    }
    let alone = Comparer::new().axis(side, ("backing", "hugetlb-shared", "anon"), &|_| true);
    assert_eq!(alone.differences[0].0, Category::New);
    let nothing = Comparer::new().axis(side, ("backing", "a", "b"), &|_| true);
    assert_eq!(nothing.cases, 0);
}
