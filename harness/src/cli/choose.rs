//! Which kernels are asked, and in what VMs: options that commands share.

mod failed;

use crate::interrupt;
use crate::kernels::{self, Cache, Image, Lock, Slot, UserKernel};
use crate::vm::{self, Options};
use anyhow::{Result, bail};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use failed::Failed;
use std::path::PathBuf;
use std::str::FromStr;
use uffd_results::LONGEST_TEXT;

/// The plan's setting with the words that the user has added to the kernel's command line.
pub(super) const APPEND: &str = "append";

/// The options of [`OwnArgs`]. All are named where one conflicts: of an option that conflicts with what is given
/// nobody is told that another one requires it.
const OWN: [&str; 4] = ["kernel_image", "modules", "config", "program"];

/// Which kernels to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelArgs {
    /// A series (6.12: its oldest and newest release), a version (6.12.43) or a pattern (7.*).
    #[arg(short, long = "kernel", value_name = "KERNEL", conflicts_with_all = OWN)]
    pub(crate) kernel: Vec<String>,
    /// Only the newest release of each series.
    #[arg(long)]
    pub(crate) newest: bool,
    #[command(flatten)]
    pub(crate) own: OwnArgs,
    /// The lock file that says which kernels there are (default: the one built in).
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Only the I-th of N parts of them, for several machines; `merge` puts their results together.
    #[arg(long, value_name = "I/N", conflicts_with_all = OWN)]
    pub(crate) shard: Option<Shard>,
}

/// A kernel of the user's own.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OwnArgs {
    /// A kernel of your own: bzImage or vmlinux, or a package (deb, rpm, tar) with it. It needs serial console,
    /// devtmpfs and userfaultfd built in.
    #[arg(long, value_name = "PATH")]
    pub(crate) kernel_image: Option<PathBuf>,
    /// Its modules: the folder lib/modules/RELEASE, or a package with it; may be given again.
    #[arg(long, value_name = "PATH", requires = "kernel_image")]
    modules: Vec<PathBuf>,
    /// Its configuration, for the record, where no package brings it.
    #[arg(long, value_name = "FILE", requires = "kernel_image")]
    config: Option<PathBuf>,
    /// This program for a kernel of another architecture, as scripts/arm64-program builds it.
    #[arg(long, value_name = "FILE", requires = "kernel_image")]
    program: Option<PathBuf>,
}

impl OwnArgs {
    /// The kernel, if one is named.
    pub(super) fn image(&self, say: &dyn Fn(&str)) -> Result<Option<Image>> {
        let Some(image) = self.kernel_image.clone() else { return Ok(None) };
        let files = UserKernel {
            image,
            modules: self.modules.clone(),
            config: self.config.clone(),
            program: self.program.clone(),
        };
        Ok(Some(kernels::user_image(&files, say)?))
    }
}

/// One of so many parts of the chosen kernels, each of which a machine of its own can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Which part, from 1.
    part: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| {
            let number = |text: &str| text.parse::<u16>().ok().map(usize::from);
            Some((number(part)?, number(of)?))
        });
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err("want I/N, such as 2/5: the second of five parts".to_owned()),
        }
    }
}

impl Shard {
    /// The part of a list: every N-th, so that old and new kernels are spread evenly.
    fn take<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.part - 1).step_by(self.of).collect()
    }
}

/// How guests are run.
#[derive(Clone, Debug, Args)]
pub(crate) struct VmArgs {
    /// What runs the guests' code (default: tcg): KVM is used only after it has proved itself.
    #[arg(long, value_enum, value_name = "ACCEL")]
    accelerator: Option<Accel>,
    #[command(flatten)]
    line: LineArgs,
}

/// What the kernels are told at boot: as it is typed, or, once it is checked as a whole, as they get it.
#[derive(Clone, Debug, Default, Args)]
struct Typed {
    /// More words for the kernel's command line, such as `lru_gen=n`; records say which. At most 1024 bytes in all.
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    append: Vec<String>,
}

/// What the kernels are told at boot, and a record can say.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineArgs {
    append: Vec<String>,
}

/// Longest addition to a command line, in bytes: a record takes no more. The kernel takes 2048 in all, and what this
/// program says itself is less than a quarter of that.
const LONGEST_LINE: usize = LONGEST_TEXT;

impl FromArgMatches for LineArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Typed { append } = Typed::from_arg_matches(matches)?;
        let line = Self { append };
        match line.text().len() {
            0..=LONGEST_LINE => Ok(line),
            length => Err(clap::Error::raw(
                ErrorKind::ValueValidation,
                format!(
                    "all --append together have {length} bytes, and a record has room for {LONGEST_LINE}: give \
                     fewer or shorter words\n"
                ),
            )),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LineArgs {
    fn augment_args(command: Command) -> Command {
        Typed::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Typed::augment_args_for_update(command)
    }
}

/// Words that a command line can hold and a record can show.
fn words(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words.concat().bytes().any(|b| !b.is_ascii_graphic()) {
        return Err("want words of printable ASCII characters".into());
    }
    // Behind it all words are the first program's, which is ours.
    if words.contains(&"--") {
        return Err("-- ends what the kernel reads: leave it out".into());
    }
    Ok(words.join(" "))
}

impl LineArgs {
    /// Puts the words behind those of the program's own, and has the record say so.
    pub(super) fn add_to(&self, options: &mut Options) {
        if self.append.is_empty() {
            return;
        }
        options.append.extend(self.append.iter().cloned());
        options.settings.insert(APPEND.into(), self.text());
    }

    /// The words as a record has them: empty if there are none.
    pub(super) fn text(&self) -> String {
        self.append.join(" ")
    }

    /// The option that the user has given, if any.
    pub(super) fn named(&self) -> Option<&'static str> {
        (!self.append.is_empty()).then_some("--append")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Accel {
    /// Emulation: the same everywhere, and what the committed records are made with.
    Tcg,
    /// KVM, or nothing.
    Kvm,
    /// KVM if it proves itself, else emulation.
    Auto,
}

impl VmArgs {
    const fn choice(&self) -> vm::accel::Choice {
        match self.accelerator {
            None | Some(Accel::Tcg) => vm::accel::Choice::Tcg,
            Some(Accel::Kvm) => vm::accel::Choice::Kvm,
            Some(Accel::Auto) => vm::accel::Choice::Auto,
        }
    }

    /// The option that the user has given, if any.
    pub(super) fn named(&self) -> Option<&'static str> {
        self.accelerator.map(|_| "--accelerator").or(self.line.named())
    }

    /// What VMs are like by these options.
    pub(super) fn options(&self) -> Options {
        let mut options = Options { accelerator: self.choice(), ..Options::default() };
        self.line.add_to(&mut options);
        options
    }

    /// The words that are added to the kernels' command line.
    pub(super) fn line(&self) -> String {
        self.line.text()
    }
}

/// CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl KernelArgs {
    /// Whether a kernel other than the running one is named.
    pub(crate) fn names_any(&self) -> bool {
        self.own.kernel_image.is_some()
            || !self.kernel.is_empty()
            || self.newest
            || self.shard.is_some()
    }

    /// Whether the kernel is the user's own.
    pub(crate) fn is_own(&self) -> bool {
        self.own.kernel_image.is_some()
    }

    /// The chosen places of the lock file; none for a kernel of the user's own.
    pub(crate) fn slots(&self) -> Result<Vec<Slot>> {
        if self.own.kernel_image.is_some() {
            return Ok(Vec::new());
        }
        let lock = Lock::open(self.lock.as_deref())?;
        let slots = kernels::select(&lock, &self.kernel, self.newest)?;
        Ok(match self.shard {
            Some(shard) => shard.take(slots),
            None => slots,
        })
    }

    /// How many kernels that is at most.
    pub(crate) fn count(&self) -> Result<usize> {
        Ok(if self.own.kernel_image.is_some() { 1 } else { self.slots()?.len() })
    }

    /// The kernels, fetched one after the other and handed out as they come. One that can't be had costs none of
    /// the others: that is the error at the end.
    pub(crate) fn each(
        &self,
        say: &dyn Fn(&str),
        hand_out: &mut dyn FnMut(Image) -> Result<()>,
    ) -> Result<()> {
        if let Some(image) = self.own.image(say)? {
            return hand_out(image);
        }
        let slots = self.slots()?;
        if slots.is_empty() && self.shard.is_some() {
            say(NO_KERNEL);
            return Ok(());
        }
        // Before anything is downloaded for it.
        vm::qemu_version(None)?;
        let _guard = interrupt::guard();
        let cache = Cache::open()?;
        let (mut taken, mut failed) = (Vec::<Image>::new(), Failed::default());
        for slot in slots {
            let filled = cache.fill(&slot, &taken, say);
            interrupt::check()?;
            match filled {
                Ok(None) => {}
                Ok(Some(image)) => {
                    hand_out(image.clone())?;
                    taken.push(image);
                }
                Err(error) => failed.take(&slot.wanted, error, say)?,
            }
        }
        failed.end()?;
        if taken.is_empty() {
            bail!(
                "none of the chosen kernels can be had: see the notes above, and `uffd-conform kernels`"
            );
        }
        Ok(())
    }

    /// The kernels that can be had, all fetched, and what became of the others.
    pub(crate) fn all(&self, say: &dyn Fn(&str)) -> (Vec<Image>, Result<()>) {
        let mut images = Vec::new();
        let fetched = self.each(say, &mut |image| {
            images.push(image);
            Ok(())
        });
        (images, fetched)
    }
}

/// What is said of a part without a kernel.
pub(super) const NO_KERNEL: &str = "this part has no kernel: there are fewer kernels than parts";

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1)]
    #[case(3)]
    #[case(30)]
    fn the_parts_are_all_of_it_and_no_kernel_is_in_two(#[case] of: usize) {
        let all: Vec<usize> = (0..21).collect();
        let parts = (1..=of).flat_map(|part| Shard { part, of }.take(all.clone()));
        let mut parts: Vec<usize> = parts.collect();
        parts.sort_unstable();
        assert_eq!(parts, all);
    }

    #[rstest]
    #[case("0/3")]
    #[case("4/3")]
    #[case("1")]
    #[case("1/0")]
    #[case("-1/2")]
    #[case("1/99999999")]
    fn odd_parts_are_refused(#[case] text: &str) {
        assert!(text.parse::<Shard>().is_err());
        assert_eq!("2/3".parse(), Ok(Shard { part: 2, of: 3 }));
    }
}
