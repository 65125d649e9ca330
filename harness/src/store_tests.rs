use super::*;
use rstest::rstest;

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a/b.json");
    replace(&path, b"one").expect("written");
    replace(&path, b"two").expect("written");
    assert_eq!(fs::read(&path).expect("read"), b"two");
    assert_eq!(fs::read_dir(folder.path().join("a")).expect("folder").count(), 1);
}

/// A record of the stored ones.
fn stored() -> Record {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    Store::new(Path::new(golden)).load().expect("stored records").remove(0)
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let folder = tempfile::tempdir().expect("folder");
    let (store, file) = (Store::new(folder.path()), folder.path().join("record.json"));
    let mut record = stored();
    let path = store.save(&record).expect("written");
    write(&file, &record).expect("written");
    let good = fs::read(&path).expect("read");
    record.environment.append = "x".repeat(uffd_results::LONGEST_TEXT + 1);
    for refused in [
        store.save(&record).map(drop),
        store.check(&record),
        write(&file, &record),
        write(&folder.path().join("new.json"), &record),
    ] {
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains("environment.append: a text of more than 1024 bytes"), "{error}");
        assert!(error.contains("nothing was changed"), "{error}");
    }
    assert_eq!(
        (fs::read(path).expect("read"), fs::read(file).expect("read")),
        (good.clone(), good)
    );
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 2);
    record.environment.append.pop();
    store.save(&record).expect("it fits");
}

#[rstest]
#[case(ErrorKind::StorageFull, "make room there, or name another place")]
#[case(ErrorKind::ReadOnlyFilesystem, "nothing was changed: name another place")]
#[case(ErrorKind::PermissionDenied, "see that you may write there")]
#[case(ErrorKind::IsADirectory, "a folder can't be replaced")]
fn the_advice_fits_the_error_and_the_option(#[case] kind: ErrorKind, #[case] advice: &str) {
    let error = StoreError::Write { path: "there".into(), error: kind.into() };
    let (own, output) = (error.to_string(), error.of_output().to_string());
    assert!(own.contains(advice) && own.ends_with("--results or --record"), "{own}");
    assert!(output.contains(advice) && output.ends_with("with --output"), "{output}");
}

#[test]
fn a_truncated_record_names_its_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("records/x86_64/6.1/x.json");
    replace(&path, b"{\"schema\": 1, \"kernel\": {").expect("written");
    let error = Store::new(folder.path()).load().expect_err("refused").to_string();
    assert!(error.contains("x.json") && error.contains("EOF"), "{error}");
}

#[test]
fn no_records_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("folder");
    let error = Store::new(folder.path()).load().expect_err("empty").to_string();
    assert!(error.contains("uffd-conform sweep"), "{error}");
}
