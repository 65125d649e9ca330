use super::super::testing::bzimage;
use super::super::{cpio, rpm};
use super::*;
use crate::kernels::testing::xz;
use rstest::rstest;
use std::collections::BTreeMap;

const RELEASE: &str = "7.3.0-rc2-mine";

fn kernel() -> Vec<u8> {
    bzimage(&format!("{RELEASE} (a@b) #1 SMP"), &[1; 64])
}

fn module(release: &str) -> Vec<u8> {
    format!("\x7fELF\0depends=\0name=loop\0vermagic={release} SMP \0").into_bytes()
}

/// The files of a package: boot image, configuration, modules.
fn files() -> Vec<(String, Vec<u8>)> {
    vec![
        ("../../../etc/passwd".to_owned(), b"root".to_vec()),
        (format!("./lib/modules/{RELEASE}/vmlinuz"), kernel()),
        (format!("./lib/modules/{RELEASE}/config"), b"CONFIG_KSM=y\n".to_vec()),
        (format!("./lib/modules/{RELEASE}/kernel/drivers/block/loop.ko"), module(RELEASE)),
    ]
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // The name as it is: the library refuses the way out of the folder.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, &bytes[..]).expect("memory");
    }
    tar.into_inner().expect("memory")
}

fn rpm(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<(u32, &str, &[u8])> =
        files.iter().map(|(name, bytes)| (0o100_644, name.as_str(), bytes.as_slice())).collect();
    rpm::testing::rpm(&zstd::bulk::compress(&cpio::testing::archive(&members), 1).expect("memory"))
}

/// A package of Debian, as its own program makes it; no member of it leaves the folder.
fn deb(folder: &Path, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let tree = folder.join("tree");
    let write = |name: &str, bytes: &[u8]| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    };
    for (name, bytes) in files.iter().filter(|(name, _)| !name.starts_with("..")) {
        write(name, bytes);
    }
    let control = "Package: linux-image-mine\nVersion: 7.3~rc2-1\nArchitecture: amd64\n\
                   Maintainer: a <a@b>\nDescription: x\n";
    write("DEBIAN/control", control.as_bytes());
    let deb = folder.join("made.deb");
    let made = Command::new("dpkg-deb").arg("--build").args([&tree, &deb]).output();
    assert!(made.expect("dpkg-deb").status.success());
    fs::read(deb).expect("read")
}

fn found(image: &[u8], modules: &[PathBuf]) -> Result<(Image, Vec<String>), UserError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), image).expect("written");
    let files = UserKernel {
        image: file.path().into(),
        modules: modules.to_vec(),
        ..UserKernel::default()
    };
    let said = std::cell::RefCell::new(Vec::new());
    let image = user_image(&files, &|text| said.borrow_mut().push(text.to_owned()))?;
    Ok((image, said.into_inner()))
}

fn module_names(image: &Image) -> Vec<String> {
    let Some(tar) = &image.modules else { return Vec::new() };
    let modules = modules::read(tar, &["loop"]).expect("read");
    modules.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_bare_boot_image() {
    let (image, said) = found(&kernel(), &[]).expect("a boot image");
    let Identity { upstream, release, package, image_sha256, config } = image.identity;
    assert_eq!((upstream.to_string().as_str(), release.as_str()), ("7.3-rc2", RELEASE));
    assert!(package.is_none() && config.is_empty() && files::is_sha256(&image_sha256));
    assert!(image.scratch.is_none() && image.modules.is_none() && said.is_empty());
}

#[test]
fn an_image_that_is_packed_as_a_whole() {
    let (image, _) = found(&xz(&kernel()), &[]).expect("a boot image");
    assert_eq!(fs::read(&image.path).expect("unpacked"), kernel());
    assert!(image.scratch.is_some());
}

#[rstest]
#[case("tar", None)]
#[case("tar.xz", None)]
#[case("rpm", Some(("kernel-core", "6.12.9-200.fc41")))]
#[case("deb", Some(("linux-image-mine", "7.3~rc2-1")))]
fn a_package_gives_all_that_it_has(#[case] kind: &str, #[case] named: Option<(&str, &str)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let package = match kind {
        "tar" => tar(&files()),
        "tar.xz" => xz(&tar(&files())),
        "rpm" => rpm(&files()),
        _ => deb(folder.path(), &files()),
    };
    let (image, said) = found(&package, &[]).expect("a kernel");
    assert_eq!(image.identity.release, RELEASE);
    assert_eq!(image.identity.config, BTreeMap::from([("KSM".into(), "y".into())]));
    let package = image.identity.package.as_ref();
    assert_eq!(package.map(|p| (p.name.as_str(), p.version.as_str())), named);
    assert_eq!(module_names(&image), ["loop"]);
    assert_eq!(fs::read(&image.path).expect("unpacked"), kernel());
    assert!(said.is_empty(), "{said:?}");
    let scratch = image.path.parent().expect("a folder").to_owned();
    drop(image.clone());
    assert!(scratch.exists());
    drop(image);
    assert!(!scratch.exists(), "what was unpacked goes with the last image");
}

#[rstest]
#[case("")]
#[case("lib/modules/7.3.0-rc2-mine")]
#[case("usr/lib/modules/7.3.0-rc2-mine")]
#[case("7.3.0-rc2-mine")]
fn modules_come_from_a_folder(#[case] below: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let drivers = folder.path().join(below).join("kernel/drivers");
    fs::create_dir_all(&drivers).expect("folders");
    fs::write(drivers.join("loop.ko"), module(RELEASE)).expect("written");
    let (image, _) = found(&kernel(), &[folder.path().into()]).expect("a kernel");
    assert_eq!(module_names(&image), ["loop"]);
}

#[test]
fn modules_come_from_a_further_package_and_another_kernels_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = folder.path().join("modules.rpm");
    let only =
        |release: &str| vec![(format!("lib/modules/{release}/kernel/loop.ko"), module(release))];
    fs::write(&package, rpm(&only(RELEASE))).expect("written");
    let (image, _) = found(&kernel(), std::slice::from_ref(&package)).expect("a kernel");
    assert_eq!(module_names(&image), ["loop"]);

    fs::write(&package, rpm(&only("7.2.0"))).expect("written");
    let error = found(&kernel(), &[package]).expect_err("of another kernel").to_string();
    assert!(error.contains("built for 7.2.0") && error.contains(RELEASE), "{error}");
}

#[test]
fn what_has_no_modules_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = found(&kernel(), &[folder.path().into()]).expect_err("empty").to_string();
    assert!(error.contains("no folder \"kernel\""), "{error}");
    fs::create_dir(folder.path().join("kernel")).expect("made");
    let (image, said) = found(&kernel(), &[folder.path().into()]).expect("a kernel");
    assert!(image.modules.is_none() && said[0].contains("there are none"), "{said:?}");
}

#[rstest]
#[case(b"not a kernel".to_vec(), "no kernel's header")]
#[case(tar(&[("boot/readme".to_owned(), b"x".to_vec())]), "holds no boot image")]
#[case(rpm(&files())[..300].to_vec(), "can't be booted: ")]
#[case(b"!<arch>\ndebian-binary   ".to_vec(), "dpkg-deb: ")]
#[case(xz(b"a file"), "no kernel's header")]
#[case(xz(&[0; 5000])[..80].to_vec(), "xz: ")]
fn what_is_no_kernel_is_refused(#[case] bytes: Vec<u8>, #[case] why: &str) {
    let error = found(&bytes, &[]).expect_err("refused").to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn missing_and_odd_files_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let none = UserKernel { image: path("none"), ..UserKernel::default() };
    let error = user_image(&none, &|_| ()).expect_err("no file").to_string();
    assert!(error.contains("opening it failed"), "{error}");
    fs::write(path("bzImage"), kernel()).expect("written");
    let config = UserKernel {
        image: path("bzImage"),
        config: Some(path("bzImage")),
        ..UserKernel::default()
    };
    let error = user_image(&config, &|_| ()).expect_err("no configuration").to_string();
    assert!(error.contains("--config"), "{error}");
}
