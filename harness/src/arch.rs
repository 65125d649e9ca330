//! The architectures whose kernels can be booted.

/// What a boot image is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, with pages of 4 KiB.
    #[default]
    X86,
    /// arm64.
    Arm64 {
        /// Size of its pages in KiB: 4, 16 or 64.
        page_kib: u32,
    },
}

impl Arch {
    /// Whether this program is built for it.
    pub fn is_own(self) -> bool {
        self.word() == std::env::consts::ARCH
    }

    /// What `uname -m` says.
    pub const fn word(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm64 { .. } => "aarch64",
        }
    }

    /// Its number in ELF files.
    pub(crate) const fn elf(self) -> u16 {
        match self {
            Self::X86 => 62,
            Self::Arm64 { .. } => 183,
        }
    }

    /// Size of a base page, in KiB.
    pub const fn page_kib(self) -> u32 {
        match self {
            Self::X86 => 4,
            Self::Arm64 { page_kib } => page_kib,
        }
    }

    /// The program of QEMU, and the package of Debian that has it.
    pub(crate) const fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::X86 => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm64 { .. } => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }
}
