//! Brings the lock up to date with Debian's archive.
//!
//! apt runs with a configuration, sources and state of its own in a folder that is removed
//! afterwards: the machine's are neither used nor changed, and nothing old can pass for new. Only
//! its mirrors, proxies and logins are those of the machine.

use super::apt::{self, Mirrors};
use super::cache;
use super::index::Index;
use super::lock::{Archive, Lock};
use crate::children;
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The suites with kernels, oldest first; where two have the same package, the first is noted as
/// its archive.
const SUITES: [(&str, Archive); 14] = [
    ("bullseye", Archive::Main),
    ("bullseye-updates", Archive::Main),
    ("bullseye-security", Archive::Security),
    ("bookworm", Archive::Main),
    ("bookworm-updates", Archive::Main),
    ("bookworm-backports", Archive::Main),
    ("bookworm-security", Archive::Security),
    ("trixie", Archive::Main),
    ("trixie-updates", Archive::Main),
    ("trixie-backports", Archive::Main),
    ("trixie-security", Archive::Security),
    ("forky", Archive::Main),
    ("sid", Archive::Main),
    ("experimental", Archive::Main),
];

/// Debian's archive keyring, under the names it has had.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// What a refresh has changed in the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Kernels that are new or back.
    pub added: Vec<String>,
    /// Kernels that the archive no longer has.
    pub gone: Vec<String>,
    /// Suites that could not be fetched or whose signature could not be checked. Their kernels
    /// are as before.
    pub unread: Vec<String>,
}

/// Reads all suites and brings `lock` up to date. `progress` gets a sentence for every step and
/// everything that should worry somebody.
pub fn refresh(lock: &mut Lock, progress: &dyn Fn(&str)) -> Result<Changes> {
    let folder = cache::folder()?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("making the cache folder {}", folder.display()))?;
    let private = Scratch::new(cache::SCRATCH, &folder)
        .with_context(|| format!("making a folder for apt in {}", folder.display()))?;
    let config = prepare(private.path())?;

    progress("reading the package indexes of Debian's suites (about 50 MB)");
    let mut update = apt::get();
    update.arg("-c").arg(&config).args(["-q", "update"]);
    let output = children::output(update).map_err(|e| apt::not_run("apt-get", &e))?;
    for complaint in apt::complaints(&output.stderr) {
        progress(&format!("apt: {complaint}"));
    }

    let indexes = targets(&config)?;
    let mut index = Index::default();
    let (mut read, mut changes) = (BTreeSet::new(), Changes::default());
    for (suite, archive) in SUITES {
        let Some(file) = indexes.get(suite) else {
            progress(&format!(
                "WARNING: {suite} was not fetched or its signature is not good: NOT used, its \
                 kernels stay as they are in the lock"
            ));
            changes.unread.push(suite.to_owned());
            continue;
        };
        let found = read_index(&config, file, suite, archive, &mut index)?;
        progress(&format!("{suite}: signature good, {found} kernels"));
        read.insert(suite.to_owned());
    }
    if read.is_empty() {
        bail!(
            "no suite of Debian's archive could be read and verified; the lock is unchanged. See \
             apt's words above, and try `apt-get update`"
        );
    }
    let (kernels, odd) = index.kernels();
    let merged = lock.merge(kernels, &read);
    for words in odd.iter().chain(&merged.other) {
        progress(&format!("WARNING: {words}"));
    }
    (changes.added, changes.gone) = (merged.added, merged.gone);
    Ok(changes)
}

/// Writes apt's private configuration below `folder`; returns the path of the configuration.
fn prepare(folder: &Path) -> Result<PathBuf> {
    let keyring = KEYRINGS.into_iter().find(|k| Path::new(k).exists()).context(
        "there is no keyring of Debian's archive in /usr/share/keyrings, so nothing could be \
         verified; install debian-archive-keyring",
    )?;
    let mirrors = Mirrors::of_machine().map_err(anyhow::Error::msg)?;
    let mut sources = String::new();
    for (suite, archive) in SUITES {
        let root = mirrors.root(archive).map_err(anyhow::Error::msg)?;
        let _ = writeln!(sources, "deb [arch=amd64 signed-by={keyring}] {root} {suite} main");
    }
    for sub in ["state/lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(folder.join(sub)).with_context(|| format!("making apt's {sub}"))?;
    }
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    write("sources.list", &sources)?;
    write("status", "")?;
    write("apt.conf", &configuration(folder))
}

/// The configuration. Hooks of the machine are cleared: they clean up the machine's own caches.
/// Whatever the machine says about unsigned archives, here they are refused. apt does not change its user: the folder
/// is closed to another, and what has changed its user outlives us.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "#clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear Acquire::Languages;\n\
         APT::Sandbox::User \"root\";\n\
         APT::Architecture \"amd64\";\n\
         #clear APT::Architectures;\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"{folder}/parts\";\n\
         Acquire::Languages {{ \"none\"; }};\n\
         Acquire::GzipIndexes \"true\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
         Acquire::AllowInsecureRepositories \"false\";\n\
         Acquire::AllowWeakRepositories \"false\";\n\
         Acquire::AllowDowngradeToInsecureRepositories \"false\";\n"
    )
}

/// The index files that apt holds and trusts, by suite.
fn targets(config: &Path) -> Result<BTreeMap<String, String>> {
    let output = apt::get()
        .arg("-c")
        .arg(config)
        .args(["indextargets", "--format", "$(TRUSTED)\t$(RELEASE)\t$(FILENAME)"])
        .arg("Created-By: Packages")
        .output()
        .map_err(|e| apt::not_run("apt-get", &e))?;
    Ok(trusted(&String::from_utf8_lossy(&output.stdout)))
}

pub(super) fn trusted(targets: &str) -> BTreeMap<String, String> {
    let entry = |line: &str| {
        let (suite, file) = line.strip_prefix("yes\t")?.split_once('\t')?;
        Some((suite.to_owned(), file.to_owned()))
    };
    targets.lines().filter_map(entry).collect()
}

fn read_index(
    config: &Path,
    file: &str,
    suite: &str,
    archive: Archive,
    index: &mut Index,
) -> Result<usize> {
    let mut child = apt::helper()
        .arg("-c")
        .arg(config)
        .args(["cat-file", file])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| apt::not_run(apt::HELPER, &e))?;
    let Some(stdout) = child.stdout.take() else { unreachable!("the output is a pipe") };
    let found = index.read(suite, archive, BufReader::with_capacity(1 << 16, stdout));
    let status = child.wait().context("waiting for apt-helper")?;
    let found = found.with_context(|| format!("reading the index of {suite}"))?;
    if !status.success() {
        bail!("reading the index of {suite} failed: apt-helper ended with {status}; try again");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_indexes_are_used() {
        let found = trusted("yes\tsid\t/x/sid\nno\tforky\t/x/forky\n\nyes\tbroken\n");
        assert_eq!(found, BTreeMap::from([("sid".to_owned(), "/x/sid".to_owned())]));
    }

    #[test]
    fn unsigned_archives_are_refused_whatever_the_machine_says() {
        let text = configuration(Path::new("/private"));
        for kind in ["Insecure", "Weak", "DowngradeToInsecure"] {
            assert!(text.contains(&format!("Acquire::Allow{kind}Repositories \"false\"")));
        }
    }
}
