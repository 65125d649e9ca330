//! `contract`: what a program assumes of the kernel, and which kernels keep it.

use super::completions::ContractName;
use super::which::{Found, Which};
use super::{Exit, Format, out};
use crate::contracts::all_of;
use crate::known::{self, Known};
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use uffd_results::{Assumption, Bound, Certainty, Contract, Dataset, Kept, Support};

/// Options of `contract`.
#[derive(Debug, Args)]
pub(crate) struct ContractArgs {
    /// Contracts by name; without any, all of them in a line each.
    #[arg(value_parser = ContractName, hide_possible_values = true)]
    name: Vec<String>,
    /// Only for these kernels: a series (6.12), a version, or what `uname -r` prints.
    #[arg(short, long, value_name = "KERNEL")]
    kernel: Vec<Which>,
    /// Only assumptions that are broken somewhere.
    #[arg(long)]
    broken: bool,
    /// Also where the program relies on each, and the cases that break it.
    #[arg(short, long)]
    verbose: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn contract(args: &ContractArgs, store: &Store) -> Result<Exit> {
    let known = known::load(store)?;
    if known.contracts.is_empty() {
        bail!("there are no contracts below {}/contracts", store.folder().display());
    }
    let chosen = choose(&known.contracts, &args.name)?;
    let mut out = out::stdout();
    let mut broken = false;
    for contract in &chosen {
        let all = all_of(contract, &known.contracts);
        let bound: Vec<Bound<'_, '_>> = all.iter().map(|a| a.bind(&known.data)).collect();
        let view = View { args, known: &known };
        broken |= match args.format {
            Format::Jsonl => view.jsonl(&mut out, contract, &bound)?,
            Format::Human if args.name.is_empty() => view.line(&mut out, contract, &bound)?,
            Format::Human => view.human(&mut out, contract, &bound)?,
        };
    }
    if args.name.is_empty() && args.format == Format::Human {
        writeln!(out, "\n`uffd-conform contract NAME` shows one; -k KERNEL asks for one kernel")?;
    }
    // Without a kernel it is a report over all of them, which always has something broken.
    Ok(if broken && !args.kernel.is_empty() { Exit::Different } else { Exit::Expected })
}

/// The contracts of these names; all of them without names.
pub(crate) fn choose<'a>(all: &'a [Contract], names: &[String]) -> Result<Vec<&'a Contract>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|contract| contract.name == *name);
        let names: Vec<&str> = all.iter().map(|contract| contract.name.as_str()).collect();
        found.ok_or_else(|| {
            anyhow::anyhow!("there is no contract {name:?}; there are: {}", names.join(" "))
        })
    };
    names.iter().map(find).collect()
}

struct View<'a> {
    args: &'a ContractArgs,
    known: &'a Known,
}

impl View<'_> {
    /// What the chosen kernels do to an assumption.
    fn verdicts(&self, bound: &Bound<'_, '_>) -> Result<Vec<Found<'_, Kept>>> {
        let data = &self.known.data;
        let mut found = Vec::new();
        for which in &self.args.kernel {
            found.extend(which.look_up(data, |kernel| bound.kept(kernel))?);
        }
        Ok(found)
    }

    fn is_broken(&self, bound: &Bound<'_, '_>) -> Result<bool> {
        let broken = |kept: Option<Kept>| kept == Some(Kept::Broken);
        if self.args.kernel.is_empty() {
            return Ok((0..self.known.data.kernels().len()).any(|i| broken(bound.kept(i))));
        }
        Ok(self.verdicts(bound)?.iter().any(|found| broken(found.answer.value)))
    }

    fn line(
        &self,
        out: &mut dyn Write,
        contract: &Contract,
        all: &[Bound<'_, '_>],
    ) -> Result<bool> {
        let (mut counts, mut broken) = (BTreeMap::<&str, usize>::new(), false);
        for bound in all {
            let is_broken = self.is_broken(bound)?;
            broken |= is_broken;
            let word = match bound.assumption.not_asked {
                Some(_) => "not asked",
                None if is_broken => "broken somewhere",
                None => "kept",
            };
            *counts.entry(word).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
        writeln!(out, "{:<28} {}", out::bold(&contract.name), counts.join(", "))?;
        Ok(broken)
    }

    fn human(
        &self,
        out: &mut dyn Write,
        contract: &Contract,
        all: &[Bound<'_, '_>],
    ) -> Result<bool> {
        let Contract { title, about, snapshot, .. } = contract;
        writeln!(
            out,
            "{}\n{about}\n{}",
            out::bold(title),
            out::dim(format_args!("read: {snapshot}"))
        )?;
        let mut any = false;
        for bound in all {
            let broken = self.is_broken(bound)?;
            any |= broken;
            if broken || !self.args.broken {
                self.assumption(out, bound, broken)?;
            }
        }
        writeln!(out)?;
        Ok(any)
    }

    fn assumption(&self, out: &mut dyn Write, bound: &Bound<'_, '_>, broken: bool) -> Result<()> {
        let Assumption { id, says, breaks, effect, r#where, not_asked, .. } = bound.assumption;
        let data = &self.known.data;
        writeln!(out, "\n  {} {says}", out::bold(id))?;
        if let Some(why) = not_asked {
            return Ok(writeln!(out, "    {}", out::dim(format_args!("not asked: {why}")))?);
        }
        if self.args.kernel.is_empty() {
            writeln!(out, "    {}", over_all(data, bound))?;
        }
        for Found { label, answer } in self.verdicts(bound)? {
            let word = answer.value.map_or("unknown", Kept::word);
            let why = answer.why.map(|why| format!(": {why}")).unwrap_or_default();
            let rests: Vec<String> =
                answer.basis.iter().map(|(k, kept)| format!("{} {kept}", k.upstream)).collect();
            let sure = match answer.certainty {
                Certainty::Exact => String::new(),
                certainty => format!(" ({certainty}{why}; {})", rests.join(", ")),
            };
            writeln!(out, "    {label}: {}{sure}", out::kept(answer.value, word))?;
        }
        if broken {
            writeln!(out, "    if broken: {breaks}. {effect}")?;
        }
        if self.args.verbose {
            writeln!(out, "    {}", out::dim(format_args!("relied on in {}", r#where.join("; "))))?;
            for kernel in self.shown_kernels()? {
                let breaches = bound.breaches(kernel);
                let name = data.kernels()[kernel].upstream;
                for b in breaches.iter().take(3) {
                    writeln!(
                        out,
                        "      {name} {}: {} is {}, not {}",
                        b.case, b.fact, b.seen, b.allowed
                    )?;
                }
                if breaches.len() > 3 {
                    writeln!(out, "      {name} and {} cases more", breaches.len() - 3)?;
                }
            }
        }
        Ok(())
    }

    /// The kernels whose breaches are shown: those chosen, else the newest.
    fn shown_kernels(&self) -> Result<Vec<usize>> {
        let data = &self.known.data;
        if self.args.kernel.is_empty() {
            return Ok(data.kernels().len().checked_sub(1).into_iter().collect());
        }
        let mut places = Vec::new();
        for which in &self.args.kernel {
            places.extend(which.places(data)?);
        }
        Ok(places)
    }

    fn jsonl(
        &self,
        out: &mut dyn Write,
        contract: &Contract,
        all: &[Bound<'_, '_>],
    ) -> Result<bool> {
        let data = &self.known.data;
        let mut any = false;
        for bound in all {
            let broken = self.is_broken(bound)?;
            any |= broken;
            if self.args.broken && !broken {
                continue;
            }
            let verdicts: Vec<_> = if self.args.kernel.is_empty() {
                let kernels = data.kernels().iter().enumerate();
                kernels
                    .map(|(i, k)| json!({"kernel": k.upstream.to_string(), "release": k.release, "verdict": bound.kept(i).map_or("unknown", Kept::word), "certainty": "exact"}))
                    .collect()
            } else {
                let found = self.verdicts(bound)?;
                found
                    .iter()
                    .map(|Found { label, answer }| json!({"kernel": label, "verdict": answer.value.map_or("unknown", Kept::word), "certainty": answer.certainty.word(), "why": answer.why.map(|why| why.to_string()), "rests_on": answer.basis.iter().map(|(k, _)| &k.release).collect::<Vec<_>>()}))
                    .collect()
            };
            let line = json!({"contract": contract.name, "assumption": bound.assumption, "cases": bound.cases().count(), "verdicts": verdicts});
            writeln!(out, "{line}")?;
        }
        Ok(any)
    }
}

/// An assumption over all recorded kernels, in a line.
pub(crate) fn over_all(data: &Dataset, bound: &Bound<'_, '_>) -> String {
    let kernels = data.kernels();
    let support = Support::of((0..kernels.len()).filter_map(|i| Some((i, bound.kept(i)?))));
    let words: Vec<String> = [Kept::Broken, Kept::Kept, Kept::Unsupported]
        .into_iter()
        .filter(|kept| support.runs().iter().any(|run| run.value == *kept))
        .map(|kept| {
            format!("{}: {}", out::kept(Some(kept), kept.word()), support.extent(kept).say(kernels))
        })
        .collect();
    if words.is_empty() { "answered by no kernel".into() } else { words.join("; ") }
}
