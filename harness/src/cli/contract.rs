//! `contract`: what a program assumes of the kernel, and which kernels keep it.

use super::completions::ContractName;
use super::which::{Found, Which, changes};
use super::{Exit, Format, out, told};
use crate::known::{self, Known};
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;
use uffd_results::{Assumption, Bound, Certainty, Contract, Dataset, Kept, KernelVersion, Support};

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
    let known = told::load(store)?;
    if known.contracts.is_empty() {
        bail!("there are no contracts below {}/contracts", store.folder().display());
    }
    let chosen = choose(&known.contracts, &args.name)?;
    let mut out = out::stdout();
    let (mut broken, mut known_of_any) = (false, args.kernel.is_empty());
    let cases = if args.kernel.is_empty() { HashMap::new() } else { known::cases() };
    for contract in &chosen {
        let all = contract.all(&known.contracts);
        let view = View { args, known: &known, cases: &cases };
        let bound = all.iter().map(|assumption| {
            let bound = assumption.bind(&known.data);
            view.standing(&bound).map(|standing| (bound, standing))
        });
        let bound = bound.collect::<Result<Vec<Stood<'_, '_>>>>()?;
        match args.format {
            Format::Jsonl => view.jsonl(&mut out, contract, &bound)?,
            Format::Human if args.name.is_empty() => view.line(&mut out, contract, &bound)?,
            Format::Human => view.human(&mut out, contract, &bound)?,
        }
        for (_, standing) in &bound {
            broken |= *standing == Standing::Broken;
            known_of_any |= !matches!(standing, Standing::NotAsked | Standing::Unknown);
        }
    }
    if args.name.is_empty() && args.format == Format::Human {
        let on_some = if args.kernel.is_empty() { "broken: by some recorded kernel; " } else { "" };
        writeln!(
            out,
            "\n{on_some}`uffd-conform contract NAME` shows one; -k KERNEL asks for one kernel"
        )?;
    }
    // Without a kernel it is a report over all of them, which always has something broken.
    Ok(match (broken && !args.kernel.is_empty(), known_of_any) {
        (true, _) => Exit::Different,
        (false, true) => Exit::Expected,
        (false, false) => Exit::Nothing,
    })
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
    /// The cases, where kernels are named.
    cases: &'a HashMap<String, uffd_suites::probe::Case>,
}

impl View<'_> {
    /// What the chosen kernels do to an assumption.
    fn verdicts(&self, bound: &Bound<'_, '_>) -> Result<Vec<Found<'_, Kept>>> {
        let data = &self.known.data;
        let mut found = Vec::new();
        let otherwise =
            |kernel: usize, version| bound.kept(kernel) != self.predicted(bound, kernel, version);
        for which in &self.args.kernel {
            let all = which.look_up(data, |kernel| bound.kept(kernel))?;
            found.extend(
                all.into_iter().map(|one| one.unless_expected_otherwise(which, data, otherwise)),
            );
        }
        Ok(found)
    }

    /// What a recorded kernel would do to an assumption if it had what the suite expects of another version.
    fn predicted(
        &self,
        bound: &Bound<'_, '_>,
        kernel: usize,
        version: KernelVersion,
    ) -> Option<Kept> {
        let on = &self.known.data.kernels()[kernel];
        bound.kept_if(kernel, |asked| {
            let of = self.cases.get(&asked.id()).zip(asked.answer(kernel));
            let changed = of.map(|(case, shown)| changes(case, shown, on, version));
            let changed = changed.into_iter().flatten().map(|change| change.expected);
            changed.map(|expected| (expected.fact, expected.value)).collect()
        })
    }

    /// What the chosen kernels, or all, do to an assumption; none where nothing is known.
    fn seen(&self, bound: &Bound<'_, '_>) -> Result<Vec<Option<Kept>>> {
        if self.args.kernel.is_empty() {
            return Ok((0..self.known.data.kernels().len()).map(|i| bound.kept(i)).collect());
        }
        Ok(self.verdicts(bound)?.into_iter().map(|found| found.answer.value).collect())
    }

    fn standing(&self, bound: &Bound<'_, '_>) -> Result<Standing> {
        Ok(match bound.assumption.not_asked {
            Some(_) => Standing::NotAsked,
            None => Standing::of(&self.seen(bound)?),
        })
    }

    fn line(&self, out: &mut dyn Write, contract: &Contract, all: &[Stood<'_, '_>]) -> Result<()> {
        let counts = counts(all);
        if self.args.broken && !counts.contains_key(&Standing::Broken) {
            return Ok(());
        }
        let counts: Vec<String> = counts.iter().map(|(how, n)| format!("{n} {how}")).collect();
        Ok(writeln!(out, "{:<28} {}", out::bold(&contract.name), counts.join(", "))?)
    }

    fn human(&self, out: &mut dyn Write, contract: &Contract, all: &[Stood<'_, '_>]) -> Result<()> {
        let Contract { title, about, snapshot, .. } = contract;
        writeln!(
            out,
            "{}\n{about}\n{}",
            out::bold(title),
            out::dim(format_args!("read: {snapshot}"))
        )?;
        for (bound, standing) in all {
            let broken = *standing == Standing::Broken;
            if broken || !self.args.broken {
                self.assumption(out, bound, broken)?;
            }
        }
        if self.args.broken {
            let rest = counts(all).into_iter().filter(|(how, _)| *how != Standing::Broken);
            let rest: Vec<String> = rest.map(|(how, n)| format!("{n} {how}")).collect();
            writeln!(out, "\n  {}", out::dim(format_args!("not shown: {}", rest.join(", "))))?;
        }
        Ok(writeln!(out)?)
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
                answer.basis.iter().map(|(k, kept)| format!("{} {kept}", k.label)).collect();
            let rests = match answer.value {
                None if rests.is_empty() => {
                    format!("; of recorded kernels {}", over_all(data, bound))
                }
                _ => format!("; {}", rests.join(", ")),
            };
            let sure = match answer.certainty {
                Certainty::Exact => String::new(),
                Certainty::Unknown => format!("{why}{rests}"),
                certainty => format!(" ({certainty}{why}{rests})"),
            };
            writeln!(out, "    {label}: {}{sure}", out::kept(answer.value, word))?;
        }
        if broken {
            writeln!(out, "    if broken: {breaks}. {effect}")?;
        }
        if self.args.verbose {
            writeln!(out, "    {}", out::dim(format_args!("relied on in {}", r#where.join("; "))))?;
            for kernel in self.shown_kernels(bound)? {
                let breaches = bound.breaches(kernel);
                let name = &data.kernels()[kernel].label;
                for b in breaches.iter().take(3) {
                    writeln!(
                        out,
                        "      {name} {}: {} is {}, not {}",
                        b.case, b.fact, b.seen, b.allowed
                    )?;
                }
                if breaches.len() > 3 {
                    let more = crate::report::count(breaches.len() - 3, "more case");
                    writeln!(out, "      {name} and {more}")?;
                }
            }
        }
        Ok(())
    }

    /// The kernels whose breaches are shown: those chosen, else the newest that has some.
    fn shown_kernels(&self, bound: &Bound<'_, '_>) -> Result<Vec<usize>> {
        let data = &self.known.data;
        if self.args.kernel.is_empty() {
            let breaks = |place: &usize| bound.kept(*place) == Some(Kept::Broken);
            return Ok((0..data.kernels().len()).rev().find(breaks).into_iter().collect());
        }
        let mut places = Vec::new();
        for which in &self.args.kernel {
            places.extend(which.places(data)?);
        }
        Ok(places)
    }

    fn jsonl(&self, out: &mut dyn Write, contract: &Contract, all: &[Stood<'_, '_>]) -> Result<()> {
        let data = &self.known.data;
        for (bound, standing) in all {
            if self.args.broken && *standing != Standing::Broken {
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
        Ok(())
    }
}

/// An assumption, and how it stands.
type Stood<'d, 'a> = (Bound<'d, 'a>, Standing);

/// How many assumptions stand in which way, the worst first.
fn counts(all: &[Stood<'_, '_>]) -> BTreeMap<Standing, usize> {
    let mut counts = BTreeMap::new();
    for (_, standing) in all {
        *counts.entry(*standing).or_default() += 1;
    }
    counts
}

/// How an assumption stands on all kernels that are looked at, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// One of them breaks it.
    Broken,
    /// Nothing is known.
    Unknown,
    /// Those that answered keep it; of others nothing is known.
    KeptWhereKnown,
    /// They lack what it is about.
    Unsupported,
    /// All that have what it is about keep it.
    Kept,
    NotAsked,
}

impl Standing {
    fn of(seen: &[Option<Kept>]) -> Self {
        let any = |kept: Option<Kept>| seen.contains(&kept);
        if any(Some(Kept::Broken)) {
            Self::Broken
        } else if seen.iter().all(Option::is_none) {
            Self::Unknown
        } else if any(None) {
            Self::KeptWhereKnown
        } else if any(Some(Kept::Kept)) {
            Self::Kept
        } else {
            Self::Unsupported
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken",
            Self::Unknown => "unknown",
            Self::KeptWhereKnown => "kept where known",
            Self::Unsupported => "unsupported",
            Self::Kept => "kept",
            Self::NotAsked => "not asked",
        })
    }
}

/// An assumption over all recorded kernels, in a line.
fn over_all(data: &Dataset, bound: &Bound<'_, '_>) -> String {
    let kernels = data.kernels();
    // A kernel that did not answer is no part of what the others said.
    let support = Support::of((0..kernels.len()).map(|i| (i, bound.kept(i))));
    let words: Vec<String> = [Some(Kept::Broken), Some(Kept::Kept), Some(Kept::Unsupported), None]
        .into_iter()
        .filter(|kept| support.runs().iter().any(|run| run.value == *kept))
        .map(|kept| {
            let word = out::kept(kept, kept.map_or("unknown", Kept::word));
            format!("{word}: {}", support.extent(kept).say(kernels))
        })
        .collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[Some(Kept::Kept), Some(Kept::Broken), None], Standing::Broken)]
    #[case(&[None, None], Standing::Unknown)]
    #[case(&[], Standing::Unknown)]
    #[case(&[Some(Kept::Kept), None], Standing::KeptWhereKnown)]
    #[case(&[Some(Kept::Kept), Some(Kept::Unsupported)], Standing::Kept)]
    #[case(&[Some(Kept::Unsupported)], Standing::Unsupported)]
    fn what_nobody_has_seen_is_not_kept(#[case] seen: &[Option<Kept>], #[case] stands: Standing) {
        assert_eq!(Standing::of(seen), stands);
    }

    /// The result field of EAGAIN is written from 6.15 on, and in 6.12 from 6.12.29 on: 6.12.43 and 6.16.3 agree on
    /// -11. Whoever needs that can't be told of 6.14; whoever takes either can.
    #[rstest]
    #[case("6.14.5", "-11", None)]
    #[case("6.14.5", "-11|untouched", Some(Kept::Kept))]
    #[case("6.14.5", "untouched", None)]
    #[case("6.14.5", "*", Some(Kept::Kept))]
    #[case("6.14.5", "0", Some(Kept::Broken))]
    #[case("6.16.5", "-11", Some(Kept::Kept))]
    fn only_what_is_needed_takes_a_verdict_back(
        #[case] kernel: &str,
        #[case] field: &str,
        #[case] expected: Option<Kept>,
    ) {
        let known = known::built_in();
        let assumption = Assumption {
            id: "test.a".to_owned(),
            says: String::new(),
            r#where: Vec::new(),
            breaks: uffd_results::Breaks::Hang,
            effect: String::new(),
            needs: vec![uffd_results::Need {
                cases: vec!["copy/event-unread[backing=anon]".to_owned()],
                except: Vec::new(),
                facts: [("field".to_owned(), field.to_owned())].into(),
            }],
            not_asked: None,
        };
        let args = ContractArgs {
            name: Vec::new(),
            kernel: vec![kernel.parse().expect("a kernel")],
            broken: false,
            verbose: false,
            format: Format::Human,
        };
        let cases = known::cases();
        let view = View { args: &args, known: &known, cases: &cases };
        let found = view.verdicts(&assumption.bind(&known.data)).expect("verdicts");
        assert_eq!(found.iter().map(|one| one.answer.value).collect::<Vec<_>>(), [expected]);
    }
}
