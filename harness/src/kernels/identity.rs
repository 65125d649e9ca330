//! A boot image and what is known of it before it boots.

use crate::arch::Arch;
use crate::scratch::Scratch;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use uffd_results::{Kernel, KernelVersion, Package};

/// Options that facts can depend on, without `CONFIG_`. A star stands for any ending.
const OPTIONS: &[&str] = &[
    "ANON_VMA_NAME",
    "ARCH_ENABLE_THP_MIGRATION",
    "ARCH_HAS_PTE_PROTNONE",
    "CHECKPOINT_RESTORE",
    "COMPACTION",
    "DEBUG_VM",
    "HAVE_ARCH_SOFT_DIRTY",
    "HAVE_ARCH_TRANSPARENT_HUGEPAGE*",
    "HAVE_ARCH_USERFAULTFD_*",
    "HUGETLBFS",
    "HUGETLB_PAGE*",
    "HUGETLB_PMD_PAGE_TABLE_SHARING",
    "HZ*",
    "KSM",
    "KVM",
    "KVM_AMD",
    "KVM_GUEST_MEMFD",
    "KVM_INTEL",
    "LRU_GEN*",
    "MEMCG",
    "MEMFD_CREATE",
    "MEMORY_FAILURE",
    "MEM_SOFT_DIRTY",
    "MIGRATION",
    "NO_PAGE_MAPCOUNT",
    "NUMA",
    "NUMA_BALANCING",
    "PER_VMA_LOCK",
    "PREEMPT",
    "PREEMPTION",
    "PREEMPT_*",
    "PTE_MARKER*",
    "PT_RECLAIM",
    "READ_ONLY_THP_FOR_FS",
    "SECRETMEM",
    "SHMEM",
    "SMP",
    "SWAP",
    "THP_SWAP",
    "TMPFS",
    "TRANSPARENT_HUGEPAGE*",
    "USERFAULTFD*",
    "ZRAM",
    "ZSWAP",
];

/// What is known of a kernel from its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Upstream version, for example `6.12.43`.
    pub upstream: KernelVersion,
    /// What `uname -r` will say.
    pub release: String,
    /// The package that it came from; none for a file of the user's own.
    pub package: Option<Package>,
    /// SHA-256 of the boot image, lower-case hex.
    pub image_sha256: String,
    /// Configuration options that facts can depend on, without `CONFIG_`; `n` is "not set", an
    /// option unknown to this kernel is absent. Empty where no configuration is shipped.
    pub config: BTreeMap<String, String>,
}

impl Identity {
    /// The identity for a record; the arguments are what `uname` said in the running kernel.
    pub fn kernel(&self, release: &str, version: &str, machine: &str) -> Kernel {
        Kernel {
            upstream: self.upstream.to_string(),
            release: release.into(),
            version: version.into(),
            machine: machine.into(),
            package: self.package.clone(),
            image_sha256: Some(self.image_sha256.clone()),
            config: self.config.clone(),
        }
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The boot image: a bzImage, or one that is not packed.
    pub path: PathBuf,
    /// What it is built for.
    pub arch: Arch,
    /// The program that is PID 1 on it, if not this one.
    pub program: Option<PathBuf>,
    /// Modules that cases can ask for, see [`super::read_modules`]; none where all is built in or
    /// the archive has none.
    pub modules: Option<PathBuf>,
    /// Which kernel it is.
    pub identity: Identity,
    /// Holds the files until nobody needs them, where they were unpacked for this run only.
    pub(super) scratch: Option<Held>,
}

#[cfg(test)]
impl Image {
    /// An image of which only this is known.
    pub(crate) fn bare(identity: Identity) -> Self {
        let path = PathBuf::from("vmlinuz");
        Self { path, arch: Arch::X86, program: None, modules: None, identity, scratch: None }
    }
}

/// A folder that is removed when the last image from it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Held(pub(super) Arc<Scratch>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.0.path() == other.0.path()
    }
}

impl Eq for Held {}

/// The options that facts can depend on, of a kernel's configuration file.
pub(super) fn options(config: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        if let Some(unset) = line.strip_prefix("# CONFIG_") {
            return Some((unset.strip_suffix(" is not set")?.to_owned(), "n".to_owned()));
        }
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    config.lines().filter_map(line).filter(|(name, _)| matters(name)).collect()
}

fn matters(name: &str) -> bool {
    OPTIONS.iter().any(|option| match option.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *option,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_sifted() {
        let text = "#\n# CONFIG_FOO is a comment\nCONFIG_USERFAULTFD=y\n# CONFIG_PREEMPT is not set\n\
                    CONFIG_HZ=250\nCONFIG_FOO=y\nCONFIG_ZRAM=m\nCONFIG_KVM_XEN=y\n";
        let expected = [("HZ", "250"), ("PREEMPT", "n"), ("USERFAULTFD", "y"), ("ZRAM", "m")];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(options(text), BTreeMap::from(expected));
    }
}
