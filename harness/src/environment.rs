//! Where a kernel is asked: what the record says of the kernel and machine under the cases.

use std::collections::BTreeMap;
use std::fs;
use uffd_results::{Environment, Kernel, KernelVersion, VersionError};
use uffd_suites::abi::newer::feature_names;
use uffd_suites::stage::Stage;

/// Files whose content facts can depend on; missing ones are left out.
const SETTINGS: [&str; 7] = [
    "/proc/sys/vm/unprivileged_userfaultfd",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/nr_hugepages",
    "/proc/sys/vm/memory_failure_early_kill",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
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

/// The environment of this process.
pub fn environment(stage: &Stage, accelerator: &str) -> Environment {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let settings = SETTINGS.iter().filter_map(|path| Some(((*path).to_owned(), read(path)?)));
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let memory = read("/proc/meminfo").and_then(|text| memory_mib(&text));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    Environment {
        accelerator: accelerator.to_owned(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_mib: memory.unwrap_or(0),
        page_size: page_size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        huge_pages_2m: read(pool).and_then(|n| n.parse().ok()).unwrap_or(0),
        uffd: stage.way.as_ref().map_or("none", |way| way.word()).to_owned(),
        uffd_features: feature_names(stage.features),
        sysctls: settings.collect(),
    }
}

/// `MemTotal` in MiB, rounded to 64 so that the same machine gives the same record.
fn memory_mib(meminfo: &str) -> Option<u64> {
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

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_mib("MemTotal:         973028 kB\nMemFree: 1 kB\n"), Some(960));
    }
}
