//! Where a kernel is asked: what the record says of the kernel and machine under the cases.

use std::collections::BTreeMap;
use std::fs;
use uffd_results::{Environment, Kernel, KernelVersion, VersionError};
use uffd_suites::abi::newer::feature_names;
use uffd_suites::stage::Stage;

/// Settings that facts can depend on: the name in records, and the file. Missing ones are left out.
const SETTINGS: [(&str, &str); 5] = [
    ("vm.unprivileged_userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd"),
    ("vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ("vm.max_map_count", "/proc/sys/vm/max_map_count"),
    ("transparent_hugepage.enabled", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("transparent_hugepage.shmem_enabled", "/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
];

/// What `uname(2)` says: release, version, machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uname {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
}

impl Uname {
    /// Of the running kernel.
    pub fn read() -> nix::Result<Self> {
        let name = nix::sys::utsname::uname()?;
        let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
        Ok(Self {
            release: text(name.release()),
            version: text(name.version()),
            machine: text(name.machine()),
        })
    }

    /// The upstream version. Debian's older kernels have it only in `uname -v`, behind the word
    /// `Debian`: their release numbers an ABI, such as `5.10.0-36-cloud-amd64`.
    pub fn upstream(&self) -> Result<KernelVersion, VersionError> {
        let debian = self.version.split_once("Debian ").map(|(_, rest)| rest);
        match debian.map(KernelVersion::parse) {
            Some(Ok(version)) => Ok(version),
            _ => KernelVersion::parse(&self.release),
        }
    }

    /// The identity of a kernel of which no more is known.
    pub fn kernel(self) -> Result<Kernel, VersionError> {
        let upstream = self.upstream()?.to_string();
        let Self { release, version, machine } = self;
        let config = BTreeMap::new();
        Ok(Kernel {
            upstream,
            release,
            version,
            machine,
            package: None,
            image_sha256: None,
            config,
        })
    }
}

/// The environment of this process, which prepared `stage` if it could. `memory_mib` is the machine's memory
/// where it is known better than the kernel says.
pub fn environment(
    stage: Option<&Stage>,
    accelerator: &str,
    memory_mib: Option<u64>,
) -> Environment {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let setting = |(name, path): &(&str, &str)| {
        read(path).map(|text| ((*name).to_owned(), chosen(&text).to_owned()))
    };
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let memory = || read("/proc/meminfo").and_then(|text| memory_of(&text));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let way = stage.and_then(|stage| stage.way.as_ref().ok());
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    Environment {
        accelerator: accelerator.to_owned(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_mib: memory_mib.or_else(memory).unwrap_or(0),
        page_size: page_size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        huge_pages_2m: read(pool).and_then(|n| n.parse().ok()).unwrap_or(0),
        uffd: way.map_or("none", |way| way.word()).to_owned(),
        uffd_features: feature_names(stage.map_or(0, |stage| stage.features)),
        kvm: std::path::Path::new("/dev/kvm").exists(),
        append: String::new(),
        sysctls: SETTINGS.iter().filter_map(setting).collect(),
    }
}

/// Whether this program is built for the kernel's pages; the error says what to do if it is not: what it saw
/// would then be no fact.
pub fn check_pages() -> Result<(), String> {
    let own = uffd_suites::memory::PAGE;
    match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) if usize::try_from(size) != Ok(own) => Err(format!(
            "this program is built for pages of {own} bytes, the kernel's have {size}: build it by \
             `scripts/arm64-program {}`",
            size >> 10
        )),
        _ => Ok(()),
    }
}

/// Of `always [madvise] never` the word in brackets; any other text as it is.
fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text, |(word, _)| word)
}

/// `MemTotal` in MiB, rounded to 64 so that the same machine gives the same record.
fn memory_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024).next_multiple_of(64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("5.10.0-36-cloud-amd64", "#1 SMP Debian 5.10.244-1 (2025-09-29)", "5.10.244")]
    #[case(
        "6.12.43+deb13-cloud-amd64",
        "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)",
        "6.12.43"
    )]
    #[case("6.18.44-fc-v669", "#1 SMP PREEMPT_DYNAMIC @0", "6.18.44")]
    fn upstream_is_found(#[case] release: &str, #[case] version: &str, #[case] upstream: &str) {
        let uname =
            Uname { release: release.into(), version: version.into(), machine: "x86_64".into() };
        assert_eq!(uname.upstream().expect("a version").to_string(), upstream);
    }

    #[rstest]
    #[case("always [madvise] never", "madvise")]
    #[case("1", "1")]
    #[case("", "")]
    fn the_chosen_word_is_taken(#[case] text: &str, #[case] word: &str) {
        assert_eq!(chosen(text), word);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_of("MemTotal:         973028 kB\nMemFree: 1 kB\n"), Some(960));
    }
}
