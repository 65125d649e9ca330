use super::{Done, Exit, Sum, check_qemu, end, harmless_first, machines, whatever_happens};
use crate::arch::Arch;
use crate::store::Store;
use anyhow::anyhow;
use rstest::rstest;
use std::path::Path;
use uffd_results::{Cases, End, Facts, Outcome};
use uffd_suites::probe::Case;

#[test]
fn what_brought_the_kernel_down_is_asked_last() {
    let cases = &uffd_suites::registry()[..5];
    let ended = |n: usize, end| (cases[n].id(), Outcome::ended(end, "", Facts::new()));
    let known = [ended(0, End::Done), ended(1, End::Panic), ended(3, End::Hang)];
    let asked = harmless_first(cases, Some(&Cases::new(known.into())));
    let order = [0, 2, 4, 1, 3].map(|n: usize| cases[n].id());
    assert_eq!(asked.iter().map(Case::id).collect::<Vec<_>>(), order);
}

/// VMs of each kernel in turn.
#[rstest]
#[case(1, 1, &[1])]
#[case(1, 2, &[2])]
#[case(2, 2, &[1, 1])]
#[case(3, 2, &[1, 1, 2])]
#[case(3, 8, &[2, 2, 2])]
#[case(5, 4, &[1, 1, 1, 1, 4])]
#[case(3, 1, &[1, 1, 1])]
fn no_vm_is_idle_at_the_end(#[case] kernels: usize, #[case] jobs: usize, #[case] each: &[usize]) {
    let shared: Vec<usize> = (0..kernels).map(|n| machines(n, kernels, jobs)).collect();
    assert_eq!(shared, each);
}

#[test]
fn a_kernel_whose_asking_panics_is_told_with_its_release() {
    let Done::Failed(error) = whatever_happens("6.1.0-x", || panic!("as this test wants it"))
    else {
        panic!("it did not fail");
    };
    assert!(format!("{error:#}").contains("6.1.0-x is not recorded: this program panicked"));
}

/// Another machine's records, of which one was made by this sweep before fetching failed.
#[rstest]
#[case(1, true)]
#[case(0, false)]
fn the_matrix_has_what_was_recorded_before_fetching_failed(
    #[case] recorded: usize,
    #[case] is_written: bool,
) {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    for record in Store::new(Path::new(golden)).load().expect("stored records") {
        store.save(&record).expect("written");
    }
    let sum = Sum { recorded, ..Sum::default() };
    let error = end(Err(anyhow!("no network")), &sum, &store).expect_err("it is told");
    assert_eq!(error.to_string(), "no network");
    assert_eq!(folder.path().join("MATRIX.md").exists(), is_written);
    assert_eq!(end(Ok(()), &sum, &store).expect("written"), Exit::Expected);
}

#[rstest]
#[case(Arch::X86, "qemu-system-x86")]
#[case(Arch::Arm64 { page_kib: 4 }, "qemu-system-arm")]
fn the_qemu_of_the_architecture_is_wanted(#[case] arch: Arch, #[case] package: &str) {
    match check_qemu(arch) {
        Ok(()) => {}
        Err(error) => assert!(error.to_string().contains(&format!("apt install {package})"))),
    }
}
