//! Words on the terminal: colours where it has them, errors in one shape, no word on a closed pipe.

use crate::diff::Category;
use crate::judge::Judgement;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::io::{self, Write};
use uffd_results::{End, Kept, Verdict, printable_lines};

/// Standard output with colours where it is a terminal that wants them.
pub(crate) fn stdout() -> impl Write {
    Out(anstream::AutoStream::auto(io::stdout().lock()))
}

/// Standard output for bytes that are somebody else's, and pass as they are.
pub(crate) fn plain_stdout() -> impl Write {
    Out(io::stdout().lock())
}

/// A stream whose errors say what to do. That its reader has gone is none: the work is still done,
/// and the exit code still says how it went.
struct Out<W>(W);

impl<W: Write> Out<W> {
    fn checked<T>(result: io::Result<T>, gone: T) -> io::Result<T> {
        let Err(e) = result else { return result };
        match e.kind() {
            io::ErrorKind::BrokenPipe => Ok(gone),
            io::ErrorKind::Interrupted => Err(e),
            kind => {
                let text =
                    format!("writing to standard output: {e}; see that it can be written to");
                Err(io::Error::new(kind, text))
            }
        }
    }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::checked(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::checked(self.0.flush(), ())
    }
}

/// An error and its causes, on standard error. Names and texts in it may come from anywhere.
pub(crate) fn error(error: &anyhow::Error) {
    let red = AnsiColor::Red.on_default().bold();
    let mut err = anstream::stderr();
    let text = format!("{error:#}");
    let _ = writeln!(err, "{red}error:{red:#} {}", printable_lines(&text));
}

/// Says what is wrong with the command line, or the help that was asked for; returns whether something is wrong. It
/// quotes what was typed, or what a script took from elsewhere.
pub(crate) fn usage(error: &clap::Error) -> bool {
    let text = error.render().to_string();
    let shown = printable_lines(&text);
    // Where it can't be written there is nobody to tell.
    let _ = if shown == text { error.print() } else { writeln!(anstream::stderr(), "{shown}") };
    error.use_stderr()
}

/// A remark, on standard error.
pub(crate) fn note(text: &str) {
    let yellow = AnsiColor::Yellow.on_default();
    let _ = writeln!(anstream::stderr(), "{yellow}note:{yellow:#} {}", printable_lines(text));
}

/// A text in a style.
pub(crate) struct Painted<T>(Style, T);

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, text) = self;
        write!(f, "{style}{text}{style:#}")
    }
}

/// Text that is less important.
pub(crate) fn dim<T: fmt::Display>(text: T) -> Painted<T> {
    Painted(Style::new().dimmed(), text)
}

/// Text that stands out.
pub(crate) fn bold<T: fmt::Display>(text: T) -> Painted<T> {
    Painted(Style::new().bold(), text)
}

/// A verdict in its colour, padded to a column.
pub(crate) fn verdict(verdict: Verdict) -> Painted<String> {
    let colour = match verdict {
        Verdict::Pass => AnsiColor::Green,
        Verdict::Differs => AnsiColor::Yellow,
        Verdict::Ended(End::Unsupported | End::Denied | End::Precondition | End::NotRun) => {
            AnsiColor::Blue
        }
        Verdict::Ended(_) => AnsiColor::Red,
    };
    Painted(colour.on_default().bold(), format!("{verdict:<12}"))
}

/// A word in the colour of an assumption's verdict.
pub(crate) fn kept(kept: Option<Kept>, word: &str) -> Painted<&str> {
    let colour = match kept {
        Some(Kept::Kept) => AnsiColor::Green,
        Some(Kept::Broken) => AnsiColor::Red,
        Some(Kept::Unsupported) | None => AnsiColor::Blue,
    };
    Painted(colour.on_default().bold(), word)
}

/// A category of a difference in its colour, padded to a column.
pub(crate) fn category(category: Category) -> Painted<String> {
    let colour = match category {
        Category::Regression => AnsiColor::Red,
        Category::Fixed => AnsiColor::Green,
        Category::Changed => AnsiColor::Yellow,
        Category::New | Category::Gone | Category::Skipped => AnsiColor::Blue,
    };
    Painted(colour.on_default().bold(), format!("{category:<10}"))
}

/// A word that warns, padded to a column.
pub(crate) fn warning(word: impl fmt::Display) -> Painted<String> {
    Painted(AnsiColor::Yellow.on_default().bold(), format!("{word:<12}"))
}

/// The reasons of a verdict, a line each.
pub(crate) fn differences(out: &mut dyn Write, judgement: &Judgement) -> io::Result<()> {
    for difference in &judgement.differences {
        let expected = &difference.expected;
        let seen = difference.seen.as_deref().unwrap_or("nothing");
        writeln!(out, "             {}: expected {}, saw {seen}", expected.fact, expected.value)?;
        writeln!(out, "             {}", dim(format_args!("expected by {}", expected.source)))?;
    }
    Ok(())
}

/// A progress bar on standard error; draws nothing unless that is a terminal.
pub(crate) fn progress(cases: usize) -> ProgressBar {
    let bar = ProgressBar::new(cases as u64);
    let style = "{prefix:.bold} {wide_bar:.cyan/blue} {pos}/{len} cases {elapsed} {msg}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
