//! `completions`: what a shell needs to complete this command, and words for values that it offers.

use super::{Cli, Exit, out};
use anyhow::Result;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Command, CommandFactory, Error, ValueEnum};
use clap_complete::{Shell, generate};
use std::ffi::OsStr;
use std::io::Write;

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Kind,
}

/// Shells that can be helped.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// source <(uffd-conform completions bash)
    Bash,
    /// uffd-conform completions zsh > a folder of fpath, as `_uffd-conform`
    Zsh,
    /// uffd-conform completions fish | source
    Fish,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "uffd-conform", &mut script);
    out::stdout().write_all(&script)?;
    Ok(Exit::Expected)
}

/// The name of a contract. Those that are built in are offered; a folder may hold others.
#[derive(Clone)]
pub(crate) struct ContractName;

impl TypedValueParser for ContractName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let contracts = uffd_results::contracts().iter();
        Some(Box::new(
            contracts.map(|c| PossibleValue::new(c.name.as_str()).help(c.title.as_str())),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Shell::Bash)]
    #[case(Shell::Zsh)]
    #[case(Shell::Fish)]
    fn closed_sets_are_offered(#[case] shell: Shell) {
        let mut script = Vec::new();
        generate(shell, &mut Cli::command(), "uffd-conform", &mut script);
        let script = String::from_utf8(script).expect("text");
        let words = ["hugetlb-private", "vcpu-fetch", "kvm", "mmap-over", "unregister"];
        let contracts = uffd_results::contracts().iter().map(|contract| contract.name.as_str());
        for word in words.into_iter().chain(contracts) {
            assert!(script.contains(word), "{shell} is not offered {word}");
        }
    }

    #[test]
    fn the_options_fit_together() {
        Cli::command().debug_assert();
    }
}
