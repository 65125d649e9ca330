//! The folder of records: one JSON file a kernel, written whole or not at all.

use crate::files::{Ready, Target};
use crate::scratch;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use uffd_results::bench::MeasuredError;
use uffd_results::{Environment, Kernel, KernelVersion, LARGEST, Record, RecordError, printable};

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder could not be read.
    #[error(
        "reading {path}: {error}; see that it is there and can be read, or name another results folder with --results"
    )]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A file could not be written.
    #[error("writing {path}: {error}; nothing was changed{}", room(.error, "--results or --record"))]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// The same of a place that the option for output has named.
    #[error("writing {path}: {error}; nothing was changed{}", room(.error, "--output"))]
    Output {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// What is to be written could not be read again.
    #[error(
        "writing {path}: what is to stand there can't be read again: {error}; nothing was changed: shorten or \
         leave out what this names, if an option gave it, else report it with that text"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What a reader would say.
        error: RecordError,
    },
    /// A file is not a record.
    #[error("{path}: {error}{}", advice(.error))]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RecordError,
    },
    /// A file holds no costs of operations.
    #[error(
        "{path}: {error}; restore the file from git, or delete it and measure that kernel again"
    )]
    Measured {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: MeasuredError,
    },
    /// A file that somebody gave us is not a record.
    #[error("{path}: {error}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RecordError,
    },
    /// Records of kernels with other command lines are here, or are to be joined.
    #[error(
        "{folder}: kernels whose command line was {} can't be recorded beside kernels whose was {}: a reader \
         would take one for the other; name another results folder with --results",
        line_words(.line),
        line_words(.other)
    )]
    Line {
        /// The results folder.
        folder: PathBuf,
        /// What is to be recorded.
        line: String,
        /// What is there.
        other: String,
    },
    /// There is no record at all.
    #[error(
        "no records below {0}: run `uffd-conform sweep` first, or name the folder with --results"
    )]
    Empty(PathBuf),
    /// A release string that can't be a file's name.
    #[error("the kernel's release {0:?} can't name a file")]
    Name(String),
}

/// What to do about a file that is no record; an error that says so itself needs no more.
fn advice(error: &RecordError) -> &'static str {
    match error {
        RecordError::Schema(_) => "",
        _ => "; restore the file from git, or delete it and record that kernel again",
    }
}

impl StoreError {
    /// The error of a place that --output names.
    #[must_use]
    pub fn of_output(self) -> Self {
        match self {
            Self::Write { path, error } => Self::Output { path, error },
            other => other,
        }
    }
}

/// What to do where something can't be written, with the options that name another place; an error that says so
/// itself needs no more.
fn room(error: &std::io::Error, options: &str) -> String {
    let what = match error.kind() {
        ErrorKind::Other => return String::new(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, or ",
        ErrorKind::PermissionDenied => "see that you may write there, or ",
        ErrorKind::IsADirectory => "a folder can't be replaced by a file: remove it, or ",
        ErrorKind::NotADirectory => "a file stands where a folder must be: remove it, or ",
        _ => "",
    };
    format!(": {what}name another place with {options}")
}

/// What was added to a command line, in words.
fn line_words(words: &str) -> String {
    match words {
        "" => "the usual one".to_owned(),
        words => format!("added to ({})", printable(words)),
    }
}

/// The records below a results folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in a results folder, which need not exist yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The results folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the record of a kernel stands.
    pub fn path(&self, kernel: &Kernel) -> Result<PathBuf, StoreError> {
        self.place("records", kernel)
    }

    /// Where a file about a kernel stands below a folder of the results.
    pub(crate) fn place(&self, below: &str, kernel: &Kernel) -> Result<PathBuf, StoreError> {
        let release = &kernel.release;
        let fit = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
            !text.is_empty() && !text.starts_with('.') && text.chars().all(plain)
        };
        let series = KernelVersion::parse(&kernel.upstream).map(KernelVersion::series);
        match series {
            Ok(series) if fit(release) && fit(&kernel.machine) => {
                let folder = self.folder.join(below).join(&kernel.machine).join(series);
                Ok(folder.join(format!("{release}.json")))
            }
            _ => Err(StoreError::Name(release.clone())),
        }
    }

    /// Whether records can be written: better known before kernels are asked than afterwards.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        if self.folder.exists() && !self.folder.is_dir() {
            let error = std::io::Error::from(ErrorKind::NotADirectory);
            return Err(StoreError::Write { path: self.folder.clone(), error });
        }
        check_room(&self.folder, &self.folder)
    }

    /// Makes the folder of the records, for who has none to put there: `merge` takes only folders that are there.
    pub fn make(&self) -> Result<(), StoreError> {
        let path = self.folder.join("records");
        fs::create_dir_all(&path).map_err(|error| StoreError::Write { path, error })
    }

    /// Removes what killed processes have left behind among the records.
    pub(crate) fn tidy(&self) {
        let mut folders = vec![self.folder.clone(), self.folder.join("records")];
        while let Some(folder) = folders.pop() {
            scratch::clean(&folder, scratch::NEW);
            if folder != self.folder {
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                let is_folder = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
                folders.extend(entries.filter(is_folder).map(|entry| entry.path()));
            }
        }
    }

    /// Whether records with `line` added to the kernel's command line fit to those that are here. What can't
    /// be read is no record, and whoever needs it says so.
    pub fn check_line(&self, line: &str) -> Result<(), StoreError> {
        let mut files = Vec::new();
        collect(&self.folder.join("records"), &mut files)?;
        let lines = files.iter().filter_map(|path| read_line(path));
        match lines.into_iter().find(|other| other != line) {
            Some(other) => Err(self.other_line(line, &other)),
            None => Ok(()),
        }
    }

    /// That two additions to the kernel's command line can't stand in one folder.
    pub(crate) fn other_line(&self, line: &str, other: &str) -> StoreError {
        let (line, other) = (line.to_owned(), other.to_owned());
        StoreError::Line { folder: self.folder.clone(), line, other }
    }

    /// Whether a record can be written so that it can be read again: better known before others are written.
    pub fn check(&self, record: &Record) -> Result<(), StoreError> {
        text_of(&self.path(&record.kernel)?, record).map(drop)
    }

    /// Writes a record in its place; its path.
    pub fn save(&self, record: &Record) -> Result<PathBuf, StoreError> {
        let path = self.path(&record.kernel)?;
        write(&path, record)?;
        Ok(path)
    }

    /// Writes records in their places, all or none: what can't be done, such as for want of room, is known before the
    /// first one is there. Their paths.
    pub fn save_all<'r>(
        &self,
        records: impl IntoIterator<Item = &'r Record>,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let text = |record: &Record| {
            let path = self.path(&record.kernel)?;
            text_of(&path, record).map(|text| (path, text))
        };
        let texts = records.into_iter().map(text).collect::<Result<Vec<_>, StoreError>>()?;
        let all = texts.iter().map(|(path, text)| ready(path, text.as_bytes()));
        for (ready, (path, _)) in all.collect::<Result<Vec<_>, _>>()?.into_iter().zip(&texts) {
            ready.put().map_err(|error| StoreError::Write { path: path.clone(), error })?;
        }
        Ok(texts.into_iter().map(|(path, _)| path).collect())
    }

    /// Every record, from the oldest kernel to the newest.
    pub fn load(&self) -> Result<Vec<Record>, StoreError> {
        self.load_with(read)
    }

    /// The same of a folder that somebody gave us.
    pub fn load_foreign(&self) -> Result<Vec<Record>, StoreError> {
        self.load_with(|path| Ok(read_foreign(path)?.0))
    }

    fn load_with(
        &self,
        read: impl Fn(&Path) -> Result<Record, StoreError>,
    ) -> Result<Vec<Record>, StoreError> {
        let mut files = Vec::new();
        collect(&self.folder.join("records"), &mut files)?;
        let mut records = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        if records.is_empty() {
            return Err(StoreError::Empty(self.folder.clone()));
        }
        records.sort_by_cached_key(|record| {
            let kernel = &record.kernel;
            (record.upstream().ok(), kernel.release.clone(), kernel.machine.clone())
        });
        Ok(records)
    }
}

/// Whether `path` can be written to: better known before kernels are asked.
pub fn check_file(path: &Path) -> Result<(), StoreError> {
    let fail = |error| StoreError::Write { path: path.to_owned(), error };
    match Target::of(path).map_err(fail)? {
        Target::File(target) => check_room(folder_of(&target), path),
        // Opening a pipe would wait for its reader.
        Target::Stream => access(path, AccessFlags::W_OK).map_err(|e| fail(e.into())),
    }
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether files can be made in a folder, which need not exist yet and is not made here.
fn check_room(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let existing = folder.ancestors().find(|folder| folder.exists());
    let existing = existing.filter(|folder| !folder.as_os_str().is_empty());
    let fail = |error| StoreError::Write { path: path.to_owned(), error };
    tempfile::tempfile_in(existing.unwrap_or(Path::new("."))).map(drop).map_err(fail)
}

/// Reads one record of a store.
pub fn read(path: &Path) -> Result<Record, StoreError> {
    let fail = |error| StoreError::Record { path: path.to_owned(), error };
    Record::read(&bytes(path)?).map_err(fail)
}

/// What was added to the command line of a record's kernel; only the head is made sense of.
fn read_line(path: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Head {
        environment: Environment,
    }
    let head: Head = serde_json::from_slice(&bytes(path).ok()?).ok()?;
    Some(head.environment.append)
}

/// Reads a record that somebody gave us; also its text.
pub fn read_foreign(path: &Path) -> Result<(Record, String), StoreError> {
    let bytes = bytes(path)?;
    let record = Record::read(&bytes)
        .map_err(|error| StoreError::Foreign { path: path.to_owned(), error })?;
    Ok((record, String::from_utf8_lossy(&bytes).into_owned()))
}

/// What a file holds, up to the first byte that is too many for a record: it may be a device.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, StoreError> {
    let fail = |error| StoreError::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Puts a record in the place of a file, if it can be read again: whole or not at all.
pub fn write(path: &Path, record: &Record) -> Result<(), StoreError> {
    replace(path, text_of(path, record)?.as_bytes())
}

/// A record's text, which is a record for whoever reads it.
fn text_of(path: &Path, record: &Record) -> Result<String, StoreError> {
    let text = record.to_json();
    match Record::read(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(error) => Err(StoreError::Unreadable { path: path.to_owned(), error }),
    }
}

/// Puts `content` in the place of a file, whole or not at all; what is no file, such as a pipe, takes it as it comes.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let put = ready(path, content)?.put();
    put.map_err(|error| StoreError::Write { path: path.to_owned(), error })
}

/// Everything for [`replace`] but the last step, which needs no room; the folder is made.
fn ready<'c>(path: &Path, content: &'c [u8]) -> Result<Ready<'c>, StoreError> {
    let fail = |error| StoreError::Write { path: path.to_owned(), error };
    if let Target::File(target) = Target::of(path).map_err(fail)? {
        fs::create_dir_all(folder_of(&target)).map_err(fail)?;
    }
    Ready::new(path, content).map_err(fail)
}

/// The JSON files below a folder, which need not exist.
pub(crate) fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let fail = |error| StoreError::Read { path: folder.to_owned(), error };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(fail(e)),
    };
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "json")
            && !path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
