//! Runs apt's tools, so that the machine's mirrors, proxies and logins apply.

use super::lock::{Archive, PackageFile};
use crate::children;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub(super) const HELPER: &str = "/usr/lib/apt/apt-helper";

/// A tool of apt with plain English messages, which are told apart below.
pub(super) fn get() -> Command {
    tool("apt-get")
}

/// apt's toolbox for scripts.
pub(super) fn helper() -> Command {
    tool(HELPER)
}

fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// That a tool of apt has not run to its end, and what to do if it is not there.
pub(super) fn not_run(program: &str, error: &io::Error) -> anyhow::Error {
    let advice = if error.kind() == io::ErrorKind::NotFound { "; install apt" } else { "" };
    anyhow::anyhow!("running {program} failed: {error}{advice}")
}

/// The lines of apt's output that say what went wrong, and only those.
pub(super) fn complaints(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stderr);
    let complaint = |line: &&str| {
        // Not being able to drop root's rights in a private folder harms nothing.
        (line.starts_with("E: ") || line.starts_with("W: ")) && !line.contains("unsandboxed")
    };
    text.lines().filter(complaint).map(str::to_owned).collect()
}

/// Where the archives are to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mirrors {
    main: Option<String>,
    security: Option<String>,
}

impl Mirrors {
    /// The mirrors that the machine's own apt uses, or those that the environment names.
    pub(super) fn of_machine() -> Result<Self, String> {
        let format = "$(ORIGIN)\t$(RELEASE)\t$(REPO_URI)";
        // Without downloaded indexes apt knows no origin; then the release's name must do.
        let mut mirrors = Self::default();
        for more in [&[][..], &["--no-release-info"]] {
            let output = get()
                .args(["indextargets", "--format", format])
                .args(more)
                .arg("Created-By: Packages")
                .output()
                .map_err(|e| {
                    let why = not_run("apt-get", &e);
                    format!("{why}, or give an image of your own")
                })?;
            mirrors = mirrors.or(Self::parse(&String::from_utf8_lossy(&output.stdout)));
        }
        Ok(Self::of_environment().or(mirrors))
    }

    fn of_environment() -> Self {
        let read = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
        Self { main: read(variable(Archive::Main)), security: read(variable(Archive::Security)) }
    }

    pub(super) fn parse(targets: &str) -> Self {
        let mut mirrors = Self::default();
        for line in targets.lines() {
            let mut fields = line.split('\t');
            let (Some(origin), Some(release), Some(uri)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if !(origin == "Debian" || origin.starts_with('$') && is_debian(release)) {
                continue;
            }
            let mirror = if release.ends_with("-security") || release.ends_with("/updates") {
                &mut mirrors.security
            } else {
                &mut mirrors.main
            };
            mirror.get_or_insert_with(|| uri.to_owned());
        }
        mirrors
    }

    fn or(self, other: Self) -> Self {
        Self { main: self.main.or(other.main), security: self.security.or(other.security) }
    }

    /// The root of an archive, with a slash at the end.
    pub(super) fn root(&self, archive: Archive) -> Result<String, String> {
        let (root, name) = match archive {
            Archive::Main => (&self.main, "main archive"),
            Archive::Security => (&self.security, "security archive"),
        };
        let variable = variable(archive);
        let root = root.as_deref().ok_or_else(|| {
            format!(
                "apt's sources on this machine name no mirror of Debian's {name}: add one, or set \
                 {variable} to its root"
            )
        })?;
        Ok(format!("{}/", root.trim_end_matches('/')))
    }
}

fn variable(archive: Archive) -> &'static str {
    match archive {
        Archive::Main => "UFFD_CONFORM_MIRROR",
        Archive::Security => "UFFD_CONFORM_MIRROR_SECURITY",
    }
}

fn is_debian(release: &str) -> bool {
    const SUITES: [&str; 12] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "experimental",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "rc-buggy",
    ];
    const PARTS: [&str; 5] = ["", "-updates", "-security", "-backports", "-proposed-updates"];
    SUITES.iter().any(|s| release.strip_prefix(s).is_some_and(|part| PARTS.contains(&part)))
}

/// Why a package file could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// The archive does not have it any more.
    Gone(String),
    /// No space, or no right, to write it.
    Storage(String),
    /// Anything else, in words.
    Other(String),
}

/// Something that can get a package file.
pub trait Fetch {
    /// Writes the package file to `into`. Size and hash are checked by the caller.
    fn fetch(&self, file: &PackageFile, into: &Path) -> Result<(), FetchFailure>;
}

/// Gets package files by apt's own transport.
#[derive(Debug, Default)]
pub struct Apt {
    mirrors: OnceLock<Result<Mirrors, String>>,
}

impl Fetch for Apt {
    fn fetch(&self, file: &PackageFile, into: &Path) -> Result<(), FetchFailure> {
        // Looked up at the first download: a filled cache needs no apt.
        let mirrors = self.mirrors.get_or_init(Mirrors::of_machine);
        let root = mirrors
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|m| m.root(file.archive))
            .map_err(FetchFailure::Other)?;
        let mut download = helper();
        // A folder of ours is closed to apt's own user, so it downloads as the user that it is run by in any
        // case; if it tried to change that, it would outlive us.
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download-file"]);
        download.arg(format!("{root}{}", file.path)).arg(into);
        download.arg(format!("SHA256:{}", file.sha256));
        let output = children::output(download)
            .map_err(|e| FetchFailure::Other(not_run(HELPER, &e).to_string()))?;
        if output.status.success() { Ok(()) } else { Err(failure(&output.stderr, &output.stdout)) }
    }
}

/// Tells the kinds of failure apart by apt's words.
fn failure(stderr: &[u8], stdout: &[u8]) -> FetchFailure {
    // Complaints only: apt also warns, of a folder that it can use after all, "Permission denied".
    let complaints = complaints(stderr);
    let words = match complaints.first() {
        Some(first) => first.trim_start_matches("E: ").to_owned(),
        None => String::from_utf8_lossy(stdout).trim().to_owned(),
    };
    let has = |texts: &[&str]| {
        texts.iter().any(|t| words.contains(t) || complaints.iter().any(|c| c.contains(t)))
    };
    if has(&["404  Not Found", "410  Gone", "File not found"]) {
        FetchFailure::Gone(words)
    } else if has(&["No space left", "Disk quota", "Read-only file system", "Permission denied"]) {
        FetchFailure::Storage(words)
    } else {
        FetchFailure::Other(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn mirrors_are_taken_from_apts_targets() {
        let targets = "Other\tbookworm\thttp://o.invalid/\n\
                       $(ORIGIN)\tnodistro\thttp://n.invalid/\n\
                       Debian\tbookworm\thttp://m.invalid/debian/\n\
                       Debian\tbookworm-backports\thttp://late.invalid/\n\
                       $(ORIGIN)\tstable-security\thttp://m.invalid/security\n";
        let mirrors = Mirrors::parse(targets);
        assert_eq!(mirrors.root(Archive::Main).as_deref(), Ok("http://m.invalid/debian/"));
        assert_eq!(mirrors.root(Archive::Security).as_deref(), Ok("http://m.invalid/security/"));
        let none = Mirrors::parse("").root(Archive::Security).expect_err("no mirror");
        assert!(none.contains("UFFD_CONFORM_MIRROR_SECURITY"), "{none}");
    }

    #[test]
    fn who_is_told_to_stop_is_not_told_to_install() {
        let said = |error: io::Error| not_run("apt-get", &error).to_string();
        assert!(said(io::ErrorKind::NotFound.into()).ends_with("; install apt"));
        let stopped = said(io::Error::other("interrupted by SIGINT"));
        assert_eq!(stopped, "running apt-get failed: interrupted by SIGINT");
    }

    #[rstest]
    #[case("E: Failed to fetch x  404  Not Found [IP: 192.0.2.1 80]\n", "gone")]
    #[case("E: Failed to fetch x  write (28: No space left on device)\n", "storage")]
    #[case(
        "W: Download is performed unsandboxed (13: Permission denied)\nE: No route to x\n",
        "other"
    )]
    #[case("", "other")]
    fn failures_are_told_apart(#[case] stderr: &str, #[case] kind: &str) {
        let failure = failure(stderr.as_bytes(), b"");
        let (found, words) = match &failure {
            FetchFailure::Gone(w) => ("gone", w),
            FetchFailure::Storage(w) => ("storage", w),
            FetchFailure::Other(w) => ("other", w),
        };
        assert_eq!(found, kind);
        assert!(!words.contains("unsandboxed"), "{words}");
    }
}
