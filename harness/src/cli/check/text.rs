//! What `check` says.

use super::super::out;
use super::{Broken, Findings, Open, Surprise};
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use uffd_results::{Breach, End, is_answer};

/// Cases shown below a finding unless asked for more.
const FEW: usize = 2;

/// The version of the object's format; `results/schema/check-1.json` describes it.
const SCHEMA: u32 = 1;

/// For people.
pub(super) fn human(findings: &Findings, verbose: bool) -> Result<()> {
    let mut out = out::stdout();
    let Findings { record, took, nearest, certainty, surprises, broken, open, sums, .. } = findings;
    let few = if verbose { usize::MAX } else { FEW };
    let nearest = if nearest.is_empty() { "none".into() } else { nearest.join(" and ") };
    writeln!(out, "{} {}", out::bold(&record.kernel.release), out::dim(&record.kernel.version))?;
    writeln!(out, "recorded beside it: {nearest} ({certainty})")?;
    let answered = record.cases.iter().filter(|(_, o)| is_answer(o.end)).count();
    writeln!(
        out,
        "{answered} of {} cases answered in {:.1} s",
        record.cases.len() + findings.left_out,
        took.as_secs_f64()
    )?;
    for ((end, why), n) in skipped(findings) {
        writeln!(out, "  {}", out::dim(format_args!("{n} {end}: {why}")))?;
    }
    let (everywhere, here): (Vec<&Broken>, Vec<&Broken>) =
        broken.iter().partition(|b| b.everywhere);
    if !here.is_empty() {
        writeln!(out, "\n{}", out::bold("Assumptions that this kernel breaks and others keep"))?;
        for one in here {
            self::broken(&mut out, one, few)?;
        }
    }
    if !surprises.is_empty() {
        writeln!(out, "\n{}", out::bold("Answers other than recorded"))?;
        for Surprise { case, fact, here, wanted, source } in
            surprises.iter().take(if verbose { usize::MAX } else { 20 })
        {
            writeln!(out, "  {case}\n    {fact} is {here}, not {wanted} ({source})")?;
        }
        if surprises.len() > 20 && !verbose {
            writeln!(out, "  and {} more: -v shows them", surprises.len() - 20)?;
        }
    }
    if !everywhere.is_empty() {
        let n = everywhere.len();
        writeln!(
            out,
            "\n{}",
            out::bold(format_args!("Broken here as on every recorded kernel: {n}"))
        )?;
        for one in everywhere {
            if verbose {
                self::broken(&mut out, one, few)?;
            } else {
                writeln!(out, "  {} {}", one.assumption.id, out::dim(&one.assumption.says))?;
            }
        }
    }
    if !open.is_empty() {
        let n = open.len();
        writeln!(out, "\n{}", out::bold(format_args!("Not answered here: {n}")))?;
        for Open { assumption, why, .. } in open {
            let why = match (&why[..], verbose) {
                ([], _) => "not asked, see above".to_owned(),
                ([first, _, ..], false) => format!("{first}, and others"),
                (all, _) => all.join("; "),
            };
            writeln!(out, "  {} {}", assumption.id, out::dim(why))?;
        }
    }
    writeln!(out)?;
    for (name, [kept, broken, open]) in sums {
        writeln!(out, "{name:<28} {kept} kept, {broken} broken, {open} not answered here")?;
    }
    writeln!(out, "{}", verdict(findings))?;
    Ok(())
}

/// The last line: what all comes to.
pub(super) fn verdict(findings: &Findings) -> String {
    let failed = match findings.failed() {
        0 => None,
        n => Some(format!(
            "Not all was asked: {} no answer (broken, flaky or not-run, with the reasons above). Ask again.",
            if n == 1 { "1 case has".to_owned() } else { format!("{n} cases have") }
        )),
    };
    match (findings.surprises.is_empty(), failed) {
        (true, None) => "This kernel answers as recorded.".to_owned(),
        (true, Some(failed)) => failed,
        (false, None) => "This kernel answers other than recorded.".to_owned(),
        (false, Some(failed)) => format!("This kernel answers other than recorded. {failed}"),
    }
}

fn broken(out: &mut dyn Write, one: &Broken, few: usize) -> Result<()> {
    let Broken { contract, assumption, breaches, .. } = one;
    writeln!(out, "  {} {}", out::bold(&assumption.id), assumption.says)?;
    writeln!(out, "    {contract}: {}. {}", assumption.breaks, assumption.effect)?;
    for Breach { case, fact, allowed, seen } in breaches.iter().take(few) {
        writeln!(out, "    {}", out::dim(format_args!("{case}: {fact} is {seen}, not {allowed}")))?;
    }
    if breaches.len() > few {
        let more = breaches.len() - few;
        writeln!(out, "    {}", out::dim(format_args!("and {more} cases more")))?;
    }
    Ok(())
}

/// What could not be asked here, with the reason.
fn skipped(findings: &Findings) -> BTreeMap<(&str, String), usize> {
    let mut reasons = BTreeMap::new();
    for (_, outcome) in findings.record.cases.iter().filter(|(_, o)| !is_answer(o.end)) {
        let why = without_numbers(&outcome.detail);
        *reasons.entry((outcome.end.word(), why)).or_default() += 1;
    }
    if findings.left_out > 0 {
        let why = "not asked: faults of the kernel fail for this user (needs CAP_SYS_PTRACE, \
                   vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd)";
        *reasons.entry((End::Denied.word(), why.to_owned())).or_default() += findings.left_out;
    }
    reasons
}

/// A text without the ids of processes, so that equal reasons are counted together.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive('/') {
        let number = part.trim_end_matches('/');
        let is_id = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        out.push_str(&if is_id { part.replace(number, "N") } else { part.to_owned() });
    }
    out
}

/// For programs: one object.
pub(super) fn json(findings: &Findings) -> Result<()> {
    let Findings { record, took, nearest, certainty, surprises, broken, open, sums, .. } = findings;
    let surprises: Vec<_> = surprises
        .iter()
        .map(|s| json!({"case": s.case, "fact": s.fact, "here": s.here, "wanted": s.wanted, "source": s.source}))
        .collect();
    let broken: Vec<_> = broken
        .iter()
        .map(|b| {
            let breaches: Vec<_> = b
                .breaches
                .iter()
                .map(|b| json!({"case": b.case, "fact": b.fact, "allowed": b.allowed, "seen": b.seen}))
                .collect();
            json!({"contract": b.contract, "id": b.assumption.id, "says": b.assumption.says, "breaks": b.assumption.breaks, "effect": b.assumption.effect, "on_every_recorded_kernel": b.everywhere, "cases": breaches})
        })
        .collect();
    let open: Vec<_> = open
        .iter()
        .map(|o| json!({"contract": o.contract, "id": o.assumption.id, "says": o.assumption.says, "why": o.why}))
        .collect();
    let sums: Vec<_> = sums
        .iter()
        .map(|(name, [kept, broken, open])| json!({"contract": name, "kept": kept, "broken": broken, "not_answered": open}))
        .collect();
    let skipped: Vec<_> = skipped(findings)
        .into_iter()
        .map(|((end, why), n)| json!({"end": end, "why": why, "cases": n}))
        .collect();
    let answered = record.cases.iter().filter(|(_, o)| is_answer(o.end)).count();
    let line = json!({
        "type": "check", "schema": SCHEMA, "kernel": record.kernel, "environment": record.environment, "suite": record.suite,
        "recorded_beside": nearest, "certainty": certainty, "cases": record.cases.len(), "answered": answered,
        "seconds": took.as_secs_f64(), "skipped": skipped, "surprises": surprises, "broken": broken, "not_answered": open,
        "contracts": sums,
    });
    writeln!(out::stdout(), "{line}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn reasons_that_differ_by_a_process_are_one() {
        assert_eq!(
            without_numbers("opening /proc/12/task/34/syscall"),
            "opening /proc/N/task/N/syscall"
        );
        assert_eq!(without_numbers("6 of 7: EPERM"), "6 of 7: EPERM");
    }
}
