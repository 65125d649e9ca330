//! The answer of `ask` for people: what happened in plain words, then facts, cases and sources.

use super::super::which::Which;
use super::super::{Exit, out};
use super::AskArgs;
use crate::ask::compare::{Compared, Part};
use crate::ask::gather::{Seen, Span, Table};
use crate::ask::say::{Clause, clauses, subject};
use crate::ask::{Asked, distinct};
use crate::judge::judge;
use anyhow::Result;
use std::io::Write;
use uffd_results::{Dataset, End, KernelVersion};

/// Groups, cases and facts shown without being asked for more.
const MANY: usize = 8;
const FEW: usize = 3;

/// What is to be shown, and of what.
pub(super) struct Text<'a> {
    pub(super) args: &'a AskArgs,
    pub(super) data: &'a Dataset,
}

impl Text<'_> {
    /// What recorded cases showed.
    pub(super) fn answered(
        &self,
        out: &mut dyn Write,
        table: &Table<'_>,
        others: &[Asked],
    ) -> Result<Exit> {
        let told = table.tell(&self.args.kernel)?;
        for span in &told.spans {
            self.span(out, table, span)?;
        }
        for silent in &told.silent {
            writeln!(out, "{}", out::dim(format_args!("no answer on {silent}")))?;
        }
        cases(out, table, others)?;
        if let Some(id) = table.cases.first().map(|asked| &asked.id) {
            writeln!(out, "repeat: {}", self.command(id))?;
        }
        Ok(if told.spans.is_empty() { Exit::Nothing } else { Exit::Expected })
    }

    fn span(&self, out: &mut dyn Write, table: &Table<'_>, span: &Span<'_>) -> Result<()> {
        let Span { label, extent, .. } = span;
        write!(out, "{}", out::bold(format_args!("Linux {label}")))?;
        if !extent.is_empty() {
            write!(out, " {}", out::dim(format_args!("({extent})")))?;
        }
        writeln!(out)?;
        let compared = Compared::of(table, span);
        if !compared.note.is_empty() {
            writeln!(out, "  {}", compared.note)?;
        }
        sentences(out, table, "  ", compared.common.iter())?;
        if !compared.parts.is_empty() {
            self.differences(out, table, &compared)?;
        }
        self.facts(out, table, span)?;
        Ok(writeln!(out)?)
    }

    fn differences(
        &self,
        out: &mut dyn Write,
        table: &Table<'_>,
        compared: &Compared<'_>,
    ) -> Result<()> {
        let parts = &compared.parts;
        writeln!(out, "  {}", out::bold(format_args!("What differs{}:", compared.by())))?;
        let shown = if self.args.all { parts.len() } else { MANY };
        for Part { label, note, own } in parts.iter().take(shown) {
            let few = if self.args.all { label.len() } else { FEW };
            let more = label.len().saturating_sub(few);
            let label = label.iter().take(few).cloned().collect::<Vec<_>>().join(", ");
            let label = if more == 0 { label } else { format!("{label} and {more} more") };
            let label = out::bold(label);
            if let ([clause], "") = (&own[..], note.as_str()) {
                writeln!(out, "    {label}: {}", clause.text)?;
                continue;
            }
            let note = if note.is_empty() { String::new() } else { format!(" {note}") };
            writeln!(out, "    {label}:{}", out::dim(note))?;
            sentences(out, table, "      ", own.iter())?;
            if own.is_empty() {
                writeln!(out, "      nothing more")?;
            }
        }
        if parts.len() > shown {
            writeln!(out, "    and {} more groups (--all shows them)", parts.len() - shown)?;
        }
        Ok(())
    }

    /// The facts of a case of each group, and who says that they should be so.
    fn facts(&self, out: &mut dyn Write, table: &Table<'_>, span: &Span<'_>) -> Result<()> {
        let Some(kernel) = span.kernel else { return Ok(()) };
        let version = self.data.kernels()[kernel].upstream;
        let shown = if self.args.all { span.groups.len() } else { FEW };
        let mut sources: Vec<(&str, Vec<&str>)> = Vec::new();
        writeln!(out, "  {}", out::dim(format_args!("facts on {version}")))?;
        for group in span.groups.iter().take(shown) {
            let cases = if self.args.all { group.cases.len() } else { 1 };
            for at in group.cases.iter().take(cases) {
                let asked = &table.cases[*at];
                let outcome = self.data.case(&asked.id).and_then(|case| case.outcome(kernel));
                let Some(outcome) = outcome else { continue };
                writeln!(out, "    {}\n      {}", asked.id, out::dim(outcome))?;
                let judged = judge(&asked.case, outcome, version);
                out::differences(out, &judged)?;
                let seen = group.cell.seen.map(|seen| &table.seen[seen]);
                for expected in asked.case.expect(version) {
                    let told = seen.is_some_and(|seen| seen.fact(expected.fact).is_some());
                    if !told {
                        continue;
                    }
                    match sources.iter_mut().find(|(source, _)| *source == expected.source) {
                        Some((_, facts)) if facts.contains(&expected.fact) => {}
                        Some((_, facts)) => facts.push(expected.fact),
                        None => sources.push((expected.source, vec![expected.fact])),
                    }
                }
            }
        }
        for (source, facts) in sources {
            writeln!(out, "    {}", out::dim(format_args!("{}: {source}", facts.join(", "))))?;
        }
        Ok(())
    }

    /// Says that cases exist and no kernel was asked, what is expected, and how to ask.
    pub(super) fn not_recorded(&self, out: &mut dyn Write, others: &[Asked]) -> Result<()> {
        let Some(first) = others.first() else { return Ok(()) };
        let n = others.len();
        let head = if n == 1 {
            "No recorded kernel was asked this.".to_owned()
        } else {
            format!("No recorded kernel was asked any of these {n} cases.")
        };
        writeln!(out, "{}", out::bold(head))?;
        let version = self.version();
        let facts = first.case.expect(version);
        let facts = facts.iter().map(|e| (e.fact.to_owned(), e.value.to_string()));
        let (end, detail) = (End::Done, String::new());
        let seen = Seen { end, detail, facts: facts.collect() };
        let subject = subject(std::iter::once(first.axis("waiter")));
        let name = self.args.kernel.first().map_or(version.to_string(), ToString::to_string);
        writeln!(out, "  What the documents make one expect on {name}, which is no record:")?;
        let said = clauses(&seen, first.is_point(), subject);
        for clause in said {
            writeln!(out, "    {}", clause.text)?;
        }
        writeln!(out, "  To ask:")?;
        let shown = if self.args.all { n } else { FEW };
        for asked in others.iter().take(shown) {
            writeln!(out, "    {}", self.command(&asked.id))?;
        }
        if n > shown {
            writeln!(out, "    and {} more (--all shows them)", n - shown)?;
        }
        Ok(())
    }

    /// How to ask a case again: in VMs of the series that were named, or on a host of a kernel that
    /// no mirror of ours has.
    fn command(&self, id: &str) -> String {
        let in_vm = |which: &Which| match which {
            Which::Release(release) if release.origin().carries_back() => None,
            which => {
                let name = which.to_string();
                let series = KernelVersion::parse(&name).map(KernelVersion::series);
                Some(format!("-k {}", series.unwrap_or(name)))
            }
        };
        let named: Option<Vec<String>> = self.args.kernel.iter().map(in_vm).collect();
        match named.map(|named| named.join(" ")) {
            None => format!("uffd-conform run '{id}'   # on that host"),
            Some(named) if named.is_empty() => {
                format!("uffd-conform run -k {} '{id}'", self.version().series())
            }
            Some(named) => format!("uffd-conform run {named} '{id}'"),
        }
    }

    /// The version of the first kernel that is named, else of the newest one recorded.
    fn version(&self) -> KernelVersion {
        let newest = self.data.kernels().last().map(|kernel| kernel.upstream);
        let named = self.args.kernel.first();
        let named = named.and_then(|which| KernelVersion::parse(&which.to_string()).ok());
        named.or(newest).unwrap_or(KernelVersion::new(7, 3, 0))
    }
}

/// Sentences a line each; what is only named, of trials, in one line.
fn sentences<'c>(
    out: &mut dyn Write,
    table: &Table<'_>,
    indent: &str,
    clauses: impl Iterator<Item = &'c Clause>,
) -> Result<()> {
    let texts: Vec<&str> = clauses.map(|clause| clause.text.as_str()).collect();
    let joint = if table.cases[0].is_point() { format!("\n{indent}") } else { " ".into() };
    if !texts.is_empty() {
        writeln!(out, "{indent}{}", texts.join(&joint))?;
    }
    Ok(())
}

/// Which cases the answer rests on.
fn cases(out: &mut dyn Write, table: &Table<'_>, others: &[Asked]) -> Result<()> {
    let all: Vec<&Asked> = table.cases.iter().collect();
    let of = crate::report::count(all.len(), "case");
    let names = distinct(all.iter().flat_map(|asked| asked.axes()).map(|(name, _)| name));
    let mut axes = Vec::new();
    for name in names {
        let values = distinct(all.iter().filter_map(|asked| asked.axis(name)));
        let shown = values.iter().take(MANY).copied().collect::<Vec<_>>().join("/");
        let more = if values.len() > MANY { "/..." } else { "" };
        axes.push(format!("{name}={shown}{more}"));
    }
    writeln!(out, "{}", out::dim(format_args!("{of}: {}", axes.join(" "))))?;
    if !others.is_empty() {
        let n = others.len();
        let text = format!("no recorded kernel was asked {n} more, such as {}", others[0].id);
        writeln!(out, "{}", out::dim(text))?;
    }
    Ok(())
}

/// Says what is different in the cases that follow.
pub(super) fn near(out: &mut dyn Write, given_up: &[(String, Vec<String>)]) -> Result<()> {
    let axes: Vec<String> =
        given_up.iter().map(|(name, values)| format!("{name}={}", values.join("/"))).collect();
    let head = format!("The nearest that is recorded, without {}:", axes.join(" and "));
    Ok(writeln!(out, "\n{}\n", out::bold(head))?)
}
