//! What PID 1 makes of its machine before it asks: modules, settings, random numbers.

use super::plan::Plan;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;
use std::os::fd::AsRawFd;

/// The setting that names modules to be loaded, in order, with commas between them.
pub(super) const MODULES: &str = "modules";

/// Where a guest finds a module.
pub(super) fn module_path(name: &str) -> String {
    format!("/lib/modules/{name}.ko")
}

/// Loads modules and makes settings. What a kernel refuses or lacks stays away: records hold what
/// it has then, and cases say what they miss.
pub(super) fn prepare(plan: &Plan) {
    let modules = plan.setting(MODULES).unwrap_or_default();
    for name in modules.split(',').filter(|name| !name.is_empty()) {
        if let Ok(file) = File::open(module_path(name)) {
            let _ = finit_module(file, c"", ModuleInitFlags::empty());
        }
    }
    seed();
    // Warnings come to the console, where the host reads them; the boot itself was quiet.
    let _ = std::fs::write("/proc/sys/kernel/printk", "5 4 1 7");
    // Before 5.11 everybody might make userfaultfds that catch the kernel's faults; the same here.
    let _ = std::fs::write("/proc/sys/vm/unprivileged_userfaultfd", "1");
    // khugepaged fills what is missing of a huge page with zeros, when it likes: no case is to meet it.
    let _ = std::fs::write(
        "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs",
        "1000000000",
    );
}

/// While it lives, shared memory whose user asks for it comes in huge pages.
pub(super) struct HugeShared(Option<String>);

impl HugeShared {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

    pub(super) fn begin() -> Self {
        let Ok(text) = std::fs::read_to_string(Self::SETTING) else { return Self(None) };
        let before = text.split(['[', ']']).nth(1).map(str::to_owned);
        // What a kernel refuses costs time and nothing else.
        let _ = std::fs::write(Self::SETTING, "advise");
        Self(before)
    }
}

impl Drop for HugeShared {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::SETTING, before);
        }
    }
}

/// Has the kernel take its random numbers for good, which it would otherwise wait a second for when a case
/// asks for the first ones. They need not be secret in a VM that nobody talks to.
fn seed() {
    /// `struct rand_pool_info`: bits, bytes, and these.
    #[repr(C)]
    struct Seed(i32, i32, [u8; 64]);
    nix::ioctl_write_ptr_bad!(add_entropy, nix::request_code_write!(b'R', 0x03, 8), Seed);
    let Ok(random) = File::options().write(true).open("/dev/urandom") else { return };
    let seed = Seed(512, 64, [0x5e; 64]);
    // SAFETY: the call reads two numbers and as many bytes as the second one says.
    let _ = unsafe { add_entropy(random.as_raw_fd(), &raw const seed) };
}
