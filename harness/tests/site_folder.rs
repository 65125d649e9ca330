//! `publish` writes into a folder that others have uses for: it takes nothing that is not its own, and whoever kills
//! it keeps a whole site.

mod shared;

use shared::{conform, refused, run, text};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use uffd_harness::store::Store;
use uffd_results::Record;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

/// Files by their paths in a folder.
type Files = BTreeMap<String, Vec<u8>>;

/// All files below a folder with their bytes.
fn tree(folder: &Path) -> Files {
    let mut found = Files::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(p, b)| (format!("{name}/{p}"), b)));
        } else {
            found.insert(name, fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn a_folder_that_is_no_site_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let precious = folder.path().join("precious");
    fs::create_dir(&precious).expect("a folder");
    fs::write(precious.join("index.html"), "mine").expect("written");
    let name = precious.to_str().expect("UTF-8");
    let output = run(&["--results", RECORDED, "publish", "--output", name]);
    refused(&output, &["precious", "is no site", "name another folder"]);
    let file = precious.join("index.html");
    refused(
        &run(&["--results", RECORDED, "publish", "--output", file.to_str().expect("UTF-8")]),
        &["is no site"],
    );
    let left = tree(folder.path());
    assert_eq!(
        left.into_iter().collect::<Vec<_>>(),
        [("precious/index.html".into(), b"mine".to_vec())]
    );
}

#[test]
fn who_kills_publish_keeps_one_of_two_sites_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (site, results) = (folder.path().join("site"), folder.path().join("results"));
    let records = Store::new(Path::new(RECORDED)).load().expect("records");
    let publish = || {
        let mut command = conform();
        command.arg("--results").arg(&results).arg("publish").arg("--output").arg(&site);
        command
    };
    let published = |record: &Record| {
        Store::new(&results).save(record).expect("written");
        let output = publish().output().expect("the command starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        tree(&site)
    };
    let old = published(&records[0]);
    let new = published(&records[1]);
    assert_ne!(old, new);
    fs::remove_dir_all(&site).expect("removed");
    for (path, bytes) in &old {
        let path = site.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
    let is_writing = || {
        let mut entries = fs::read_dir(folder.path()).expect("a folder").flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(".uffd-conform-"))
    };
    for delay in [0, 3, 10, 30, 60] {
        let mut child = publish().spawn().expect("the command starts");
        let started = Instant::now();
        while !is_writing() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(delay));
        // It may have ended just now.
        drop(child.kill());
        child.wait().expect("it ends");
        let left = tree(&site);
        assert!(left == old || left == new, "after {delay} ms: {} files", left.len());
        for entry in fs::read_dir(folder.path()).expect("a folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with(".uffd-conform-") {
                fs::remove_dir_all(entry.path()).expect("removed");
            }
        }
    }
    // What nobody has removed is removed by the next to publish.
    fs::create_dir(folder.path().join(".uffd-conform-new-left")).expect("made");
    assert_eq!(published(&records[1]), new);
    assert!(!is_writing(), "something is left behind");
}

/// Also where the folder is named by a link.
#[test]
fn what_lies_beside_a_site_is_not_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (results, pages) = (folder.path().join("results"), folder.path().join("pages"));
    let records = Store::new(Path::new(RECORDED)).load().expect("records");
    Store::new(&results).save(&records[0]).expect("written");
    for (path, text) in [(".git/config", "mine"), ("CNAME", "example.org")] {
        fs::create_dir_all(pages.join(".git")).expect("a folder");
        fs::write(pages.join(path), text).expect("written");
    }
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("pages", &link).expect("linked");
    let publish = || {
        let mut command = conform();
        command.arg("--results").arg(&results).arg("publish").arg("--output").arg(&link);
        command.output().expect("the command starts")
    };
    for _ in 0..2 {
        let output = publish();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(link.is_symlink() && pages.join("index.html").is_file());
        assert_eq!(fs::read(pages.join(".git/config")).expect("it stays"), b"mine");
        assert_eq!(fs::read(pages.join("CNAME")).expect("it stays"), b"example.org");
    }
    fs::write(pages.join("kernel/mine.txt"), "mine").expect("written");
    let before = tree(&pages);
    refused(&publish(), &["kernel/mine.txt", "does not have it", "nothing was changed"]);
    assert!(tree(&pages) == before && link.is_symlink());
}
