//! Compressed streams: which packer a stream is of, and its contents as they come.
//!
//! What may unpack to hundreds of megabytes goes through the packer's own program, as packages of Debian go
//! through dpkg-deb: it needs no memory of ours, and ends when nobody reads on.

use crate::children;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Bytes that tell a packer.
pub(super) const HEAD: usize = 6;

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packer {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Packer {
    /// The packer of a stream that begins so.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its program, and the package of Debian that has it.
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Gzip => ("gzip", "gzip"),
            Self::Bzip2 => ("bzip2", "bzip2"),
            Self::Xz => ("xz", "xz-utils"),
            Self::Zstd => ("zstd", "zstd"),
        }
    }
}

/// What is left of a file, unpacked.
pub(super) fn unpacked(mut file: File) -> io::Result<Box<dyn Read>> {
    let at = file.stream_position()?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(at))?;
    match Packer::of(&head) {
        None => Ok(Box::new(file)),
        Some(Packer::Zstd) => Ok(Box::new(zstd::Decoder::new(file)?)),
        Some(packer) => Ok(Box::new(Unpacker::start(packer, file)?)),
    }
}

/// A program that unpacks.
struct Unpacker {
    name: &'static str,
    child: Child,
    contents: ChildStdout,
    ended: bool,
}

impl Unpacker {
    fn start(packer: Packer, file: File) -> io::Result<Self> {
        let (name, package) = packer.program();
        let mut command = Command::new(name);
        command.arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = children::bind(&mut command).spawn().map_err(|e| {
            io::Error::new(e.kind(), format!("running {name} failed: {e}; install {package}"))
        })?;
        let Some(contents) = child.stdout.take() else { unreachable!("the output is a pipe") };
        Ok(Self { name, child, contents, ended: false })
    }

    /// What became of the program at the end of what it said.
    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        let mut words = String::new();
        if let Some(errors) = self.child.stderr.take() {
            errors.take(4096).read_to_string(&mut words)?;
        }
        if self.child.wait()?.success() {
            return Ok(());
        }
        let words = words.lines().next().unwrap_or("ended early");
        Err(io::Error::other(format!("{}: {words}", self.name)))
    }
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.contents.read(buffer)?;
        if n == 0 && !buffer.is_empty() && !self.ended {
            self.end()?;
        }
        Ok(n)
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::xz;
    use rstest::rstest;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file.rewind().expect("at its start");
        file
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 1).expect("memory")
    }

    #[rstest]
    #[case(b"plain".to_vec())]
    #[case(xz(b"plain"))]
    #[case(zstd(b"plain"))]
    fn contents_come_whatever_the_packer(#[case] bytes: Vec<u8>) {
        let mut behind = b"before".to_vec();
        behind.extend(bytes);
        let mut file = file(&behind);
        file.seek(SeekFrom::Start(6)).expect("behind what is before");
        let mut text = String::new();
        unpacked(file).expect("opened").read_to_string(&mut text).expect("read");
        assert_eq!(text, "plain");
    }

    #[test]
    fn damage_is_told_with_the_programs_words() {
        let mut packed = xz(&[7; 5000]);
        packed.truncate(packed.len() - 20);
        let error = io::copy(&mut unpacked(file(&packed)).expect("opened"), &mut io::sink());
        assert!(error.expect_err("cut short").to_string().contains("xz: "));
    }

    #[test]
    fn a_program_ends_when_nobody_reads_on() {
        let mut open = unpacked(file(&xz(&vec![7; 1 << 20]))).expect("opened");
        open.read_exact(&mut [0; 10]).expect("its beginning");
    }
}
