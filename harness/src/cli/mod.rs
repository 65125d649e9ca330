//! The command line: what can be asked for, and the codes that it ends with.

mod ask;
mod bench;
mod check;
mod choose;
mod completions;
mod contract;
mod diff;
mod exec;
mod explore;
mod export;
mod here;
mod kernels;
mod lint;
mod list;
mod matrix;
mod merge;
mod out;
mod publish;
mod query;
mod record;
mod report;
mod run;
mod show;
mod sweep;
mod told;
mod vm;
pub(crate) mod which;
mod workers;

use crate::interrupt;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What the process ends with; scripts may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is as expected.
    Expected = 0,
    /// A kernel answered otherwise than expected, or a case hung, died or broke.
    Different = 1,
    /// Bad input, or something that this machine lacks; the message says what to do.
    Unusable = 2,
    /// Nothing was answered: every chosen case lacked a precondition, permission or feature.
    Nothing = 3,
}

/// What the exit code of a run means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExitCodes {
    /// As `--help` says.
    #[default]
    Own,
    /// Those of the kernel's tools/testing/selftests: 0 pass, 1 fail, 4 skip.
    Kselftest,
}

impl ExitCodes {
    /// The code of an end. In kselftest 2 and 3 are expected failures and unexpected passes.
    const fn of(self, exit: Exit) -> u8 {
        match (self, exit) {
            (Self::Own, exit) => exit as u8,
            (Self::Kselftest, Exit::Expected) => 0,
            (Self::Kselftest, Exit::Different | Exit::Unusable) => 1,
            (Self::Kselftest, Exit::Nothing) => 4,
        }
    }

    /// What a command line asks for that is wrong elsewhere.
    fn typed(mut words: impl Iterator<Item = OsString>) -> Self {
        let mut codes = Self::Own;
        while let Some(word) = words.next().filter(|word| word != "--") {
            let Some(option) = word.to_str().and_then(|word| word.strip_prefix("--exit-codes"))
            else {
                continue;
            };
            let value = match option.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if option.is_empty() => words.next().and_then(|word| word.into_string().ok()),
                None => None,
            };
            if let Some(value) = value.and_then(|value| Self::from_str(&value, false).ok()) {
                codes = value;
            }
        }
        codes
    }
}

/// Asks Linux kernels what userfaultfd does when memory mappings change.
#[derive(Debug, Parser)]
#[command(
    name = "uffd-conform",
    version,
    after_help = "Exit codes: 0 as expected · 1 a kernel differs, or a case hung, died or broke · \
                  2 bad input or something missing, with what to do · 3 nothing was answered"
)]
struct Cli {
    /// Folder with the records (default: `results` of the checkout or the current folder).
    #[arg(long, global = true, value_name = "DIR", env = "UFFD_CONFORM_RESULTS", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    results: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the cases.
    List(list::ListArgs),
    /// Run cases on this kernel, or on others in VMs, and show what they saw.
    Run(run::RunArgs),
    /// Run a static program of your own on other kernels, in VMs.
    Exec(exec::ExecArgs),
    /// Look for what two kernels do differently, by random sequences of operations.
    Explore(explore::ExploreArgs),
    /// Show which kernels can be had, which are cached, and how large they are.
    Kernels(kernels::KernelsArgs),
    /// Run the suite on many kernels in VMs and write their records.
    Sweep(sweep::SweepArgs),
    /// Write what is made from the records: MATRIX.md, the README's table, the library's data.
    Matrix(matrix::MatrixArgs),
    /// Write the compatibility site: static pages made from the records.
    Publish(publish::PublishArgs),
    /// Show one case: statement, recipe, expectation with source, and what each kernel did.
    Show(show::ShowArgs),
    /// Say what a change, an operation and a waiter, named by their axes, lead to on a kernel.
    Ask(ask::AskArgs),
    /// Find recorded statements by an expression.
    Query(query::QueryArgs),
    /// Ask this kernel what programs assume, and say what is broken or other than recorded.
    Check(check::CheckArgs),
    /// Show what a program assumes of the kernel, and which kernels keep it.
    Contract(contract::ContractArgs),
    /// Write what is known as JSON, CSV, a C header or a Rust table.
    Export(export::ExportArgs),
    /// Show in which cases two kernels, record files, folders or backings differ, and why.
    Diff(diff::DiffArgs),
    /// Take in records that somebody else made.
    Record(record::RecordArgs),
    /// Put the records of several results folders together.
    Merge(merge::MergeArgs),
    /// Hold records, contracts and notes against each other: is everything odd explained?
    Lint(lint::LintArgs),
    /// Measure what operations cost, on this kernel or on others in VMs, beside their limits.
    Bench(bench::BenchArgs),
    /// Write a shell's completions of this command.
    Completions(completions::CompletionsArgs),
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Human,
    /// A JSON object a line.
    Jsonl,
}

/// Options of everything that runs cases.
#[derive(Clone, Debug, Args)]
struct CaseArgs {
    /// Also ask the points of the grid that are left out by default.
    #[arg(long)]
    full: bool,
    /// Ask each case N times; answers that disagree are `flaky`.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Bound on a case, in seconds: not evidence, only a way out of a hang.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: u64,
}

impl CaseArgs {
    const fn limits(&self) -> crate::runner::Limits {
        crate::runner::Limits { deadline: Duration::from_secs(self.deadline), repeat: self.repeat }
    }
}

/// Runs this process: the command line, or in a VM of ours the agent.
pub fn main() -> ExitCode {
    if crate::vm::guest::is_guest() {
        crate::vm::guest::main(vm::agent);
    }
    interrupt::hear_of_children();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if out::usage(&error) => {
            return ExitCode::from(ExitCodes::typed(std::env::args_os()).of(Exit::Unusable));
        }
        Err(_) => return ExitCode::SUCCESS,
    };
    let codes = match &cli.command {
        Command::Run(args) => args.exit_codes,
        _ => ExitCodes::Own,
    };
    let exit = dispatch(cli).unwrap_or_else(|error| {
        out::error(&error);
        Exit::Unusable
    });
    // What was told to stop has stopped; now it ends as if nobody had listened.
    if let Some(signal) = interrupt::caught() {
        interrupt::die(signal);
    }
    ExitCode::from(codes.of(exit))
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    // Only here, since clap would blame an option that nobody gave.
    if cli.results.as_deref().is_some_and(|folder| folder.as_os_str().is_empty()) {
        anyhow::bail!("UFFD_CONFORM_RESULTS or --results is empty: name a folder, or give neither");
    }
    let named = cli.results.as_deref().map(crate::store::Store::new);
    let store = named.clone().unwrap_or_else(|| crate::store::Store::new(&results_folder()));
    if let Some(folder) = cli.results.as_deref().filter(|_| looks_up(&cli.command)) {
        must_be_there(folder)?;
    }
    match cli.command {
        Command::List(args) => list::list(&args),
        Command::Run(args) => run::run(&args),
        Command::Exec(args) => exec::exec(&args),
        Command::Explore(args) => explore::explore(&args, &store),
        Command::Kernels(args) => kernels::kernels(&args),
        Command::Sweep(args) => sweep::sweep(&args, &store),
        Command::Matrix(args) => matrix::matrix(&args, &store),
        Command::Publish(args) => publish::publish(&args, &store),
        Command::Show(args) => show::show(&args, &store),
        Command::Check(args) => check::check(&args, named.as_ref()),
        Command::Contract(args) => contract::contract(&args, &store),
        Command::Export(args) => export::export(&args, &store),
        Command::Diff(args) => diff::diff(&args, &store),
        Command::Record(args) => record::record(&args, &store),
        Command::Merge(args) => merge::merge(&args, &store),
        Command::Lint(args) => lint::lint(&args, &store),
        Command::Ask(args) => ask::ask(&args, &store),
        Command::Query(args) => query::query(&args, &store),
        Command::Bench(args) => bench::bench(&args, &store),
        Command::Completions(args) => completions::completions(&args),
    }
}

/// Whether a command answers from records, or from what is built in where there are none.
const fn looks_up(command: &Command) -> bool {
    matches!(
        command,
        Command::Ask(_)
            | Command::Check(_)
            | Command::Contract(_)
            | Command::Diff(_)
            | Command::Export(_)
            | Command::Query(_)
            | Command::Show(_)
    )
}

/// A folder that was named must be there, and who named one without records hears what answers in its place.
fn must_be_there(folder: &Path) -> anyhow::Result<()> {
    if !folder.is_dir() {
        anyhow::bail!(
            "there is no folder {}: name one with records (--results, UFFD_CONFORM_RESULTS), or none for what is built in",
            folder.display()
        );
    }
    if !folder.join("records").is_dir() {
        let folder = folder.display();
        out::note(&format!("no records below {folder}: what answers is what is built in"));
    }
    Ok(())
}

/// `results` of the checkout that the current folder lies in, else of the current folder.
fn results_folder() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let is_ours = |folder: &&Path| folder.join("results/records").is_dir();
    here.ancestors().find(is_ours).unwrap_or(&here).join("results")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn selftests_tell_failures_from_skips() {
        let all = [Exit::Expected, Exit::Different, Exit::Unusable, Exit::Nothing];
        assert_eq!(all.map(|exit| ExitCodes::Own.of(exit)), [0, 1, 2, 3]);
        assert_eq!(all.map(|exit| ExitCodes::Kselftest.of(exit)), [0, 1, 1, 4]);
    }

    #[rstest]
    #[case(&["run", "--jobs", "0"], 2)]
    #[case(&["run", "--exit-codes", "kselftest", "--jobs", "0"], 1)]
    #[case(&["run", "--jobs", "0", "--exit-codes=kselftest"], 1)]
    #[case(&["run", "--exit-codes=kselftest", "--exit-codes=own"], 2)]
    #[case(&["run", "--exit-codes", "teapot"], 2)]
    #[case(&["run", "--exit-codes"], 2)]
    #[case(&["exec", "--", "./run", "--exit-codes=kselftest"], 2)]
    fn a_wrong_command_line_ends_with_the_code_that_it_asks_for(
        #[case] words: &[&str],
        #[case] code: u8,
    ) {
        let codes = ExitCodes::typed(words.iter().map(OsString::from));
        assert_eq!(codes.of(Exit::Unusable), code);
    }
}
