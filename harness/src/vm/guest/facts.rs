//! What the guest's kernel is like, and the few settings that are made before it is asked.

use crate::vm::plan::Plan;
use std::collections::BTreeMap;
use std::path::Path;
use uffd_results::Environment;

/// Settings that facts can depend on: the name in records, and the file.
const SETTINGS: [(&str, &str); 4] = [
    ("vm.unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd"),
    ("vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ("transparent_hugepage.enabled", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("transparent_hugepage.shmem_enabled", "/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
];

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Makes settings. One that a kernel lacks stays away: records hold what it has then.
pub(super) fn prepare() {
    // Warnings come to the console, where the host reads them; the boot itself was quiet.
    let _ = std::fs::write("/proc/sys/kernel/printk", "5 4 1 7");
    // Before 5.11 everybody might make userfaultfds that catch the kernel's faults; the same here.
    let _ = std::fs::write("/proc/sys/vm/unprivileged_userfaultfd", "1");
}

/// The facts for the record.
pub(super) fn environment(plan: &Plan, uffd: String, uffd_features: Vec<String>) -> Environment {
    let setting = |name| plan.setting(name).unwrap_or_default();
    let read = |(name, file): &(&str, &str)| {
        let text = std::fs::read_to_string(file).ok()?;
        Some(((*name).to_owned(), chosen(text.trim()).to_owned()))
    };
    let number = |file: &str| {
        let text = std::fs::read_to_string(Path::new(file)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Environment {
        accelerator: setting("accelerator").to_owned(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_mib: setting("memory-mib").parse().unwrap_or(0),
        page_size: page_size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        huge_pages_2m: number(HUGE_PAGES).unwrap_or(0),
        uffd,
        uffd_features,
        sysctls: SETTINGS.iter().filter_map(read).collect::<BTreeMap<_, _>>(),
    }
}

/// Of `always [madvise] never` the word in brackets; any other text as it is.
fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text, |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("always [madvise] never", "madvise")]
    #[case("1", "1")]
    #[case("", "")]
    fn the_chosen_word_is_taken(#[case] text: &str, #[case] word: &str) {
        assert_eq!(chosen(text), word);
    }

    #[test]
    fn this_machine_has_facts() {
        let settings = [("accelerator", "tcg"), ("memory-mib", "1024")];
        let settings = settings.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let plan = Plan { settings, cases: vec![] };
        let environment = environment(&plan, "syscall".into(), vec!["EVENT_FORK".into()]);
        assert_eq!((environment.accelerator.as_str(), environment.memory_mib), ("tcg", 1024));
        assert!(environment.page_size.is_power_of_two() && environment.cpus > 0);
        assert!(environment.sysctls.contains_key("vm.overcommit_memory"));
    }
}
