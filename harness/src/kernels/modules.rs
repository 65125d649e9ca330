//! Kernel modules that a guest can be given: from a package's members to files in load order.
//!
//! Packages hold no modules.dep (it is made where a kernel is installed), so what a module depends on
//! is read from the module itself. Only the few that cases ask for are kept, unpacked, as a tar file
//! beside the boot image: the guest has no program that unpacks or resolves anything.

use super::lighten::lighten;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The modules that cases can ask for; what these depend on is kept as well. `lzo-rle` is zram's
/// default compressor up to 6.1, which the kernel would otherwise ask a program for.
pub(super) const KEPT: [&str; 4] = ["kvm-amd", "zram", "lzo-rle", "loop"];

/// Most that a package's modules may take together, packed: the largest has 90 MB.
const MAX_PACKED: u64 = 512 << 20;

/// Most that one module may take.
pub(super) const MAX_MODULE: u64 = 64 << 20;

/// Most that unpacking one may take beside it, in KiB; the kernel's build uses dictionaries of 1 MiB.
const DICTIONARY_KIB: u32 = 64 << 10;

/// A module by the name that the kernel knows it by, and its file.
pub type Module = (String, Vec<u8>);

/// The modules of a package as they lie in it, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    packed: BTreeMap<String, (Packing, Source)>,
    size: u64,
}

/// Where a module's file is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

/// How a module is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Xz,
    Zstd,
}

impl Members {
    /// Takes a member if it is a module. Fails if it can't be read or all are too large.
    pub(super) fn offer(&mut self, member: &str, mut file: impl Read) -> io::Result<()> {
        let Some((name, packing)) = module(member) else { return Ok(()) };
        let mut bytes = Vec::new();
        self.size += file.by_ref().take(MAX_MODULE).read_to_end(&mut bytes)? as u64;
        if self.size > MAX_PACKED {
            return Err(io::Error::other("its modules are larger than 512 MiB"));
        }
        self.packed.insert(name, (packing, Source::Bytes(bytes)));
        Ok(())
    }

    /// Takes all modules below a folder, to be read when they are needed.
    pub(super) fn offer_folder(&mut self, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.offer_folder(&path)?;
            } else if let Some((name, packing)) = name_of(&entry.file_name().to_string_lossy()) {
                self.packed.insert(name, (packing, Source::Path(path)));
            }
        }
        Ok(())
    }

    /// Takes what another package has.
    pub(super) fn join(&mut self, other: Self) {
        self.packed.extend(other.packed);
    }

    /// The kept modules with what they depend on, in load order.
    pub(super) fn kept(&self) -> io::Result<Vec<Module>> {
        in_order(&KEPT, &|name| {
            self.packed.get(name).map(|(packing, source)| source.unpacked(*packing)).transpose()
        })
    }

    /// The kept modules with what they depend on, as a tar file in load order; `None` if there are
    /// none.
    pub(super) fn to_tar(&self) -> io::Result<Option<Vec<u8>>> {
        let modules = self.kept()?;
        if modules.is_empty() {
            return Ok(None);
        }
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in modules {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{name}.ko"), &bytes[..])?;
        }
        tar.into_inner().map(Some)
    }
}

impl Source {
    fn unpacked(&self, packing: Packing) -> io::Result<Vec<u8>> {
        let path = match self {
            Self::Bytes(bytes) => return unpacked(packing, bytes),
            Self::Path(path) => path,
        };
        let words = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_MODULE + 1).read_to_end(&mut bytes))
            .map_err(words)?;
        if bytes.len() as u64 > MAX_MODULE {
            let why = "it is larger than 64 MiB: install modules without what debuggers read \
                       (INSTALL_MOD_STRIP=1)";
            return Err(words(io::Error::other(why)));
        }
        unpacked(packing, &bytes).map_err(words)
    }
}

/// The release that a module is built for: the first word of the `vermagic=` in its .modinfo section.
pub(super) fn release_of(module: &[u8]) -> Option<String> {
    let magic = entry_of(module, b"\0vermagic=")?;
    magic.split(' ').next().filter(|release| !release.is_empty()).map(str::to_owned)
}

/// The modules `wanted` and what they depend on, in load order, of a tar file that [`Members`] made.
/// What it does not hold is left out.
pub fn read(tar: &Path, wanted: &[&str]) -> io::Result<Vec<Module>> {
    read_tar(File::open(tar)?, wanted)
}

/// The same of the bytes of such a file.
pub(super) fn read_tar(tar: impl Read, wanted: &[&str]) -> io::Result<Vec<Module>> {
    let mut held = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.by_ref().take(MAX_MODULE).read_to_end(&mut bytes)?;
        if let Some((name, _)) = name_of(&entry.path()?.to_string_lossy()) {
            lighten(&mut bytes);
            held.insert(name, bytes);
        }
    }
    in_order(wanted, &|name| Ok(held.get(name).cloned()))
}

/// `wanted` and what they depend on, each behind its dependencies; a wanted module is left out if it,
/// or anything that it needs, can't be had.
fn in_order(
    wanted: &[&str],
    get: &dyn Fn(&str) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<Module>> {
    let mut modules: Vec<Module> = Vec::new();
    for name in wanted {
        let before = modules.len();
        if !add(&kernel_name(name), get, &mut modules, 0)? {
            modules.truncate(before);
        }
    }
    Ok(modules)
}

/// Adds a module behind what it depends on; whether all could be had.
fn add(
    name: &str,
    get: &dyn Fn(&str) -> io::Result<Option<Vec<u8>>>,
    modules: &mut Vec<Module>,
    depth: u32,
) -> io::Result<bool> {
    if modules.iter().any(|(known, _)| known == name) {
        return Ok(true);
    }
    let Some(bytes) = get(name)? else { return Ok(false) };
    for needed in depends(&bytes) {
        // The kernel refuses circles; a broken package must not exhaust the stack.
        if depth > 20 || !add(&needed, get, modules, depth + 1)? {
            return Ok(false);
        }
    }
    modules.push((name.to_owned(), bytes));
    Ok(true)
}

/// What a module depends on: the `depends=` of its .modinfo section, whose entries end with a NUL.
pub(super) fn depends(module: &[u8]) -> Vec<String> {
    let list = entry_of(module, b"\0depends=").unwrap_or_default();
    list.split(',').filter(|name| !name.is_empty()).map(kernel_name).collect()
}

/// An entry of a module's .modinfo section, where each ends with a NUL.
fn entry_of(module: &[u8], label: &[u8]) -> Option<String> {
    let at = module.windows(label.len()).position(|w| w == label)?;
    let rest = &module[at + label.len()..];
    let entry = &rest[..rest.iter().position(|b| *b == 0).unwrap_or(rest.len())];
    Some(String::from_utf8_lossy(entry).into_owned())
}

/// The module that a package's member is, if it is one.
fn module(member: &str) -> Option<(String, Packing)> {
    let member = member.strip_prefix("./").unwrap_or(member);
    let path = member.strip_prefix("usr/").unwrap_or(member).strip_prefix("lib/modules/")?;
    let (_, path) = path.split_once("/kernel/")?;
    name_of(path)
}

fn name_of(path: &str) -> Option<(String, Packing)> {
    let file = path.rsplit('/').next()?;
    let (name, packing) = match file.strip_suffix(".ko") {
        Some(name) => (name, Packing::None),
        None => match file.strip_suffix(".ko.xz") {
            Some(name) => (name, Packing::Xz),
            None => (file.strip_suffix(".ko.zst")?, Packing::Zstd),
        },
    };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    plain.then(|| (kernel_name(name), packing))
}

/// File names have dashes where the kernel has underscores.
fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The module itself.
pub(super) fn unpacked(packing: Packing, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match packing {
        Packing::None => Ok(bytes.to_vec()),
        Packing::Zstd => {
            let mut module = Vec::new();
            zstd::Decoder::new(bytes)?.take(MAX_MODULE).read_to_end(&mut module)?;
            Ok(module)
        }
        Packing::Xz => {
            let mut module = Vec::new();
            let unpacked = lzma_rust2::XzReader::new_mem_limit(bytes, false, DICTIONARY_KIB);
            unpacked.take(MAX_MODULE).read_to_end(&mut module)?;
            Ok(module)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::xz;
    use rstest::rstest;

    fn module_of(depends: &str) -> Vec<u8> {
        format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[rstest]
    #[case("./lib/modules/6.1/kernel/arch/x86/kvm/kvm-amd.ko", Some(("kvm_amd", Packing::None)))]
    #[case("./usr/lib/modules/7.3/kernel/virt/lib/irqbypass.ko.xz", Some(("irqbypass", Packing::Xz)))]
    #[case("lib/modules/7.3/kernel/mm/zsmalloc.ko.zst", Some(("zsmalloc", Packing::Zstd)))]
    #[case("./lib/modules/6.1/modules.builtin", None)]
    #[case("./lib/modules/6.1/kernel/config", None)]
    #[case("./boot/x.ko", None)]
    fn members_are_told_apart(#[case] member: &str, #[case] expected: Option<(&str, Packing)>) {
        let found = module(member);
        assert_eq!(found.as_ref().map(|(name, packing)| (name.as_str(), *packing)), expected);
    }

    #[test]
    fn what_is_needed_is_kept_unpacked_and_in_order() {
        let mut members = Members::default();
        let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("memory");
        for (file, bytes) in [
            ("kvm-amd.ko.xz", xz(&module_of("kvm,ccp")[..])),
            ("ccp.ko", module_of("")),
            ("kvm.ko.zst", zstd(&module_of("irqbypass"))),
            ("irqbypass.ko", module_of("")),
            ("loop.ko", module_of("not-there")),
            ("e1000.ko", module_of("")),
        ] {
            let member = format!("./lib/modules/1/kernel/{file}");
            members.offer(&member, &bytes[..]).expect("read");
        }
        let tar = members.to_tar().expect("packed").expect("not empty");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), tar).expect("written");
        let all = read(file.path(), &KEPT).expect("read");
        assert_eq!(names(&all), ["irqbypass", "kvm", "ccp", "kvm_amd"]);
        assert_eq!(all[1].1, module_of("irqbypass"));
        assert_eq!(names(&read(file.path(), &["kvm"]).expect("read")), ["irqbypass", "kvm"]);
        assert_eq!(read(file.path(), &["zram"]).expect("read"), []);
    }

    #[test]
    fn a_folder_gives_what_is_needed_and_reads_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let drivers = folder.path().join("kernel/drivers");
        std::fs::create_dir_all(&drivers).expect("folders");
        std::fs::write(drivers.join("loop.ko.xz"), xz(&module_of("")[..])).expect("written");
        // A module that is not needed: nothing could unpack it.
        std::fs::write(drivers.join("e1000.ko.xz"), "damaged").expect("written");
        std::fs::write(folder.path().join("modules.dep"), "").expect("written");
        let mut members = Members::default();
        members.offer_folder(folder.path()).expect("listed");
        assert_eq!(names(&members.kept().expect("read")), ["loop"]);
    }

    #[rstest]
    #[case(b"x\0vermagic=6.1.0-47-amd64 SMP mod_unload \0", Some("6.1.0-47-amd64"))]
    #[case(b"x\0vermagic=", None)]
    #[case(b"x", None)]
    fn the_release_is_read(#[case] module: &[u8], #[case] release: Option<&str>) {
        assert_eq!(release_of(module).as_deref(), release);
    }

    #[test]
    fn a_package_without_modules_makes_no_file() {
        assert_eq!(Members::default().to_tar().expect("nothing to do"), None);
    }

    #[test]
    fn circles_end() {
        let get = |_: &str| Ok(Some(module_of("a,b")));
        assert_eq!(in_order(&["a"], &get).expect("ended"), []);
    }

    #[test]
    fn a_bomb_is_cut_off() {
        let packed = xz(&vec![0; usize::try_from(MAX_MODULE).expect("it fits") + (1 << 20)]);
        assert!(packed.len() < 1 << 20, "{} bytes", packed.len());
        let module = unpacked(Packing::Xz, &packed).expect("unpacked");
        assert_eq!(module.len() as u64, MAX_MODULE);
    }

    #[test]
    fn a_broken_module_is_told() {
        let mut members = Members::default();
        members.offer("lib/modules/1/kernel/loop.ko.xz", &b"\xfd7zXZ"[..]).expect("read");
        assert!(members.to_tar().is_err());
    }
}
