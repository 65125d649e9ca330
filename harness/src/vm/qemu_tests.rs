//! QEMU: what it is given, what it boots, and what its end says.

use super::super::accel::{self, Choice};
use super::*;
use rstest::rstest;
use std::io::Write;

#[test]
fn a_missing_qemu_says_what_to_install() {
    for (arch, package) in
        [(Arch::X86, "qemu-system-x86)"), (Arch::Arm64 { page_kib: 4 }, "qemu-system-arm)")]
    {
        let error = find(Some(Path::new("qemu-of-nowhere")), arch).expect_err("not there");
        let error = error.to_string();
        assert!(error.contains("qemu-of-nowhere") && error.contains(package), "{error}");
    }
}

#[test]
fn a_program_that_is_not_qemu_is_named() {
    let error = version(Some(Path::new("/bin/true"))).expect_err("no version").to_string();
    assert!(error.contains("/bin/true") && error.contains("check that it is QEMU"), "{error}");
}

/// Options that QEMU is given, whatever is asked for. None of them brings a network, a disk, a folder of
/// the host or a device of its hardware: what is not here is left out, and no default adds anything.
const GIVEN: [&str; 19] = [
    "-M",
    "-accel",
    "-append",
    "-chardev",
    "-cpu",
    "-device",
    "-display",
    "-icount",
    "-initrd",
    "-kernel",
    "-m",
    "-no-reboot",
    "-no-user-config",
    "-nodefaults",
    "-object",
    "-serial",
    "-serial",
    "-smp",
    "-chardev",
];

#[rstest]
fn the_guest_is_given_no_network_and_nothing_of_the_host(
    #[values(false, true)] counts_instructions: bool,
) {
    let asked = Options { accelerator: Choice::Tcg, ..Options::default() };
    let image = Path::new("/boot/vmlinuz");
    let options = Options {
        counts_instructions,
        append: vec!["-netdev user".into()],
        files: vec![("/bin/x".into(), b"x".to_vec())],
        qemu: Some("/bin/true".into()),
        ..asked
    };
    let accelerator = accel::choose(image, &options).expect("emulation");
    let qemu = Qemu::new(image, accelerator, &options).expect("the program itself");
    let files = Files::new().expect("a folder");
    let command = qemu.command(&files, image);
    let words: Vec<String> =
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut given: Vec<&str> = Vec::new();
    let mut values = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        given.push(word);
        if !["-nodefaults", "-no-user-config", "-no-reboot"].contains(&word.as_str()) {
            values.push((word.as_str(), rest.next().expect("a value").as_str()));
        }
    }
    given.sort_unstable();
    let mut expected: Vec<&str> = GIVEN.to_vec();
    expected.sort_unstable();
    expected.retain(|option| counts_instructions || *option != "-icount");
    assert_eq!(given, expected);
    let device = values.iter().filter(|(option, _)| *option == "-device");
    assert_eq!(device.map(|(_, v)| *v).collect::<Vec<_>>(), ["ivshmem-plain,memdev=wire"]);
    // Each path is in this VM's own folder, or the image.
    let own = files.directory.path().to_string_lossy().into_owned();
    for (option, value) in values.iter().filter(|(option, _)| *option != "-append") {
        let path = value.find('/').map(|at| &value[at..]);
        let good = path.is_none_or(|p| p.starts_with(&own) || Path::new(p) == image);
        assert!(good, "{option} {value}");
    }
    let kernel_line = values.iter().find(|(o, _)| *o == "-append").expect("a command line").1;
    assert!(kernel_line.ends_with(" -netdev user"), "one word of QEMU's: {kernel_line}");
}

/// Who has ended it: only of its guest's doing something is said of the kernel.
#[rstest]
#[case::turned_off(0, "", true)]
#[case::turned_off_with_a_warning(0, "qemu: warning: TCG doesn't support requested feature", true)]
#[case::sigterm(0, "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)\n", false)]
#[case::sighup_after_a_warning(0, "qemu: warning: x\nqemu: terminating on signal 1\n", false)]
#[case::sigkill(9, "", false)]
#[case::failed(1 << 8, "qemu: can't write\n", false)]
fn who_is_told_to_stop_says_nothing_of_its_guest(
    #[case] status: i32,
    #[case] errors: &str,
    #[case] by_guest: bool,
) {
    let ending = ending(ExitStatus::from_raw(status), errors);
    assert_eq!(ending.by_guest, by_guest, "{ending:?}");
    assert!(
        !ending.how.contains('\n')
            && ending.how.ends_with(errors.trim().rsplit('\n').next().expect("a line"))
    );
}

/// Whatever the image holds when a VM is started, what was identified is booted, or nothing.
#[rstest]
#[case::identified_before(true)]
#[case::taken_from_the_first_boot(false)]
fn an_image_that_changes_is_not_booted(#[case] identified: bool, #[values(0, 2)] barren: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("vmlinuz");
    std::fs::write(&image, "the first").expect("written");
    let hash = files::sha256_of(&image).expect("read").0;
    let options = Options {
        accelerator: Choice::Tcg,
        qemu: Some("/bin/true".into()),
        image_sha256: identified.then_some(hash),
        ..Options::default()
    };
    let accelerator = accel::choose(&image, &options).expect("emulation");
    let mut qemu = Qemu::new(&image, accelerator, &options).expect("the program itself");
    let files = Files::new().expect("a folder");
    let kernel = qemu.kernel(&files, barren).expect("the image");
    std::fs::write(&image, "another").expect("written");
    assert_eq!(std::fs::read(kernel).expect("a copy"), b"the first");
    let error = qemu.kernel(&files, barren).expect_err("another image").to_string();
    assert!(error.contains("vmlinuz has changed since the run began"), "{error}");
}

#[rstest]
#[case("/tmp/a,b", "/tmp/a,,b")]
#[case("/tmp/ab", "/tmp/ab")]
fn commas_are_doubled(#[case] path: &str, #[case] doubled: &str) {
    assert_eq!(doubled_commas(Path::new(path)), doubled);
}

#[rstest]
#[case(true, b"ab\0\0", b"cd", b"ab")]
#[case(false, b"ab", b"", b"ab")]
fn what_is_new_is_read_once(
    #[case] until_nul: bool,
    #[case] first: &[u8],
    #[case] second: &[u8],
    #[case] seen: &[u8],
) {
    let mut file = tempfile::tempfile().expect("a file");
    let mut reader = Reader::new(file.try_clone().expect("a second handle"));
    let mut out = Vec::new();
    file.write_all(first).expect("written");
    reader.read(&mut out, until_nul).expect("read");
    assert_eq!(out, seen);
    file.write_at(second, seen.len() as u64).expect("written");
    reader.read(&mut out, until_nul).expect("read");
    assert_eq!(out, [seen, second].concat());
}

#[test]
fn long_files_are_read_whole() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&vec![b'x'; 200_000]).expect("written");
    let mut out = Vec::new();
    Reader::new(file).read(&mut out, true).expect("read");
    assert_eq!(out.len(), 200_000);
}
