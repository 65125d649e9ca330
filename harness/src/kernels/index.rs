//! Finds the cloud kernels in the archive's package indexes.

use super::lock::{Archive, Locked, PackageFile};
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use uffd_results::KernelVersion;

/// Meta-packages of the same name pattern are 2 kB; the smallest kernel is 13 MB.
const MIN_IMAGE: u64 = 4_000_000;

const FLAVOUR: &str = "-cloud-amd64";

type Key = (String, String);

/// Kernels found in the indexes read so far.
#[derive(Debug, Default)]
pub(super) struct Index {
    images: BTreeMap<Key, (PackageFile, Vec<String>)>,
    configs: BTreeMap<Key, PackageFile>,
    modules: BTreeMap<Key, PackageFile>,
    /// What should not happen.
    pub(super) odd: Vec<String>,
}

/// A package's entry in an index, as far as it matters here.
#[derive(Default)]
struct Stanza {
    name: String,
    version: String,
    path: String,
    size: u64,
    sha256: String,
}

/// Which part of a kernel a package holds, by its name.
enum Role {
    Image,
    Config,
    Modules,
}

/// The kernel release that `name` holds a part of. Signed packages only: each kernel has one, and
/// the unsigned twin holds the same build.
fn role(name: &str) -> Option<(Role, &str)> {
    let (role, rest) = if let Some(rest) = name.strip_prefix("linux-base-") {
        (Role::Config, rest)
    } else if let Some(rest) = name.strip_prefix("linux-modules-") {
        (Role::Modules, rest)
    } else {
        // Up to 6.18 the image is in linux-image-*, from 6.19 in linux-binary-*.
        let rest = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"));
        (Role::Image, rest?)
    };
    (rest.ends_with(FLAVOUR) && rest.starts_with(|c: char| c.is_ascii_digit()))
        .then_some((role, rest))
}

/// The kernel release that the image package `name` holds: what `uname -r` says.
pub(super) fn release(name: &str) -> Option<&str> {
    match role(name) {
        Some((Role::Image, release)) => Some(release),
        _ => None,
    }
}

impl Index {
    /// Takes in the index of a suite; returns how many kernels it named.
    pub(super) fn read(
        &mut self,
        suite: &str,
        archive: Archive,
        index: impl BufRead,
    ) -> io::Result<usize> {
        let mut stanza = Stanza::default();
        let mut found = 0;
        for line in index.lines() {
            let line = line?;
            if line.is_empty() {
                found += usize::from(self.add(suite, archive, std::mem::take(&mut stanza)));
                continue;
            }
            let Some((field, value)) = line.split_once(": ") else { continue };
            match field {
                "Package" => value.clone_into(&mut stanza.name),
                "Version" => value.clone_into(&mut stanza.version),
                "Filename" => value.clone_into(&mut stanza.path),
                "Size" => stanza.size = value.parse().unwrap_or(0),
                "SHA256" => value.clone_into(&mut stanza.sha256),
                _ => {}
            }
        }
        found += usize::from(self.add(suite, archive, stanza));
        Ok(found)
    }

    /// Whether the package is a kernel.
    fn add(&mut self, suite: &str, archive: Archive, stanza: Stanza) -> bool {
        let Some((role, release)) = role(&stanza.name) else { return false };
        let release = release.to_owned();
        let Stanza { name, version, path, size, sha256 } = stanza;
        let file = PackageFile { name, version, archive, path, size, sha256 };
        if let Err(why) = file.check() {
            self.odd.push(format!("{suite}: {why}, left out"));
            return false;
        }
        match role {
            Role::Config | Role::Modules => {
                let parts = if matches!(role, Role::Config) {
                    &mut self.configs
                } else {
                    &mut self.modules
                };
                parts.entry((release, file.version.clone())).or_insert(file);
                false
            }
            Role::Image if file.size < MIN_IMAGE => false,
            Role::Image => {
                let key = (file.name.clone(), file.version.clone());
                let (first, suites) =
                    self.images.entry(key).or_insert_with(|| (file.clone(), Vec::new()));
                if first.sha256 != file.sha256 {
                    self.odd.push(format!(
                        "{suite}: {file} has other content than in {}, left out",
                        suites.join(", ")
                    ));
                    return false;
                }
                suites.push(suite.to_owned());
                true
            }
        }
    }

    /// The kernels, each with the packages of its configuration and modules if these are others.
    pub(super) fn kernels(mut self) -> (Vec<Locked>, Vec<String>) {
        let mut kernels = Vec::new();
        for (_, (image, suites)) in self.images {
            let Ok(upstream) = KernelVersion::parse(&image.version) else {
                self.odd.push(format!("{image}: no upstream version, left out"));
                continue;
            };
            let release = release(&image.name).unwrap_or_default().to_owned();
            let key = (release, image.version.clone());
            let config = self.configs.get(&key).cloned();
            let modules = self.modules.get(&key).cloned();
            kernels.push(Locked { upstream, suites, gone: false, image, config, modules });
        }
        (kernels, self.odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, version: &str, size: u64) -> String {
        let hash = "a".repeat(64);
        format!(
            "Package: {name}\nVersion: {version}\nDepends: x\nDescription: a kernel\n more: words\n\
             Filename: pool/main/l/linux/{name}_{version}_amd64.deb\nSize: {size}\nSHA256: {hash}\n"
        )
    }

    fn index(packages: &[(&str, &str, u64)]) -> String {
        packages.iter().map(|(n, v, s)| stanza(n, v, *s)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn kernels_are_found_and_the_rest_is_not() {
        let text = index(&[
            ("linux-image-5.10.0-30-cloud-amd64", "5.10.218-1", 20_962_008),
            ("linux-image-5.10.0-30-cloud-amd64-unsigned", "5.10.218-1", 20_701_288),
            ("linux-image-5.10.0-30-amd64", "5.10.218-1", 54_000_000),
            ("linux-image-cloud-amd64", "5.10.218-1", 1500),
            ("linux-image-6.1-cloud-amd64", "6.1.180-1", 1524),
            ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1", 1928),
            ("linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1", 13_604_064),
            ("linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "7.3.4-1", 13_602_692),
            ("linux-base-7.3.4+deb13-cloud-amd64", "7.3.4-1", 1_025_208),
            ("linux-base-cloud-amd64", "7.3.4-1", 1244),
            ("linux-modules-7.3.4+deb13-cloud-amd64", "7.3.4-1", 30_000_000),
            ("linux-modules-7.3.4+deb13-amd64", "7.3.4-1", 90_000_000),
        ]);
        let mut index = Index::default();
        assert_eq!(index.read("a", Archive::Main, text.as_bytes()).expect("read"), 2);
        assert_eq!(index.read("b", Archive::Security, text.as_bytes()).expect("read"), 2);
        let (kernels, odd) = index.kernels();
        assert!(odd.is_empty(), "{odd:?}");
        let names: Vec<_> = kernels.iter().map(|k| k.image.name.as_str()).collect();
        assert_eq!(
            names,
            ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-image-5.10.0-30-cloud-amd64"]
        );
        assert_eq!(kernels[0].config.as_ref().map(|c| c.size), Some(1_025_208));
        assert_eq!(kernels[0].modules.as_ref().map(|c| c.size), Some(30_000_000));
        assert_eq!((&kernels[1].config, &kernels[1].modules), (&None, &None));
        assert_eq!(kernels[1].suites, ["a", "b"]);
        assert_eq!(kernels[1].image.archive, Archive::Main, "the first suite's archive is kept");
    }

    #[test]
    fn odd_entries_are_told_and_left_out() {
        let good = index(&[("linux-image-5.10.0-30-cloud-amd64", "5.10.218-1", 20_962_008)]);
        let mut index = Index::default();
        for text in [
            good.clone(),
            good.replace("aaaa", "bbbb"),
            good.replace("pool/", "../pool/"),
            good.replace("5.10.218-1", "new-1"),
        ] {
            index.read("s", Archive::Main, text.as_bytes()).expect("read");
        }
        let (kernels, odd) = index.kernels();
        assert_eq!((kernels.len(), odd.len()), (1, 3), "{odd:?}");
    }

    #[test]
    fn release_of_a_package() {
        assert_eq!(release("linux-binary-7.3-cloud-amd64"), Some("7.3-cloud-amd64"));
        assert_eq!(release("linux-base-7.3-cloud-amd64"), None);
    }
}
