//! The formats that programs read are as `results/schema` says, and what was written once is still read.
//! `docs/formats.md` has the policy.

mod shared;

use jsonschema::{Registry, Validator};
use rstest::rstest;
use serde_json::{Value, json};
use shared::{conform, refused, run, text};
use std::fs;
use std::path::{Path, PathBuf};
use uffd_harness::store;
use uffd_results::{SCHEMA, Verdict};

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");
const OLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/old");
/// Schemas with their versions.
const SCHEMAS: [&str; 7] =
    ["record-1", "record-2", "run-2", "check-1", "explore-1", "export-1", "bench-1"];

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("readable");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn schema(name: &str) -> Value {
    read(&Path::new(RESULTS).join(format!("schema/{name}.json")))
}

/// Refuses members that a schema does not name: a reader ignores them, but what this program writes is
/// described.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("additionalProperties").or_insert(false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn validator(name: &str, closed: bool) -> Validator {
    let named = |name: &str| {
        let mut schema = schema(name);
        if closed {
            close(&mut schema);
        }
        schema
    };
    let registry = Registry::new().add("urn:uffd-conform:record-2", named("record-2"));
    let registry = registry.expect("a schema").prepare().expect("a registry");
    let options = jsonschema::options().with_registry(&registry).build(&named(name));
    options.unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .take(3)
        .map(|e| {
            format!(
                "{}: {}",
                e.instance_path(),
                e.to_string().chars().take(300).collect::<String>()
            )
        })
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// The files with this ending in a folder and those below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_schemas_are_schemas() {
    for name in SCHEMAS {
        let schema = schema(name);
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        assert_eq!(schema["$id"], format!("urn:uffd-conform:{name}"));
        validator(name, false);
    }
    let stored = files(&Path::new(RESULTS).join("schema"));
    assert_eq!(stored.len(), SCHEMAS.len(), "a schema without a test: {stored:?}");
    let written = schema(&format!("record-{SCHEMA}"));
    assert_eq!(written["properties"]["schema"]["const"], SCHEMA);
}

#[test]
fn every_stored_record_is_as_its_schema_says() {
    let validator = validator(&format!("record-{SCHEMA}"), true);
    let golden = Path::new(OLD).join("../records");
    let paths = [files(&Path::new(RESULTS).join("records")), files(&golden)].concat();
    assert!(!paths.is_empty());
    for path in paths {
        valid(&validator, &read(&path), &path.display().to_string());
    }
}

/// What is stored is read by the library, too, and is written by it as it stands.
#[test]
fn every_stored_cost_is_as_its_schema_says() {
    let validator = validator("bench-1", true);
    let stored = files(&Path::new(RESULTS).join("bench"));
    let mut kernels = 0;
    for path in stored.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        valid(&validator, &read(path), &path.display().to_string());
        let measured = uffd_harness::bench::read(path).expect("costs");
        assert_eq!(measured.to_json(), fs::read_to_string(path).expect("text"));
        kernels += 1;
    }
    assert!(kernels > 0, "no costs are stored");
    let loaded = uffd_harness::bench::load(Path::new(RESULTS)).expect("costs");
    assert_eq!(loaded.len(), kernels);
}

/// Genuine records of older programs, cut to a few cases: still read, and still as their schema says.
#[rstest]
#[case("schema-1", "record-1", "wake/length-zero[backing=anon]", "wake", "EINVAL")]
#[case("schema-1", "record-1", "copy/event-unread[backing=anon]", "field", "untouched")]
#[case("schema-2", "record-2", "copy/event-unread[backing=anon]", "field", "untouched")]
fn old_records_are_read(
    #[case] file: &str,
    #[case] schema: &str,
    #[case] case: &str,
    #[case] fact: &str,
    #[case] value: &str,
) {
    let path = Path::new(OLD).join(format!("{file}.json"));
    valid(&validator(schema, true), &read(&path), file);
    let record = store::read(&path).expect("a record");
    assert_eq!(record.cases.get(case).and_then(|outcome| outcome.facts.get(fact)), Some(value));
    assert_eq!(record.upstream().expect("a version").to_string(), record.kernel.upstream);
}

/// A folder with one record, made of an old one.
fn folder_with(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let mut record = read(&Path::new(OLD).join("schema-2.json"));
    change(&mut record);
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("records/x86_64/6.1");
    fs::create_dir_all(&place).expect("a folder");
    fs::write(place.join("new.json"), record.to_string()).expect("written");
    folder
}

#[test]
fn a_newer_record_is_refused_with_a_word() {
    let folder = folder_with(|record| record["schema"] = json!(99));
    let results = folder.path().to_str().expect("UTF-8");
    let wanted = ["new.json", "schema 99", "reads up to", "use a newer one"];
    refused(&run(&["export", "--format", "csv", "--results", results]), &wanted);
    refused(&run(&["show", "copy/event-unread[backing=anon]", "--results", results]), &wanted);
}

#[test]
fn new_members_are_no_new_version() {
    let folder = folder_with(|record| {
        record["later"] = json!({"a": 1});
        record["kernel"]["later"] = json!("x");
    });
    let output =
        conform().args(["export", "--format", "csv", "--results"]).arg(folder.path()).output();
    let output = output.expect("the command starts");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let record = read(&folder.path().join("records/x86_64/6.1/new.json"));
    valid(&validator("record-2", false), &record, "a record with more members");
    assert!(!validator("record-2", true).is_valid(&record), "the closed schema sees them");
}

#[test]
fn an_export_is_as_its_schema_says() {
    let output = run(&["export", "--format", "json", "--results", RESULTS]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let document = serde_json::from_slice(&output.stdout).expect("JSON");
    valid(&validator("export-1", true), &document, "export");
    assert_eq!(document["schema"], uffd_harness::export::SCHEMA);
    // What the schema can't say: lists have an item a kernel, and places exist.
    let kernels = document["kernels"].as_array().expect("kernels").len();
    let outcomes = document["outcomes"].as_array().expect("outcomes").len();
    for case in document["cases"].as_array().expect("cases") {
        let seen = case["outcomes"].as_array().expect("outcomes");
        assert_eq!(seen.len(), kernels);
        assert!(seen.iter().filter_map(Value::as_u64).all(|place| place < outcomes as u64));
    }
    for contract in document["contracts"].as_array().expect("contracts") {
        for assumption in contract["assumptions"].as_array().expect("assumptions") {
            assert_eq!(assumption["verdicts"].as_array().expect("verdicts").len(), kernels);
        }
    }
}

/// On the running kernel, if this user may ask it.
#[rstest]
#[case("run-2", &["run", "copy/event-unread", "wake/length-zero", "--format", "jsonl"])]
#[case("check-1", &["check", "--contract", "qemu-postcopy", "--format", "jsonl"])]
#[case("explore-1", &["explore", "--seed", "7", "--steps", "200", "--format", "jsonl"])]
#[case("explore-1", &["explore", "--model", "--seed", "5", "--steps", "2000", "--shrink", "1", "--format", "jsonl"])]
fn what_is_asked_here_is_as_its_schema_says(#[case] name: &str, #[case] arguments: &[&str]) {
    let output = run(arguments);
    if text(&output.stderr).contains("no permission") {
        eprintln!("this user may not make a userfaultfd: nothing to validate");
        return;
    }
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let validator = validator(name, true);
    let lines = text(&output.stdout);
    assert!(!lines.is_empty());
    for line in lines.lines() {
        let value = serde_json::from_str(line).expect("JSON");
        valid(&validator, &value, &line.chars().take(200).collect::<String>());
    }
}

#[test]
fn the_schemas_know_every_word() {
    let ends = &schema("record-2")["$defs"]["end"]["enum"];
    let words: Vec<&str> = uffd_results::End::ALL.iter().map(|end| end.word()).collect();
    assert_eq!(*ends, json!(words));
    let verdicts: Vec<&str> = [Verdict::Pass, Verdict::Differs]
        .into_iter()
        .chain(uffd_results::End::ALL.into_iter().skip(1).map(Verdict::Ended))
        .map(Verdict::word)
        .collect();
    assert_eq!(schema("run-2")["$defs"]["case"]["properties"]["verdict"]["enum"], json!(verdicts));
    let breaks: Vec<&str> = uffd_results::Breaks::ALL.iter().map(|breaks| breaks.word()).collect();
    let of_check =
        &schema("check-1")["properties"]["broken"]["items"]["properties"]["breaks"]["enum"];
    assert_eq!(*of_check, json!(breaks));
}
