//! The journal of a kernel that is being asked: its outcomes as they come, so that a sweep which is
//! ended early, by whatever, has lost none of them.
//!
//! A file beside the record, `RELEASE.journal`: JSON, a line each. The first line says what is asked and
//! where, each further one names a case with its outcome. Lines are written whole and never changed; the
//! first that is not whole, and what is behind it, counts for nothing. A sweep holds a lock on the file, and
//! removes it when the record is written. What a disk may make of it when the power fails is not
//! provided for: then fewer lines are whole.

use crate::scratch::is_at;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use uffd_results::{End, Environment, Outcome, Suite};

/// The format that this program writes and reads.
const FORMAT: u32 = 1;

/// Outcomes by case id.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// What is asked, of what, and how: answers to anything else are no answers to this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Which questions.
    pub(crate) suite: Suite,
    /// SHA-256 of the boot image.
    pub(crate) image_sha256: String,
    /// Bound on a case, in seconds.
    pub(crate) deadline: u64,
    /// How often each case is asked.
    pub(crate) repeat: u32,
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The first one.
    Journal { format: u32, asked: Asked, environment: Environment },
    /// A case has its outcome.
    Case(String, Outcome),
    /// The record is written: a forced sweep that goes on need not ask this kernel again.
    Recorded,
}

/// Why a journal can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Somebody else has it.
    #[error(
        "another sweep asks this kernel now (it holds {0}): let it end, or name another folder with --results"
    )]
    InUse(PathBuf),
    /// It can't be written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Flock<File>,
    asked: Asked,
    /// Where the outcomes in it come from; `None` before there is a first line.
    environment: Option<Environment>,
    outcomes: Outcomes,
    recorded: bool,
    /// Why it was given up.
    trouble: Option<String>,
}

impl Journal {
    /// Opens the journal at `path`: with `resume` it goes on with what it holds if that answers `asked`, else
    /// it begins anew.
    pub(crate) fn open(path: &Path, asked: Asked, resume: bool) -> Result<Self, JournalError> {
        let fail = |error| JournalError::File(path.to_owned(), error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let file = lock(path, true)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            asked,
            environment: None,
            outcomes: Outcomes::new(),
            recorded: false,
            trouble: None,
        };
        let whole = if resume { journal.read().map_err(fail)? } else { 0 };
        journal.begin_anew_at(whole).map_err(fail)?;
        Ok(journal)
    }

    /// Removes a journal that nobody writes.
    pub(crate) fn discard(path: &Path) {
        if let Ok(file) = lock(path, false) {
            let _ = fs::remove_file(path);
            drop(file);
        }
    }

    /// Takes what counts, and returns where it ends.
    fn read(&mut self) -> io::Result<u64> {
        let mut reader = BufReader::new(self.file.try_clone()?);
        let (mut line, mut end) = (Vec::new(), 0);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            // A line without its end may lack more than that.
            let whole =
                if line.ends_with(b"\n") { serde_json::from_slice(&line).ok() } else { None };
            match (whole, &self.environment) {
                (Some(Line::Journal { format: FORMAT, asked, environment }), None)
                    if asked == self.asked =>
                {
                    self.environment = Some(environment);
                }
                (Some(Line::Case(id, outcome)), Some(_)) => {
                    // What was our fault may go well now.
                    if !matches!(outcome.end, End::Broken | End::NotRun) {
                        self.outcomes.entry(id).or_insert(outcome);
                    }
                }
                (Some(Line::Recorded), Some(_)) => self.recorded = true,
                _ => return Ok(end),
            }
            end += length as u64;
        }
    }

    fn begin_anew_at(&mut self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }

    /// The outcomes that it was opened with and has taken since.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Whether the sweep that wrote it has also written the record.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// A guest is up: if the outcomes so far come from another environment, they are forgotten, and the answer
    /// is false.
    pub(crate) fn begin(&mut self, environment: &Environment) -> bool {
        match &self.environment {
            Some(known) if known == environment => true,
            Some(_) => {
                self.outcomes.clear();
                (self.environment, self.recorded) = (None, false);
                if let Err(error) = self.begin_anew_at(0) {
                    self.trouble.get_or_insert(error.to_string());
                }
                self.begin(environment);
                false
            }
            None => {
                let (asked, environment) = (self.asked.clone(), environment.clone());
                self.environment = Some(environment.clone());
                self.write(&Line::Journal { format: FORMAT, asked, environment });
                true
            }
        }
    }

    /// A case has its outcome.
    pub(crate) fn take(&mut self, id: &str, outcome: &Outcome) {
        self.write(&Line::Case(id.to_owned(), outcome.clone()));
        self.outcomes.insert(id.to_owned(), outcome.clone());
    }

    /// The record is written: removes the journal, or says so in it, for a forced sweep of more kernels.
    pub(crate) fn finish(mut self, keep: bool) {
        if keep {
            self.write(&Line::Recorded);
            self.recorded = true;
        } else {
            self.outcomes.clear();
            self.recorded = false;
        }
    }

    /// Why the last outcomes are not in the file, if they are not.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// In one system call: whenever this process is killed, the file ends with a whole line, or with the
    /// beginning of one.
    fn write(&mut self, line: &Line) {
        // What follows a line that is not whole would count for nothing.
        if self.trouble.is_some() {
            return;
        }
        let mut text = serde_json::to_string(line)
            .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
        text.push('\n');
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.trouble = Some(error.to_string());
        }
    }
}

impl Drop for Journal {
    /// What holds nothing is not left behind.
    fn drop(&mut self) {
        if self.outcomes.is_empty() && !self.recorded {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens and locks the file at `path`.
fn lock(path: &Path, create: bool) -> Result<Flock<File>, JournalError> {
    let fail = |error| JournalError::File(path.to_owned(), error);
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(create).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path).map_err(fail)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((_, Errno::EWOULDBLOCK)) => return Err(JournalError::InUse(path.to_owned())),
            Err((_, error)) => return Err(fail(error.into())),
            // Else its last owner has removed it in between.
            Ok(file) if is_at(&file.metadata().map_err(fail)?, path) => return Ok(file),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::time::{Duration, Instant};
    use uffd_results::Facts;

    fn asked() -> Asked {
        let suite = Suite { version: "0".into(), revision: "r".into() };
        Asked { suite, image_sha256: "0".repeat(64), deadline: 30, repeat: 1 }
    }

    fn environment() -> Environment {
        Environment {
            accelerator: "tcg".into(),
            cpus: 1,
            memory_mib: 1024,
            page_size: 4096,
            huge_pages_2m: 16,
            uffd: "syscall".into(),
            uffd_features: vec![],
            kvm: false,
            append: String::new(),
            sysctls: BTreeMap::new(),
        }
    }

    fn outcome(n: usize) -> Outcome {
        Outcome::done(Facts::parse(&format!("case={n}")).expect("facts"))
    }

    fn id(n: usize) -> String {
        format!("copy/a[n={n}]")
    }

    /// A journal, which a child that a neighbouring test has just forked may still have open, and so locked, for as
    /// long as it takes to run its program.
    fn opened(path: &Path, asked: &Asked, resume: bool) -> Journal {
        let start = Instant::now();
        loop {
            match Journal::open(path, asked.clone(), resume) {
                Err(JournalError::InUse(_)) if start.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                journal => return journal.expect("opened"),
            }
        }
    }

    /// A journal with so many outcomes, as a killed sweep leaves it.
    fn left(path: &Path, cases: usize) {
        let mut journal = opened(path, &asked(), false);
        assert!(journal.begin(&environment()));
        (0..cases).for_each(|n| journal.take(&id(n), &outcome(n)));
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("6.12/a.journal");
        (folder, path)
    }

    #[test]
    fn who_goes_on_has_what_was_taken() {
        let (_folder, path) = place();
        left(&path, 3);
        let mut journal = opened(&path, &asked(), true);
        assert!(journal.begin(&environment()));
        journal.take(&id(3), &outcome(3));
        drop(journal);
        let journal = opened(&path, &asked(), true);
        let expected: Outcomes = (0..4).map(|n| (id(n), outcome(n))).collect();
        assert_eq!(*journal.outcomes(), expected);
    }

    /// Whatever a killed process has written of it, every whole line counts and nothing else.
    #[test]
    fn a_journal_cut_anywhere_keeps_its_whole_lines() {
        let (_folder, path) = place();
        left(&path, 4);
        let text = fs::read(&path).expect("read");
        for cut in 0..=text.len() {
            fs::write(&path, &text[..cut]).expect("written");
            let lines = text[..cut].split(|&b| b == b'\n').count() - 1;
            let mut journal = opened(&path, &asked(), true);
            assert_eq!(journal.outcomes().len(), lines.saturating_sub(1), "cut at {cut}");
            // And it can go on from there.
            assert!(journal.begin(&environment()));
            journal.take(&id(9), &outcome(9));
            drop(journal);
            let journal = opened(&path, &asked(), true);
            assert_eq!(journal.outcomes().get(&id(9)), Some(&outcome(9)), "cut at {cut}");
            assert_eq!(journal.outcomes().len(), lines.saturating_sub(1) + 1, "cut at {cut}");
        }
    }

    #[rstest]
    #[case::suite(|a: &mut Asked| a.suite.revision.push('x'))]
    #[case::image(|a: &mut Asked| a.image_sha256 = "1".repeat(64))]
    #[case::deadline(|a: &mut Asked| a.deadline = 5)]
    #[case::repeat(|a: &mut Asked| a.repeat = 2)]
    fn answers_to_something_else_are_no_answers(#[case] change: fn(&mut Asked)) {
        let (_folder, path) = place();
        left(&path, 3);
        let mut other = asked();
        change(&mut other);
        assert_eq!(opened(&path, &other, true).outcomes().len(), 0);
    }

    #[rstest]
    #[case::garbage(b"\x00\x00\x00\n")]
    #[case::another_head(b"{\"journal\":{}}\n")]
    #[case::no_outcome(b"{\"case\":[\"copy/a\",7]}\n")]
    #[case::half(b"{\"case\":[\"copy/b\",\"a=1\"]}")]
    fn what_is_no_line_and_what_is_behind_it_counts_for_nothing(#[case] bad: &[u8]) {
        let (_folder, path) = place();
        left(&path, 3);
        let good = fs::read(&path).expect("read");
        fs::write(&path, [&good, bad, b"{\"case\":[\"copy/z\",\"a=1\"]}\n"].concat())
            .expect("written");
        let journal = opened(&path, &asked(), true);
        assert_eq!(journal.outcomes().len(), 3);
        assert_eq!(fs::read(&path).expect("read"), good);
    }

    #[test]
    fn another_environment_begins_anew() {
        let (_folder, path) = place();
        left(&path, 3);
        let mut journal = opened(&path, &asked(), true);
        let other = Environment { accelerator: "kvm".into(), ..environment() };
        assert!(!journal.begin(&other) && journal.outcomes().is_empty());
        journal.take(&id(7), &outcome(7));
        drop(journal);
        let mut journal = opened(&path, &asked(), true);
        assert!(journal.begin(&other) && journal.outcomes().len() == 1);
    }

    #[test]
    fn without_resume_it_begins_anew() {
        let (_folder, path) = place();
        left(&path, 3);
        assert!(opened(&path, &asked(), false).outcomes().is_empty());
        assert!(!path.exists(), "what holds nothing is not left");
    }

    #[test]
    fn what_was_our_fault_is_asked_again() {
        let (_folder, path) = place();
        let mut journal = opened(&path, &asked(), false);
        journal.begin(&environment());
        for (n, end) in [End::Broken, End::NotRun, End::Hang, End::Panic].into_iter().enumerate() {
            journal.take(&id(n), &Outcome::ended(end, "so", Facts::new()));
        }
        drop(journal);
        let journal = opened(&path, &asked(), true);
        assert_eq!(journal.outcomes().keys().cloned().collect::<Vec<_>>(), [id(2), id(3)]);
    }

    #[rstest]
    #[case(false)]
    #[case(true)]
    fn when_the_record_is_written_it_goes_or_says_so(#[case] keep: bool) {
        let (_folder, path) = place();
        left(&path, 3);
        opened(&path, &asked(), true).finish(keep);
        assert_eq!(path.exists(), keep);
        let journal = opened(&path, &asked(), true);
        assert_eq!(journal.is_recorded(), keep);
    }

    #[test]
    fn two_sweeps_do_not_write_one_journal() {
        let (_folder, path) = place();
        let journal = opened(&path, &asked(), true);
        let error = Journal::open(&path, asked(), true).expect_err("in use").to_string();
        assert!(error.contains("another sweep") && error.contains("a.journal"), "{error}");
        Journal::discard(&path);
        assert!(path.exists(), "it is in use");
        drop(journal);
        opened(&path, &asked(), true);
    }

    #[test]
    fn a_full_disk_costs_what_did_not_fit() {
        let (_folder, path) = place();
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        left(&path, 3);
        let whole = fs::read(&path).expect("read");
        let mut journal = opened(&path, &asked(), true);
        assert!(journal.begin(&environment()));
        journal.trouble = Some("No space left on device".into());
        journal.take(&id(3), &outcome(3));
        assert_eq!(
            (journal.trouble(), journal.outcomes().len()),
            (Some("No space left on device"), 4)
        );
        drop(journal);
        assert_eq!(fs::read(&path).expect("read"), whole);
    }
}
