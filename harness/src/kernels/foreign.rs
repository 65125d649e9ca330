//! What must hold of any bytes that are read as a part of Debian's archive or as a kernel's file.

use super::apt::{Mirrors, complaints};
use super::archive::trusted;
use super::index::Index;
use super::lighten::lighten;
use super::lock::{Archive, BUILT_IN, Lock};
use super::modules::{self, KEPT, MAX_MODULE, Packing};
use super::{cpio, debian, header, identity, rpm, select, unpack};
use crate::foreign::{Held, must, plain, same};
use std::cmp::Ordering;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::LazyLock;

/// A header is refused in words, or names a release that can be shown.
pub(crate) fn header(bytes: &[u8]) -> Held {
    match header::read(&mut Cursor::new(bytes)) {
        Ok(header) => {
            plain("a release", &header.release)?;
            must(!header.release.contains(['\n', ' ']), || format!("{:?}", header.release))?;
            let _ = header.upstream();
            Ok(true)
        }
        Err(why) => plain("why an image is refused", &why).map(|()| false),
    }
}

/// A package's tar file: its modules come out as files with plain names, none larger than it may be. The
/// bytes themselves are looked at as a packed module too.
pub(crate) fn package(bytes: &[u8]) -> Held {
    let mut taken = false;
    for packing in [Packing::None, Packing::Xz, Packing::Zstd] {
        let Ok(mut module) = modules::unpacked(packing, bytes) else { continue };
        small("a module", &module)?;
        for name in modules::depends(&module) {
            must(!name.contains(['-', ',']), || format!("{name:?} is needed"))?;
        }
        let before = module.clone();
        lighten(&mut module);
        must(module.len() <= before.len(), || "a module grew".to_owned())?;
        taken |= packing != Packing::None || module != before;
    }
    let Ok(found) = unpack::members(bytes, Path::new("/dev/null")) else { return Ok(taken) };
    taken |= found.image || found.config.is_some();
    if let Ok(Some(tar)) = found.modules.to_tar() {
        taken = true;
        let read = modules::read_tar(&tar[..], &KEPT).map_err(|e| format!("own file: {e}"))?;
        for (name, module) in &read {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            must(name.bytes().all(word), || format!("{name:?} is a module's name"))?;
            small(name, module)?;
        }
    }
    Ok(taken)
}

/// An rpm package says what it is in texts that can be shown; of a cpio archive no member is larger than all
/// of it, whatever it claims.
pub(crate) fn rpm(bytes: &[u8]) -> Held {
    let named = match rpm::head(&mut Cursor::new(bytes)) {
        Ok((name, version)) => {
            plain("a package's name", &name)?;
            plain("a package's version", &version).map(|()| true)?
        }
        Err(why) => plain("why a package is refused", &why.to_string()).map(|()| false)?,
    };
    let (mut members, mut all) = (0_u64, 0_u64);
    let read = cpio::each(bytes, &mut |_, file| {
        members += 1;
        all += io::copy(file, &mut io::sink())?;
        Ok::<_, io::Error>(())
    });
    if let Err(why) = read {
        plain("why an archive is refused", &why.to_string())?;
    }
    must(all <= bytes.len() as u64, || format!("{all} bytes in {} bytes", bytes.len()))?;
    Ok(named || members > 0)
}

fn small(name: &str, module: &[u8]) -> Result<(), String> {
    let small = module.len() as u64 <= MAX_MODULE;
    must(small, || format!("{name} has {} bytes", module.len()))
}

/// Kernels that an index names fit in a lock, which its own text gives again.
pub(crate) fn index(bytes: &[u8]) -> Held {
    let text = String::from_utf8_lossy(bytes);
    let mut index = Index::default();
    let found = index.read("suite", Archive::Main, bytes);
    let (kernels, _) = index.kernels();
    if let Ok(found) = found {
        must(kernels.len() <= found, || format!("{} kernels of {found}", kernels.len()))?;
    }
    let any = !kernels.is_empty();
    let locks = [Ok(Lock::of(kernels)), Lock::parse(&text, "a test")];
    for lock in locks.iter().flatten() {
        let own = lock.to_text();
        plain("a lock", &own)?;
        let again = Lock::parse(&own, "its own text").map_err(|e| e.to_string())?;
        same("a lock", &again, lock)?;
        for kernel in lock.kernels() {
            let path = &kernel.image.path;
            must(!path.starts_with('/') && !path.contains(".."), || format!("{path} is a path"))?;
        }
    }
    let options = identity::options(&text);
    let mirrors = Mirrors::parse(&text);
    let root = mirrors.root(Archive::Main).is_ok() || mirrors.root(Archive::Security).is_ok();
    let apt = !complaints(bytes).is_empty() || !trusted(&text).is_empty() || root;
    Ok(any || locks[1].is_ok() || !options.is_empty() || apt)
}

/// The order of package versions is an order.
pub(crate) fn order(a: &str, b: &str, c: &str) -> Result<(), String> {
    let compare = debian::compare;
    must(compare(a, a) == Ordering::Equal, || format!("{a:?} is not itself"))?;
    must(compare(a, b) == compare(b, a).reverse(), || format!("{a:?}, {b:?} turned"))?;
    let rises = compare(a, b).is_le() && compare(b, c).is_le();
    must(!rises || compare(a, c).is_le(), || format!("{a:?} <= {b:?} <= {c:?}, but not all"))
}

/// A name chooses kernels, or is refused in words; whether it chooses some.
pub(crate) fn chosen(pattern: &str) -> Held {
    static LOCK: LazyLock<Lock> =
        LazyLock::new(|| Lock::parse(BUILT_IN, "the built-in list").unwrap_or_default());
    match select(&LOCK, &[pattern.to_owned()], false) {
        Ok(slots) => {
            let some = !slots.is_empty() && slots.iter().all(|slot| !slot.candidates.is_empty());
            must(some, || format!("{pattern:?} chooses nothing and is no error")).map(|()| true)
        }
        Err(error) => plain("why nothing is chosen", &error.to_string()).map(|()| false),
    }
}
