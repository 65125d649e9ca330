//! No room: for records, for a VM's files, for kernels. Each on a file system of its own that is too small
//! and that only the command sees.

use crate::scene::{Scene, end, injected};
use crate::shared::{refused, text};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use uffd_harness::store::Store;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("records_that_do_not_fit_are_asked_for_no_second_time", records_that_do_not_fit),
    ("no_room_for_the_files_of_a_vm_is_said", no_room_for_the_files_of_a_vm_is_said),
    ("no_room_for_kernels_is_said", no_room_for_kernels_is_said),
    ("of_records_that_do_not_fit_none_is_written", of_records_that_do_not_fit_none_is_written),
];

/// Runs a command where `place` is a file system of that size, in KiB; `None` where that can't be made.
fn with_small(command: &mut Command, place: PathBuf, kib: u32) -> Option<Output> {
    fs::create_dir_all(&place).expect("made");
    let size = format!("size={kib}k");
    let small = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only, with memory that was there before the fork.
    unsafe { command.pre_exec(small) };
    match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("only root can mount a small file system: not asked");
            None
        }
        child => Some(end(child.expect("it starts"))),
    }
}

/// A shell that runs `script` with the program as `$0`, the results folder as `$1` and where to put what is
/// found as `$2`.
fn shell(scene: &Scene, script: &str) -> Command {
    let sweep = scene.sweep(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_uffd-conform")]);
    command.arg(scene.path("results")).arg(scene.path("kept"));
    for (name, value) in sweep.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The disk fills while the kernel is asked, and room is made afterwards.
const FULL: &str = r#""$0" --results "$1" sweep -k 6.12.118; first=$?
    find "$1" -type f >"$2.left"
    mount -o remount,size=64m "$1" || exit 77
    "$0" --results "$1" sweep -k 6.12.118 --resume || exit 78
    cp "$1"/records/*/*/*.json "$2"; find "$1" -name '*.journal' >>"$2.left"; exit $first"#;

fn expected(scene: &Scene) -> Vec<u8> {
    let output = end(scene.slow_sweep(&[], 0));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let records = scene.records();
    scene.forget();
    records["6.12.118+deb13-cloud-amd64"].clone()
}

fn records_that_do_not_fit() {
    let scene = Scene::new();
    let expected = expected(&scene);
    // For half of the journal; for the journal and no record; for the record and not for what is made of it.
    let sizes = [200, 700, 1100];
    for kib in sizes {
        scene.asked();
        let mut command = shell(&scene, FULL);
        let Some(output) = with_small(&mut command, scene.path("results"), kib) else { return };
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{kib} KiB: {error}");
        assert!(error.contains("No space left") && error.contains("make room"), "{error}");
        assert!(fs::read(scene.path("kept")).expect("a record") == expected);
        let left = fs::read_to_string(scene.path("kept.left")).expect("a list");
        assert!(!left.contains(".uffd-conform-new-"), "{left}");
        let cases = uffd_results::Record::read(&expected).expect("a record").cases.len();
        let asked = scene.asked();
        assert!(asked < 2 * cases, "{kib} KiB: {asked} were asked");
    }
    injected("results folder full during a sweep", sizes.len());
}

fn no_room_for_the_files_of_a_vm_is_said() {
    let scene = Scene::new();
    let sizes = [4, 1000, 17_000];
    for kib in sizes {
        let Some(output) = with_small(&mut scene.sweep(&[]), scene.path("tmp"), kib) else {
            return;
        };
        refused(&output, &["No space left", "see that it is writable and not full"]);
        assert!(scene.records().is_empty() && scene.journals().is_empty());
        scene.check_no_file();
    }
    injected("no room for a VM's files", sizes.len());
}

fn no_room_for_kernels_is_said() {
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("cache")).expect("removed");
    let Some(output) = with_small(&mut scene.sweep(&[]), scene.path("cache"), 4096) else { return };
    refused(&output, &["the cache folder", "MiB of space left", "UFFD_CONFORM_CACHE"]);
    scene.check_no_file();
    injected("no room for kernels", 1);
}

fn of_records_that_do_not_fit_none_is_written() {
    let scene = Scene::new();
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let store = Store::new(golden);
    let records = store.load().expect("records");
    let files: Vec<PathBuf> =
        records.iter().map(|record| store.path(&record.kernel).expect("a path")).collect();
    let sizes: Vec<u64> =
        files.iter().map(|f| fs::metadata(f).expect("there").len() / 1024).collect();
    // For the first one, and half of the others.
    let kib = u32::try_from(sizes[0] + sizes[1..].iter().sum::<u64>() / 2).expect("small");
    let script = r#"results=$1; shift 2
        "$0" --results "$results" "$@"; code=$?; find "$results" -type f; exit $code"#;
    for (arguments, from) in
        [(&["merge"][..], &[golden.to_owned()][..]), (&["record", "import"], &files)]
    {
        let mut command = shell(&scene, script);
        command.args(arguments).args(from);
        let Some(output) = with_small(&mut command, scene.path("results"), kib) else { return };
        refused(&output, &["No space left", "nothing was changed: make room"]);
        let said = text(&output.stdout);
        assert!(!said.contains(&*scene.path("results").to_string_lossy()), "{said}");
    }
    injected("no room for all of several records", 2);
}
