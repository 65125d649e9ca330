//! The answer of `ask` for people: what happened in plain words, then facts, cases and sources.

use super::super::which::Which;
use super::super::{Exit, out};
use super::AskArgs;
use crate::ask::compare::{Compared, Part};
use crate::ask::gather::{Seen, Span, Table};
use crate::ask::say::{Clause, clauses, subject};
use crate::ask::{Asked, distinct};
use crate::judge::judge;
use crate::kernels::{Lock, select};
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
        if told.spans.is_empty() && !self.args.kernel.is_empty() {
            writeln!(
                out,
                "\n{}\n",
                out::bold("What recorded kernels say, which is no answer for that one:")
            )?;
            for span in &table.tell(&[])?.spans {
                self.span(out, table, span)?;
            }
        }
        cases(out, table, others)?;
        if let Some(id) = table.cases.first().map(|asked| &asked.id) {
            writeln!(out, "repeat: {}", self.command(id))?;
        }
        let is_known = |span: &Span<'_>| span.groups.iter().any(|group| group.cell.seen.is_some());
        Ok(if told.spans.iter().any(is_known) { Exit::Expected } else { Exit::Nothing })
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
        sentences(out, "  ", compared.common.iter())?;
        if !compared.parts.is_empty() {
            self.differences(out, &compared)?;
        }
        self.facts(out, table, span)?;
        Ok(writeln!(out)?)
    }

    fn differences(&self, out: &mut dyn Write, compared: &Compared<'_>) -> Result<()> {
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
            sentences(out, "      ", own.iter())?;
            if own.is_empty() {
                writeln!(out, "      nothing more")?;
            }
        }
        if parts.len() > shown {
            let more = crate::report::count(parts.len() - shown, "more group");
            writeln!(out, "    and {more} (--all shows them)")?;
        }
        Ok(())
    }

    /// The facts of a case of each group, and who says that they should be so.
    fn facts(&self, out: &mut dyn Write, table: &Table<'_>, span: &Span<'_>) -> Result<()> {
        let Some(kernel) = span.kernel else { return Ok(()) };
        let recorded = &self.data.kernels()[kernel];
        let version = recorded.upstream;
        let shown = if self.args.all { span.groups.len() } else { FEW };
        let mut sources: Vec<(&str, Vec<&str>)> = Vec::new();
        writeln!(out, "  {}", out::dim(format_args!("facts on {}", recorded.label)))?;
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
        let n = others.len();
        if n == 0 {
            return Ok(());
        }
        let head = if n == 1 {
            "No recorded kernel was asked this.".to_owned()
        } else {
            format!("No recorded kernel was asked any of these {n} cases.")
        };
        writeln!(out, "{}", out::bold(head))?;
        let version = self.version();
        let name = self.args.kernel.first().map_or(version.to_string(), ToString::to_string);
        writeln!(out, "  What the documents make one expect on {name}, which is no record:")?;
        let mut groups: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
        for asked in others {
            let said = documented(asked, version);
            match groups.iter_mut().find(|(known, _)| *known == said) {
                Some((_, ids)) => ids.push(&asked.id),
                None => groups.push((said, vec![&asked.id])),
            }
        }
        groups.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
        let shown = if self.args.all { groups.len() } else { FEW };
        for (said, ids) in groups.iter().take(shown) {
            if groups.len() > 1 {
                writeln!(
                    out,
                    "    {} such as {}",
                    out::bold(format_args!("{} of them,", ids.len())),
                    ids[0]
                )?;
            }
            for text in said {
                writeln!(out, "    {text}")?;
            }
        }
        if groups.len() > shown {
            let more = crate::report::count(groups.len() - shown, "other answer");
            writeln!(out, "    and {more} (--all shows them)")?;
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

    /// How to ask a case again: in VMs of the kernels that were named, or on a host of one that the lock file
    /// does not have.
    fn command(&self, id: &str) -> String {
        let lock = Lock::open(None).ok();
        let in_vm = |which: &Which| {
            if let Which::Release(release) = which
                && (release.origin().carries_back()
                    || release.machine().is_some_and(|m| m != "x86_64"))
            {
                return None;
            }
            let has = |name: &String| {
                lock.as_ref().is_some_and(|l| select(l, std::slice::from_ref(name), false).is_ok())
            };
            let name = which.to_string();
            // A recorded build by the version that the lock file knows it by.
            let recorded = which.places(self.data).ok().filter(|places| places.len() == 1);
            let version =
                recorded.map(|places| self.data.kernels()[places[0]].upstream.to_string());
            [Some(name), version].into_iter().flatten().find(has).map(|name| format!("-k {name}"))
        };
        let (mut in_vms, mut on_hosts) = (Vec::new(), Vec::new());
        for which in &self.args.kernel {
            match in_vm(which) {
                Some(named) => in_vms.push(named),
                None => on_hosts.push(which.to_string()),
            }
        }
        if self.args.kernel.is_empty() {
            in_vms.push(format!("-k {}", self.version().series()));
        }
        let in_vms = in_vms.join(" ");
        match (in_vms.is_empty(), &on_hosts[..]) {
            (_, []) => format!("uffd-conform run {in_vms} '{id}'"),
            (true, [_]) => format!("uffd-conform run '{id}'   # on that host"),
            (true, hosts) => format!("uffd-conform run '{id}'   # on {}", hosts.join(", ")),
            (false, hosts) => {
                let hosts = hosts.join(", ");
                format!("uffd-conform run {in_vms} '{id}'   # and without -k on {hosts}")
            }
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

/// What the documents make one expect of a case, in sentences; facts of a trial, which are only named, in one.
fn documented(asked: &Asked, version: KernelVersion) -> Vec<String> {
    let facts = asked.case.expect(version);
    let facts = facts.iter().map(|e| (e.fact.to_owned(), e.value.to_string()));
    let seen = Seen { end: End::Done, detail: String::new(), facts: facts.collect() };
    let subject = subject(std::iter::once(asked.axis("waiter")));
    let said = clauses(&seen, asked.is_point(), subject).into_iter().map(|clause| clause.text);
    if asked.is_point() { said.collect() } else { vec![said.collect::<Vec<_>>().join(" ")] }
}

/// Sentences a line each; what is only named, of trials, in one line.
fn sentences<'c>(
    out: &mut dyn Write,
    indent: &str,
    clauses: impl Iterator<Item = &'c Clause>,
) -> Result<()> {
    let (mut text, mut ended) = (String::new(), true);
    for clause in clauses {
        let joint = match (text.is_empty(), ended || clause.is_line) {
            (true, _) => indent.to_owned(),
            (false, true) => format!("\n{indent}"),
            (false, false) => " ".to_owned(),
        };
        text = text + &joint + &clause.text;
        ended = clause.is_line;
    }
    if !text.is_empty() {
        writeln!(out, "{text}")?;
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
