//! The site's script says of every kernel what the library says: asked by node, where that is installed. In
//! a browser `scripts/site-test` asks it.

mod shared;

use serde_json::Value;
use shared::releases::{every_kind_of_answer, releases};
use shared::{conform, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use uffd_harness::known::{self, Known};
use uffd_harness::site;
use uffd_harness::store::Store;
use uffd_results::{Dataset, Release, Why};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

/// The records, and the site's scripts by their names.
struct Made {
    known: Known,
    scripts: BTreeMap<&'static str, String>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let store = Store::new(Path::new(RECORDED));
        let records = store.load().expect("records");
        let known = known::of(&records, &store).expect("contracts");
        let costs = site::Costs { measured: &[], notes: &[] };
        let site = site::build(&records, &known, &[], &[], costs).expect("a site");
        let script = |name| {
            let file = site.files().find(|(path, _)| *path == name).expect("a script");
            (name, text(file.1))
        };
        let scripts = ["ask-data.js", "lookup.js"].map(script).into();
        Made { known, scripts }
    })
}

/// The script's answers to lines of release and case; `None` where there is no node.
fn in_script(questions: &[String]) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site/lookup.js"));
    for (name, script) in &made().scripts {
        let path = folder.path().join(name);
        fs::write(&path, script).expect("written");
        command.arg(path);
    }
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        eprintln!("node is not installed: the site's script is not asked");
        return None;
    };
    let (mut stdin, lines) = (child.stdin.take().expect("its input"), questions.join("\n") + "\n");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("written");
    assert!(output.status.success(), "{:?}", output.status);
    Some(text(&output.stdout).lines().map(str::to_owned).collect())
}

/// A case of the site's data: its id, and what it showed on each kernel, `None` if it gave no answer.
type Row = (String, Vec<Option<i64>>);

/// The points of the site's data.
fn points() -> Vec<Row> {
    let data = made().scripts["ask-data.js"].strip_prefix("const ASK=").expect("a constant");
    let data: Value = serde_json::from_str(data.trim_end().trim_end_matches(';')).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let place =
        |value: &Value| usize::try_from(value.as_i64().expect("a number")).expect("a place");
    let silent = |seen: i64| match usize::try_from(seen) {
        Ok(seen) => list(&data["said"][seen]).iter().any(|clause| clause[0] == "silent"),
        Err(_) => true,
    };
    let row = |point: Value| {
        let name = data["probes"][place(&point[3])][0].as_str().expect("a name");
        let own = point[4].as_str().expect("axes");
        let id = if own.is_empty() { name.to_owned() } else { format!("{name}[{own}]") };
        let seen = list(&data["rows"][place(&point[5])]).into_iter();
        let seen = seen.map(|seen| seen.as_i64().expect("a number"));
        (id, seen.map(|seen| Some(seen).filter(|seen| !silent(*seen))).collect())
    };
    list(&data["points"]).into_iter().map(row).collect()
}

/// Every twentieth of them, and those that were not answered everywhere.
fn rows() -> Vec<Row> {
    let mut rows = points();
    rows.sort_by_key(|(_, row)| row.clone());
    rows.dedup_by_key(|(_, row)| row.clone());
    let chosen = |(i, (_, row)): &(usize, Row)| i % 20 == 0 || row.contains(&None);
    rows.into_iter().enumerate().filter(chosen).map(|(_, row)| row).collect()
}

/// What the library says, in the driver's words; the sentence is compared with the command's.
fn wanted(data: &Dataset, release: &str, row: &[Option<i64>]) -> String {
    let Ok(release) = Release::parse(release) else {
        return format!("-\tunknown\t{}\t-\t-", Why::NotARelease);
    };
    let answer = data.resolve(&release, |kernel| row[kernel]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let name = |basis: Option<&(&uffd_results::Recorded, i64)>| {
        or_dash(basis.map(|(kernel, _)| kernel.release.clone()))
    };
    let (first, last) = (name(answer.basis.first()), name(answer.basis.last()));
    let value = or_dash(answer.value.map(|value| value.to_string()));
    let why = or_dash(answer.why.map(|why| why.to_string()));
    format!("{value}\t{}\t{why}\t{first}\t{last}", answer.certainty)
}

/// The script does not look for what does.
#[test]
fn no_point_of_the_form_stands_apart() {
    let apart = made().known.data.apart();
    assert!(apart.len() > 100, "{}", apart.len());
    let ids: BTreeSet<String> = points().into_iter().map(|(id, _)| id).collect();
    let both: Vec<_> = apart.iter().filter(|apart| ids.contains(&apart.case)).collect();
    assert!(ids.len() > 1000 && both.is_empty(), "{both:?}");
}

#[test]
fn the_script_answers_as_the_library_does() {
    let (data, rows) = (&made().known.data, rows());
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    // A line end would end a question.
    for release in releases(data).iter().filter(|release| !release.contains(['\n', '\t'])) {
        for (id, row) in &rows {
            questions.push(format!("{release}\t{id}"));
            answers.push(wanted(data, release, row));
        }
    }
    every_kind_of_answer(&answers);
    let Some(seen) = in_script(&questions) else { return };
    assert_eq!(seen.len(), answers.len());
    for ((question, seen), wanted) in questions.iter().zip(&seen).zip(&answers) {
        let (seen, _sentence) = seen.rsplit_once('\t').expect("a sentence");
        assert_eq!(seen, wanted, "{question}");
    }
}

/// Kernels of whose answers the script and the command once said different things, and others.
const NAMED: [&str; 10] = [
    "6.8.0-45-generic",
    "6.6.30",
    "6.1.57-android14-11",
    "5.10.0-33-amd64",
    "5.10.0-45-generic",
    "7.3.0-2-amd64",
    "6.1.0-47-amd64",
    "6.12.118+deb13-cloud-amd64",
    "9.9.9",
    "6.12.43-s390x",
];

#[test]
fn the_script_says_how_sure_it_is_as_the_command_does() {
    let mut command = conform();
    command.args(["ask", "--results", RECORDED, "--op", "copy,unregister,wake", "--waiter"]);
    command.args(["thread,vcpu", "--format", "jsonl"]);
    let output =
        command.args(NAMED.iter().flat_map(|name| ["-k", name])).output().expect("it starts");
    let lines = text(&output.stdout);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    for line in lines.filter(|line| line["recorded"] == true) {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        questions.push(format!("{}\t{}", word(&line["kernel"]), word(&line["case"])));
        let rests = line["rests_on"].as_array().expect("a list");
        let rests = [rests.first(), rests.last()].map(|name| name.map_or("-".into(), word));
        let words = [word(&line["certainty"]), word(&line["why"])];
        answers.push(words.into_iter().chain(rests).collect::<Vec<_>>().join("\t"));
    }
    assert!(answers.len() > 100 * NAMED.len(), "{} answers: {output:?}", answers.len());
    let Some(seen) = in_script(&questions) else { return };
    assert_eq!(seen.len(), answers.len());
    for ((question, seen), wanted) in questions.iter().zip(&seen).zip(&answers) {
        let fields: Vec<&str> = seen.split('\t').collect();
        assert_eq!(fields[1..5].join("\t"), *wanted, "{question}");
    }
}

/// In the words of the command, of which a line stands below each kernel's name.
#[test]
fn the_script_says_it_in_the_words_of_the_command() {
    let case = "copy/mmap-over[backing=anon,part=whole,over=anon,waiter=user-read,msg=read]";
    let axes =
        "op=copy change=mmap-over backing=anon part=whole over=anon waiter=user-read msg=read";
    let axes = axes.split(' ').filter_map(|axis| axis.split_once('='));
    let options: Vec<String> = axes.flat_map(|(n, v)| [format!("--{n}"), v.into()]).collect();
    let questions: Vec<String> = NAMED.iter().map(|name| format!("{name}\t{case}")).collect();
    let Some(seen) = in_script(&questions) else { return };
    for (name, seen) in NAMED.iter().zip(&seen) {
        let mut command = conform();
        command.args(["ask", "--results", RECORDED]).args(&options).args(["-k", name]);
        let said = text(&command.output().expect("it starts").stdout);
        let (_, sentence) = seen.rsplit_once('\t').expect("a sentence");
        // One without any kernel to name stands in a line of its own.
        let reason = sentence.strip_prefix("not known: ").unwrap_or(sentence);
        let found = said.lines().any(|line| {
            line.trim() == sentence || (line.starts_with("no answer on") && line.ends_with(reason))
        });
        assert!(found || sentence.is_empty(), "{name}: {sentence:?} is not in:\n{said}");
    }
}
