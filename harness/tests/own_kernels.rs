//! Kernels of the user's own: from packages, with modules, with more words on the command line.
//!
//! What boots is the kernel that `UFFD_TEST_KERNEL` names, put into packages as distributions make them.

mod shared;

use rstest::rstest;
use serde_json::Value;
use shared::{conform, kernel, outcomes, refused, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A case that a vCPU waits in, which takes the modules of KVM.
const VCPU: &str = "copy/munmap[backing=anon,part=head,waiter=vcpu-read,msg=read]";

/// Files as a package of the kernel holds them, below a folder.
struct Tree {
    folder: tempfile::TempDir,
    /// The kernel's release.
    release: String,
}

impl Tree {
    /// Those of the kernel to be booted.
    fn new() -> Self {
        let kernel = kernel();
        let folder = tempfile::tempdir().expect("a folder");
        let name = kernel.file_name().and_then(|n| n.to_str()).expect("a name");
        let package = name.split('_').next().expect("a package");
        let release = package.trim_start_matches("linux-image-").to_owned();
        let tree = Self { folder, release };
        let modules = tree.path("tree/lib/modules").join(&tree.release).join("kernel/drivers");
        for folder in [&tree.path("tree/boot"), &modules] {
            fs::create_dir_all(folder).expect("a folder");
        }
        for (part, ending) in [("vmlinuz", "vmlinuz"), ("config", "config")] {
            let target = tree.path("tree/boot").join(format!("{part}-{}", tree.release));
            fs::copy(kernel.with_extension(ending), target).expect("copied");
        }
        let tar = fs::File::open(kernel.with_extension("modules.tar")).expect("its modules");
        tar::Archive::new(tar).unpack(modules).expect("unpacked");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tar(&self) -> PathBuf {
        let tar = self.path("kernel.tar.xz");
        let mut command = Command::new("tar");
        done(command.arg("-cJf").arg(&tar).arg("-C").arg(self.path("tree")).arg("."));
        tar
    }

    fn deb(&self) -> PathBuf {
        let (control, deb) = (self.path("tree/DEBIAN"), self.path("kernel.deb"));
        fs::create_dir(&control).expect("a folder");
        let text = "Package: linux-image-own\nVersion: 6.12-1\nArchitecture: amd64\n\
                    Maintainer: a <a@b>\nDescription: x\n";
        fs::write(control.join("control"), text).expect("written");
        let mut command = Command::new("dpkg-deb");
        done(
            command
                .args(["--root-owner-group", "-Zzstd", "-z1", "-b"])
                .arg(self.path("tree"))
                .arg(&deb),
        );
        fs::remove_dir_all(control).expect("removed");
        deb
    }

    /// An rpm package with such a payload.
    fn rpm(&self, payload: &str) -> PathBuf {
        let spec = format!(
            "Name: kernel-core\nVersion: 6.12\nRelease: 1.own\nSummary: x\nLicense: x\nAutoReqProv: no\n\
             %global __os_install_post %{{nil}}\n%global debug_package %{{nil}}\n\
             %global _build_id_links none\n%description\nx\n\
             %install\ncp -a {}/. %{{buildroot}}\n%files\n/boot\n/lib/modules\n",
            self.path("tree").display()
        );
        fs::write(self.path("kernel.spec"), spec).expect("written");
        let top = self.path("rpm");
        let mut command = Command::new("rpmbuild");
        command.args(["--quiet", "-bb", "--target", "x86_64"]);
        command.arg("--define").arg(format!("_topdir {}", top.display()));
        command.arg("--define").arg(format!("_binary_payload {payload}"));
        command.arg(self.path("kernel.spec"));
        let output = command.output().expect("there is an rpmbuild (Debian: apt install rpm)");
        assert!(output.status.success(), "{}", text(&output.stderr));
        top.join("RPMS/x86_64/kernel-core-6.12-1.own.x86_64.rpm")
    }
}

fn done(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn ask(image: &Path, options: &[&str]) -> Output {
    let mut command = conform();
    command.args(["run", VCPU, "--format", "jsonl", "--kernel-image"]).arg(image).args(options);
    command.output().expect("the command starts")
}

/// What was said of the kernel before its cases.
fn head(output: &Output) -> Value {
    let lines = text(&output.stdout);
    let line = lines.lines().next().unwrap_or_else(|| panic!("{}", text(&output.stderr)));
    serde_json::from_str(line).expect("JSON")
}

#[track_caller]
fn answers(output: &Output, package: Option<(&str, &str)>) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(outcomes(output)[VCPU]["verdict"], "pass", "the modules came along");
    let kernel = &head(output)["kernel"];
    let named = kernel["package"]["name"].as_str().zip(kernel["package"]["version"].as_str());
    assert_eq!(named, package);
    assert_eq!(kernel["config"]["USERFAULTFD"], "y", "the configuration came along");
}

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn packages_boot_with_their_modules() {
    let tree = Tree::new();
    answers(&ask(&tree.tar(), &[]), None);
    answers(&ask(&tree.deb(), &[]), Some(("linux-image-own", "6.12-1")));
    for payload in ["w1.gzdio", "w1.zstdio", "w0.xzdio", "w1.bzdio"] {
        answers(&ask(&tree.rpm(payload), &[]), Some(("kernel-core", "6.12-1.own")));
    }
}

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn a_bare_image_takes_modules_from_elsewhere() {
    let tree = Tree::new();
    let boot = |part: &str| tree.path("tree/boot").join(format!("{part}-{}", tree.release));
    let output = ask(&boot("vmlinuz"), &[]);
    assert_eq!(outcomes(&output)[VCPU]["end"], "precondition", "there is no KVM without modules");
    let (config, root) =
        (boot("config").display().to_string(), tree.path("tree").display().to_string());
    answers(&ask(&boot("vmlinuz"), &["--config", &config, "--modules", &root]), None);
}

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn more_words_reach_the_kernel_and_the_record_says_so() {
    let tree = Tree::new();
    let image = tree.path("tree/boot").join(format!("vmlinuz-{}", tree.release));
    let output =
        ask(&image, &["--append", "transparent_hugepage=never", "--append", "nokaslr quiet"]);
    let environment = &head(&output)["environment"];
    assert_eq!(environment["append"], "transparent_hugepage=never nokaslr quiet");
    assert_eq!(environment["sysctls"]["transparent_hugepage.enabled"], "never");
    let plain = ask(&image, &[]);
    assert_eq!(head(&plain)["environment"]["append"], Value::Null);
}

#[rstest]
#[case(&["run", "-k", "6.12", "--append", "a\nb"], "printable ASCII")]
#[case(&["run", "-k", "6.12", "--append", "a -- b"], "leave it out")]
#[case(&["run", "-k", "6.12", "--append", ""], "words")]
#[case(&["run", "--append", "quiet"], "--append is for kernels in VMs")]
#[case(&["bench", "--append", "quiet"], "--append are for kernels in VMs")]
#[case(&["bench", "-k", "6.12", "--record", "--append", "quiet"], "--append")]
#[case(&["explore", "--append", "quiet"], "--append is for kernels in VMs")]
#[case(&["run", "-k", "6.12", "--modules", "/tmp"], "--modules")]
#[case(&["sweep", "--shard", "1/2", "--config", "/tmp"], "--config")]
#[case(&["run", "--modules", "/tmp"], "--kernel-image")]
#[case(&["run", "-k", "6.12", "--program", "/bin/true"], "--program")]
#[case(&["explore", "-k", "6.12", "-k", "6.1", "--kernel-image", "/bin/true"], "3 kernels are named")]
fn what_can_not_be_meant_is_refused(#[case] arguments: &[&str], #[case] why: &str) {
    refused(&shared::run(arguments), &[why]);
}

/// Each is short enough by itself; a record of what they were asked under could not be read.
#[rstest]
#[case("sweep")]
#[case("run")]
#[case("exec")]
#[case("explore")]
fn more_words_than_a_record_can_hold_are_refused_before_anything_is_asked(#[case] command: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let words = "x".repeat(450);
    let mut refused_command = conform();
    refused_command.args([command, "-k", "6.12.118"]).env("UFFD_CONFORM_CACHE", folder.path());
    refused_command.env("UFFD_CONFORM_RESULTS", folder.path());
    for _ in 0..3 {
        refused_command.args(["--append", &words]);
    }
    if command == "exec" {
        refused_command.args(["--", "/bin/true"]);
    }
    let output = refused_command.output().expect("the command starts");
    refused(&output, &["--append", "1352 bytes", "1024", "fewer or shorter"]);
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
}

/// A results folder with a record of 6.12, made with these words added to the command line.
fn results(append: &str) -> tempfile::TempDir {
    const RECORD: &str = "records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json";
    let folder = tempfile::tempdir().expect("a folder");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(RECORD);
    let mut record = fs::read_to_string(golden).expect("read");
    if !append.is_empty() {
        let member = format!("\"append\": \"{append}\",\n  \"sysctls\": {{");
        record = record.replacen("\"sysctls\": {", &member, 1);
    }
    let path = folder.path().join(RECORD);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, record).expect("written");
    folder
}

#[rstest]
#[case("", "lru_gen=n")]
#[case("lru_gen=n", "")]
#[case("lru_gen=n", "quiet")]
fn records_with_other_command_lines_stand_in_folders_of_their_own(
    #[case] here: &str,
    #[case] there: &str,
) {
    let (ours, theirs) = (results(here), results(there));
    let before = fs::read(ours.path().join("records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json"));
    let folder = |results: &tempfile::TempDir| results.path().display().to_string();
    let mut sweep = conform();
    sweep.args(["--results", &folder(&ours), "sweep", "-k", "6.12"]);
    if !there.is_empty() {
        sweep.args(["--append", there]);
    }
    refused(&sweep.output().expect("the command starts"), &["--results", "command line"]);
    let merge = shared::run(&["--results", &folder(&ours), "merge", &folder(&theirs)]);
    refused(&merge, &["--results", "command line"]);
    let record = theirs.path().join("records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json");
    let record = record.display().to_string();
    let import = ["--results", &folder(&ours), "record", "import", "--replace", &record];
    refused(&shared::run(&import), &["--results", "command line"]);
    let after = fs::read(ours.path().join("records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json"));
    assert_eq!(before.expect("read"), after.expect("read"));
}
