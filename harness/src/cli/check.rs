//! `check`: asks the running kernel what programs assume, and says in plain words what is broken or
//! other than recorded.
//!
//! What was recorded is taken from the program itself unless a folder is named, so that one file on
//! a host is enough.

mod text;

use super::completions::ContractName;
use super::contract::choose;
use super::here::Here;
use super::{CaseArgs, Exit, Format, told};
use crate::known::{self, Known};
use crate::store::Store;
use anyhow::Result;
use clap::Args;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};
use uffd_results::{
    Answer, Assumption, Bound, Breach, Contract, Dataset, End, Kept, Outcome, Record, Release,
    contracts, is_answer,
};
use uffd_suites::expect::Expected;
use uffd_suites::point::Waiter;
use uffd_suites::probe::Case;

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Only what these programs assume; `uffd-conform contract` lists them.
    #[arg(long, value_name = "NAME", value_parser = ContractName, hide_possible_values = true)]
    contract: Vec<String>,
    /// Ask every case of the suite, not only those that decide an assumption.
    #[arg(long, conflicts_with = "contract")]
    everything: bool,
    /// Also fail on assumptions that every recorded kernel breaks.
    #[arg(long)]
    strict: bool,
    /// Show every case behind a finding.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    cases: CaseArgs,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a check found.
pub(crate) struct Findings {
    record: Record,
    /// Cases that were not asked, since faults of the kernel are refused to this user.
    left_out: usize,
    took: Duration,
    /// What was recorded of this kernel, or of its neighbours.
    nearest: Vec<String>,
    certainty: String,
    surprises: Vec<Surprise>,
    broken: Vec<Broken>,
    open: Vec<Open>,
    /// Contract, assumptions kept, broken, not answered here.
    sums: Vec<(String, [usize; 3])>,
}

/// A case that showed something else than was recorded or, where no record decides, expected.
pub(crate) struct Surprise {
    case: String,
    fact: String,
    here: String,
    /// What should have been seen, and who says so.
    wanted: String,
    source: String,
}

/// An assumption that this kernel breaks.
pub(crate) struct Broken {
    contract: String,
    assumption: Assumption,
    breaches: Vec<Breach>,
    /// Whether every recorded kernel that answered breaks it too.
    everywhere: bool,
}

/// An assumption of which this kernel says nothing.
pub(crate) struct Open {
    contract: String,
    assumption: Assumption,
    /// Why the cases that would have decided it have no answer, each reason once; none if they were left out.
    why: Vec<String>,
}

pub(crate) fn check(args: &CheckArgs, store: Option<&Store>) -> Result<Exit> {
    let contracts = match store {
        Some(store) => crate::contracts::load(store.folder())?,
        None => contracts().to_vec(),
    };
    let chosen = choose(&contracts, &args.contract)?;
    let here = Here::find()?;
    // Before the facts are read: a case is a fork of this process.
    let mut cases = uffd_suites::bump::keeping(|| select(&chosen, &contracts, args));
    let before = cases.len();
    if here.environment.uffd == USER_MODE_ONLY {
        cases.retain(is_of_user_mode);
    }
    let left_out = before - cases.len();
    let started = Instant::now();
    let record = here.ask(&cases, args.cases.limits(), None, &mut |_, _| ())?;
    let took = started.elapsed();
    let known = store.map_or_else(|| Ok(known::built_in()), told::load)?;
    let findings = Findings { left_out, ..find(record, took, &cases, &chosen, &known)? };
    match args.format {
        Format::Human => text::human(&findings, args.verbose)?,
        Format::Jsonl => text::json(&findings)?,
    }
    Ok(findings.exit(args.strict))
}

impl Findings {
    fn exit(&self, strict: bool) -> Exit {
        let counts = |broken: &&Broken| strict || !broken.everywhere;
        if self.failed() > 0 {
            // What was not answered may be what has changed.
            Exit::Different
        } else if !self.surprises.is_empty() || self.broken.iter().any(|b| counts(&b)) {
            Exit::Different
        } else if self.sums.iter().all(|(_, [kept, broken, _])| kept + broken == 0) {
            Exit::Nothing
        } else {
            Exit::Expected
        }
    }

    /// How many cases should have had an answer and have none.
    fn failed(&self) -> usize {
        let failed = |end| matches!(end, End::Broken | End::Flaky | End::NotRun);
        self.record.cases.iter().filter(|(_, outcome)| failed(outcome.end)).count()
    }
}

/// How records name userfaultfds that take faults of user mode alone.
const USER_MODE_ONLY: &str = "user-mode-only";

/// Whether nobody in a case faults in kernel mode, which such a userfaultfd answers with EFAULT.
fn is_of_user_mode(case: &Case) -> bool {
    let axes = case.axes();
    let values = || axes.split(',').filter_map(|axis| axis.split_once('=')).map(|(_, value)| value);
    Waiter::ALL
        .iter()
        .filter(|waiter| waiter.in_kernel())
        .all(|waiter| !values().any(|value| value == waiter.to_string()))
}

/// The cases that decide what the chosen contracts assume.
fn select(chosen: &[&Contract], contracts: &[Contract], args: &CheckArgs) -> Vec<Case> {
    let all: Vec<Assumption> = chosen.iter().flat_map(|c| c.all(contracts)).collect();
    let mut cases = uffd_suites::cases();
    cases.retain(|case| {
        let takes = |id: &str| all.iter().flat_map(|a| &a.needs).any(|need| need.takes(id));
        case.by_default && (args.everything || takes(&case.id()))
    });
    cases
}

fn find(
    record: Record,
    took: Duration,
    cases: &[Case],
    chosen: &[&Contract],
    known: &Known,
) -> Result<Findings> {
    let own = known::dataset(std::slice::from_ref(&record))?;
    let kernel = &record.kernel;
    let release =
        Release::parse(&kernel.release)?.with_version(&kernel.version).on_machine(&kernel.machine);
    // Whether neighbours agree is a question of each case; here only which they are.
    let nearest = known.data.resolve(&release, |_| Some(()));
    let surprises = cases.iter().filter_map(|case| surprise(case, &own, &known.data, &release));
    let (mut broken, mut open) = (Vec::new(), Vec::new());
    let (mut sums, mut told) = (Vec::new(), HashSet::new());
    for contract in chosen {
        let mut sum = [0; 3];
        for assumption in contract.all(&known.contracts) {
            if assumption.not_asked.is_some() {
                continue;
            }
            let bound = assumption.bind(&own);
            match bound.kept(0) {
                Some(Kept::Kept) if decides(&bound, &assumption, known, &nearest) => sum[0] += 1,
                Some(Kept::Kept | Kept::Unsupported) | None => {
                    sum[2] += 1;
                    if told.insert(assumption.id.clone()) {
                        let (contract, why) =
                            (contract.name.clone(), reasons(&assumption, &record));
                        open.push(Open { contract, assumption, why });
                    }
                }
                Some(Kept::Broken) => {
                    sum[1] += 1;
                    if told.insert(assumption.id.clone()) {
                        let breaches = bound.breaches(0);
                        let everywhere = is_broken_everywhere(&assumption, &known.data);
                        let contract = contract.name.clone();
                        let assumption = assumption.clone();
                        broken.push(Broken { contract, assumption, breaches, everywhere });
                    }
                }
            }
        }
        sums.push((contract.name.clone(), sum));
    }
    broken.sort_by_key(|b| (b.everywhere, b.assumption.breaks));
    Ok(Findings {
        surprises: surprises.collect(),
        nearest: nearest.basis.iter().map(|(k, ())| k.label.clone()).collect(),
        certainty: nearest.why.map_or(nearest.certainty.to_string(), |why| why.to_string()),
        record,
        left_out: 0,
        took,
        broken,
        open,
        sums,
    })
}

/// Why the cases that decide an assumption have no answer.
fn reasons(assumption: &Assumption, record: &Record) -> Vec<String> {
    let decides = |id: &str| assumption.needs.iter().any(|need| need.takes(id));
    let silent = record.cases.iter().filter(|(id, o)| !is_answer(o.end) && decides(id));
    let reasons: BTreeSet<String> =
        silent.map(|(_, o)| format!("{}: {}", o.end.word(), o.detail)).collect();
    reasons.into_iter().collect()
}

/// Whether what this kernel answered is enough to call an assumption kept: no case is missing by which a recorded
/// neighbour breaks it.
fn decides<T>(
    here: &Bound<'_, '_>,
    assumption: &Assumption,
    known: &Known,
    nearest: &Answer<'_, T>,
) -> bool {
    let silent: HashSet<String> = here
        .cases()
        .filter(|(case, _)| case.answer(0).is_none())
        .map(|(case, _)| case.id())
        .collect();
    let data = &known.data;
    let beside = nearest.basis.iter().map(|(kernel, _)| *kernel);
    let mut places =
        beside.filter_map(|near| data.kernels().iter().position(|kernel| kernel == near));
    let bound = assumption.bind(data);
    !places.any(|at| bound.breaches(at).iter().any(|breach| silent.contains(&breach.case)))
}

fn is_broken_everywhere(assumption: &Assumption, data: &Dataset) -> bool {
    let bound = assumption.bind(data);
    let kept = (0..data.kernels().len()).filter_map(|kernel| bound.kept(kernel));
    // Who lacks the feature says nothing of it.
    let mut seen = kept.filter(|kept| *kept != Kept::Unsupported).peekable();
    seen.peek().is_some() && seen.all(|kept| kept == Kept::Broken)
}

/// The first fact of a case that is other than it should be.
fn surprise(case: &Case, own: &Dataset, data: &Dataset, release: &Release) -> Option<Surprise> {
    let id = case.id();
    let here = own.case(&id)?.answer(0)?;
    let recorded: Answer<'_, &Outcome> = data.outcome(&id, release);
    let told = |fact: &str, wanted: String, source: String| Surprise {
        here: here.value(fact).to_owned(),
        case: id.clone(),
        fact: fact.to_owned(),
        wanted,
        source,
    };
    if let Some(outcome) = recorded.value {
        let version = own.kernels().first()?.upstream;
        // What the kernel's configuration decides may be otherwise here.
        let is_open = |e: &Expected| {
            e.value.contains('|') && here.facts.get(e.fact).is_some_and(|seen| e.matches(seen))
        };
        let open: Vec<&str> =
            case.expect(version).iter().filter(|e| is_open(e)).map(|e| e.fact).collect();
        let differ = here.first_difference(outcome)?;
        let names = here.facts.iter().chain(outcome.facts.iter()).map(|fact| fact.name.as_ref());
        let mut other = names.filter(|name| here.facts.get(name) != outcome.facts.get(name));
        let fact =
            if here.end == outcome.end { other.find(|name| !open.contains(name))? } else { differ };
        let rests: Vec<String> = recorded.basis.iter().map(|(k, _)| k.label.clone()).collect();
        return Some(told(
            fact,
            outcome.value(fact).to_owned(),
            format!("recorded on {}", rests.join(" and ")),
        ));
    }
    // No record decides: the documented rules do.
    if here.end == End::Unsupported {
        return None;
    }
    if here.end != End::Done {
        return Some(told("end", End::Done.word().to_owned(), "every case should end".into()));
    }
    let version = own.kernels().first()?.upstream;
    let differs = |e: &Expected| !here.facts.get(e.fact).is_some_and(|seen| e.matches(seen));
    let expected = case.expect(version).into_iter().find(differs)?;
    Some(told(expected.fact, expected.value.into_owned(), expected.source.to_owned()))
}

#[cfg(test)]
mod tests;
