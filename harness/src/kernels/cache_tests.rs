//! Tests of the cache, with packages that are built on the spot and no network.

use super::super::{read_modules, testing};
use super::*;
use rstest::{fixture, rstest};
use std::cell::RefCell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands out files of a folder by package name; counts how often.
struct Shelf {
    folder: PathBuf,
    fetched: Arc<AtomicUsize>,
}

impl Fetch for Shelf {
    fn fetch(&self, file: &PackageFile, into: &Path) -> Result<(), FetchFailure> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        match fs::copy(self.folder.join(&file.name), into) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FetchFailure::Gone("404".into())),
            Err(e) => Err(FetchFailure::Other(e.to_string())),
        }
    }
}

struct Scene {
    root: tempfile::TempDir,
    fetched: Arc<AtomicUsize>,
    cache: Cache,
}

impl Scene {
    fn shelf(&self) -> PathBuf {
        self.root.path().join("shelf")
    }

    /// Builds a package of `files` on the shelf, and notes its size and hash in `package`.
    fn build(&self, package: &mut PackageFile, files: &[(&str, &[u8])]) {
        let tree = tempfile::tempdir_in(self.root.path()).expect("a folder");
        let write = |path: &str, bytes: &[u8]| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().expect("below the tree")).expect("made");
            fs::write(path, bytes).expect("written");
        };
        let PackageFile { name, version, .. } = &*package;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n\
             Maintainer: Nobody <nobody@example.invalid>\nDescription: test\n"
        );
        write("DEBIAN/control", control.as_bytes());
        for (path, bytes) in files {
            write(path, bytes);
        }
        // dpkg-deb refuses the private mode of a temporary folder.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(tree.path(), mode).expect("opened");
        let target = self.shelf().join(name);
        let status = Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "-b"])
            .args([tree.path(), &target])
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("dpkg-deb runs").success());
        (package.sha256, package.size) = files::sha256_of(&target).expect("read");
    }

    /// A kernel whose package is on the shelf.
    fn kernel(&self, version: &str) -> Locked {
        let mut kernel = testing::kernel(version, "s");
        let release = index::release(&kernel.image.name).expect("a kernel").to_owned();
        let image = image(&release, version);
        self.build(
            &mut kernel.image,
            &[
                (&format!("boot/vmlinuz-{release}"), &image),
                (&format!("boot/config-{release}"), b"CONFIG_USERFAULTFD=y\n"),
                (&format!("lib/modules/{release}/kernel/drivers/block/loop.ko"), LOOP),
            ],
        );
        kernel
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::Relaxed)
    }
}

/// A module that depends on nothing.
const LOOP: &[u8] = b"\x7fELF\0depends=\0";

fn image(release: &str, version: &str) -> Vec<u8> {
    testing::bzimage(&format!("{release} (a@b) #1 SMP Debian {version} (2026-01-01)"), &[7; 4096])
}

fn quiet(_: &str) {}

#[fixture]
fn scene() -> Scene {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("shelf");
    fs::create_dir(&folder).expect("made");
    let fetched = Arc::new(AtomicUsize::new(0));
    let shelf = Shelf { folder, fetched: Arc::clone(&fetched) };
    let cache = Cache::at(&root.path().join("cache"), Box::new(shelf)).expect("opened");
    Scene { root, fetched, cache }
}

#[rstest]
fn an_image_is_fetched_once(scene: Scene) {
    let kernel = scene.kernel("6.12.43-1");
    assert_eq!(scene.cache.cached(&kernel), None);
    let image = scene.cache.get(&kernel, &quiet).expect("fetched");
    assert_eq!(scene.cache.get(&kernel, &quiet).expect("cached"), image);
    assert_eq!(scene.cache.cached(&kernel).as_ref(), Some(&image));
    assert_eq!(scene.fetched(), 1);
    let identity = &image.identity;
    assert_eq!(identity.upstream.to_string(), "6.12.43");
    assert_eq!(identity.config.get("USERFAULTFD").map(String::as_str), Some("y"));
    assert_eq!(identity.package, Some(kernel.package()));
    assert_eq!(files::sha256_of(&image.path).expect("read").0, identity.image_sha256);
    let names: Vec<_> = fs::read_dir(&scene.cache.folder).expect("listed").flatten().collect();
    assert_eq!(names.len(), 4, "image, configuration, modules and identity: {names:?}");
    let modules = read_modules(image.modules.as_deref().expect("kept"), &["loop"]);
    assert_eq!(modules.expect("read"), [("loop".to_owned(), LOOP.to_vec())]);
}

#[rstest]
#[case("vmlinuz", Some("truncated"))]
#[case("vmlinuz", None)]
#[case("config", Some("CONFIG_USERFAULTFD=n"))]
#[case("config", None)]
#[case("modules.tar", Some(""))]
#[case("modules.tar", None)]
#[case("json", Some("{"))]
#[case("json", Some("{}"))]
fn damage_is_noticed_and_mended(scene: Scene, #[case] ending: &str, #[case] content: Option<&str>) {
    let kernel = scene.kernel("6.12.43-1");
    let image = scene.cache.get(&kernel, &quiet).expect("fetched");
    let file = scene.cache.file(&kernel, ending);
    match content {
        Some(text) => fs::write(&file, text).expect("written"),
        None => fs::remove_file(&file).expect("removed"),
    }
    assert_eq!(scene.cache.cached(&kernel), None);
    let words = RefCell::new(String::new());
    let again = scene.cache.get(&kernel, &|w| words.borrow_mut().push_str(w)).expect("mended");
    assert!(words.borrow().contains("damaged"), "{words:?}");
    assert_eq!(again, image);
    assert_eq!(scene.fetched(), 2);
}

#[rstest]
fn configuration_and_modules_of_other_packages(scene: Scene) {
    let mut kernel = scene.kernel("7.3.4-1");
    let release = index::release(&kernel.image.name).expect("a kernel").to_owned();
    let vmlinuz = image(&release, "7.3.4-1");
    scene.build(&mut kernel.image, &[(&format!("usr/lib/modules/{release}/vmlinuz"), &vmlinuz)]);
    let mut config = kernel.image.clone();
    config.name = format!("linux-base-{release}");
    scene.build(&mut config, &[(&format!("usr/lib/modules/{release}/config"), b"CONFIG_HZ=250\n")]);
    kernel.config = Some(config.clone());
    let mut modules = kernel.image.clone();
    modules.name = format!("linux-modules-{release}");
    let module = format!("usr/lib/modules/{release}/kernel/drivers/block/loop.ko");
    scene.build(&mut modules, &[(&module, LOOP)]);
    kernel.modules = Some(modules.clone());
    let got = scene.cache.get(&kernel, &quiet).expect("fetched");
    assert_eq!(got.identity.config.get("HZ").map(String::as_str), Some("250"));

    assert!(got.modules.is_some());

    // Without them the kernel can still be had.
    fs::remove_file(scene.shelf().join(&config.name)).expect("removed");
    fs::remove_file(scene.shelf().join(&modules.name)).expect("removed");
    fs::remove_file(&got.path).expect("removed");
    let got = scene.cache.get(&kernel, &quiet).expect("fetched");
    assert!(got.identity.config.is_empty() && got.modules.is_none());
    assert_eq!(scene.cache.cached(&kernel), Some(got));
}

#[rstest]
#[case(|k: &mut Locked| k.image.size += 1, "bytes, not")]
#[case(|k: &mut Locked| k.image.sha256 = "0".repeat(64), "SHA-256")]
#[case(|k: &mut Locked| k.upstream.patch = 44, "says version 6.12.43")]
fn what_is_not_as_the_lock_says_is_refused(
    scene: Scene,
    #[case] change: fn(&mut Locked),
    #[case] message: &str,
) {
    let mut kernel = scene.kernel("6.12.43-1");
    change(&mut kernel);
    let error = scene.cache.get(&kernel, &quiet).expect_err("refused");
    assert!(matches!(&error, FetchError::Content { .. }), "{error:?}");
    assert!(error.to_string().contains(message), "{error}");
    assert_eq!(fs::read_dir(&scene.cache.folder).expect("listed").count(), 0, "nothing is left");
}

#[rstest]
fn a_package_without_an_image_is_refused(scene: Scene) {
    let mut kernel = scene.kernel("6.12.43-1");
    scene.build(&mut kernel.image, &[("boot/System.map-1", b"")]);
    let error = scene.cache.get(&kernel, &quiet).expect_err("refused").to_string();
    assert!(error.contains("no boot image"), "{error}");
}

#[rstest]
fn what_is_gone_gives_way_to_the_next(scene: Scene) {
    let (mut first, second, third) =
        (scene.kernel("6.12.43-1"), scene.kernel("6.12.44-1"), scene.kernel("6.12.45-1"));
    first.gone = true;
    fs::remove_file(scene.shelf().join(&second.image.name)).expect("removed");
    let slot = |candidates: &[&Locked]| Slot {
        wanted: "oldest 6.12".into(),
        candidates: candidates.iter().map(|k| (*k).clone()).collect(),
    };
    let words = RefCell::new(Vec::new());
    let progress = |w: &str| words.borrow_mut().push(w.to_owned());
    let image = scene.cache.fill(&slot(&[&first, &second, &third]), &[], &progress);
    let image = image.expect("the third").expect("not taken");
    assert_eq!(image.identity.package, Some(third.package()));
    assert_eq!(words.borrow().iter().filter(|w| w.ends_with("skipped")).count(), 2, "{words:?}");
    assert_eq!(scene.fetched(), 2, "what the lock says is gone is not asked for");

    let taken = [image];
    assert!(matches!(scene.cache.fill(&slot(&[&third]), &taken, &quiet), Ok(None)));
    let error = scene.cache.fill(&slot(&[&first, &second]), &[], &quiet).expect_err("none left");
    assert!(matches!(error, FetchError::Gone { .. }), "{error:?}");
}

#[rstest]
fn a_gone_kernel_is_had_from_the_cache(scene: Scene) {
    let mut kernel = scene.kernel("6.12.43-1");
    scene.cache.get(&kernel, &quiet).expect("fetched");
    kernel.gone = true;
    assert!(scene.cache.get(&kernel, &quiet).is_ok());
}

#[rstest]
#[case(false, true)]
#[case(true, false)]
fn an_entry_from_before_modules_were_kept(
    scene: Scene,
    #[case] gone: bool,
    #[case] expected: bool,
) {
    let mut kernel = scene.kernel("6.12.43-1");
    scene.cache.get(&kernel, &quiet).expect("fetched");
    let json = scene.cache.file(&kernel, "json");
    let text = fs::read_to_string(&json).expect("read");
    let mut entry: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let fields = entry.as_object_mut().expect("an object");
    assert!(fields.remove("format").is_some() && fields.remove("modules_sha256").is_some());
    fs::write(&json, entry.to_string()).expect("written");
    kernel.gone = gone;
    let image = scene.cache.get(&kernel, &quiet).expect("had");
    assert_eq!(image.modules.is_some(), expected);
    assert!(scene.cache.cached(&kernel).is_some());
}

#[rstest]
fn many_at_once_do_no_harm(scene: Scene) {
    let kernel = scene.kernel("6.12.43-1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| scene.cache.get(&kernel, &quiet).expect("fetched"));
        }
    });
    assert!(scene.cache.cached(&kernel).is_some());
}

#[rstest]
fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(scene: Scene) {
    let folder = &scene.cache.folder;
    let used = Scratch::new(SCRATCH, folder).expect("made");
    let left = folder.join(format!("{SCRATCH}left"));
    fs::create_dir(&left).expect("made");
    fs::write(left.join("package.deb"), "half").expect("written");
    Cache::at(folder, Box::new(Apt::default())).expect("opened");
    assert!(!left.exists() && used.path().exists());
}

#[test]
fn a_folder_that_can_not_be_made_is_told() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let made = Cache::at(&file.path().join("kernels"), Box::new(Apt::default()));
    let error = made.err().expect("refused").to_string();
    assert!(error.contains("UFFD_CONFORM_CACHE"), "{error}");
}
