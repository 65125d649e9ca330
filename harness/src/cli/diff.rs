//! `diff`: in which cases two kernels, two folders of records or two values of an axis differ.

mod side;

use super::which::Which;
use super::{Exit, Format, out, told};
use crate::diff::{Category, Compared, Comparer, Side};
use crate::filter::FilterError;
use crate::known;
use crate::report::group::{Difference, Group, group};
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use side::Sides;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use uffd_results::{Dataset, Recorded, id_matches};

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 no difference, or none that --fail-on names · 1 they differ · \
                  2 bad input · 3 nothing was asked on either side"
)]
pub(crate) struct DiffArgs {
    /// What is compared: a series (6.12, its newest; 6.12:oldest), a version, what `uname -r`
    /// prints, or a record's file. With --folders a results folder, with --axis a value.
    a: String,
    /// With what.
    b: String,
    /// Only cases with this in their id, or that match a pattern with `*`.
    filter: Vec<String>,
    /// Compare two results folders, kernel by kernel; a kernel that only one has is gone or new.
    #[arg(long, conflicts_with_all = ["axis", "kernel"])]
    folders: bool,
    /// Compare two values of this axis, in cases that differ in nothing else.
    #[arg(long, value_name = "NAME")]
    axis: Option<String>,
    /// With --axis: on these kernels (default: the newest that is recorded).
    #[arg(short, long, value_name = "KERNEL", requires = "axis")]
    kernel: Vec<Which>,
    /// Show only these categories.
    #[arg(long, value_name = "CATEGORY", value_enum, value_delimiter = ',')]
    only: Vec<Category>,
    /// Exit with 1 only if there is one of these categories.
    #[arg(long, value_name = "CATEGORY", value_enum, value_delimiter = ',')]
    fail_on: Vec<Category>,
    /// Output format; `jsonl` has a line a case.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn diff(args: &DiffArgs, store: &Store) -> Result<Exit> {
    if args.filter.iter().any(String::is_empty) {
        return Err(FilterError::Empty.into());
    }
    let wanted = |id: &str| args.filter.is_empty() || args.filter.iter().any(|f| id_matches(f, id));
    let (comparer, mut show) = (Comparer::new(), Show::new(args));
    if args.folders {
        let (a, b) = (Path::new(&args.a), Path::new(&args.b));
        let (a, b) = (folder(a)?, folder(b)?);
        let folders = side::of_folders(&a, &b);
        let [gone, new] = &folders.one;
        show.alone(Category::Gone, gone, "is only in the first folder")?;
        show.alone(Category::New, new, "is only in the second folder")?;
        for (label, sides) in folders.both {
            show.pair(&label, comparer.kernels(sides, &wanted))?;
        }
    } else if let Some(axis) = &args.axis {
        let known = told::load(store)?;
        let [a, b] = [&args.a, &args.b].map(|word| side::value(&known.data, axis, word));
        let values = (axis.as_str(), a?, b?);
        for kernel in kernels(&known.data, &args.kernel)? {
            let name = &known.data.kernels()[kernel].label;
            let label = [values.1, values.2].map(|value| format!("{axis}={value} on {name}"));
            let side = Side { data: &known.data, kernel };
            show.pair(&label, comparer.axis(side, values, &wanted))?;
        }
    } else {
        let sides = Sides::find(&args.a, &args.b, store)?;
        let (label, pair) = sides.pair();
        show.pair(&label, comparer.kernels(pair, &wanted))?;
    }
    show.end()
}

fn folder(path: &Path) -> Result<Dataset> {
    let records = Store::new(path).load()?;
    told::of(&records, &path.display().to_string());
    known::whole_dataset(&records)
}

/// The kernels of -k; the newest without.
fn kernels(data: &Dataset, named: &[Which]) -> Result<Vec<usize>> {
    if named.is_empty() {
        return side::place(data, None).map(|kernel| vec![kernel]);
    }
    let mut places: Vec<usize> = Vec::new();
    for which in named {
        for place in side::places(data, which)? {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    Ok(places)
}

/// What is shown, and what the exit code follows from.
struct Show<'a> {
    args: &'a DiffArgs,
    cases: usize,
    counts: BTreeMap<Category, usize>,
}

impl<'a> Show<'a> {
    fn new(args: &'a DiffArgs) -> Self {
        Self { args, cases: 0, counts: BTreeMap::new() }
    }

    fn pair(&mut self, labels: &[String; 2], compared: Compared) -> Result<()> {
        let Compared { cases, differences } = compared;
        self.cases += cases;
        let mut counts = BTreeMap::new();
        for (category, _) in &differences {
            *counts.entry(*category).or_insert(0) += 1;
        }
        for (category, n) in &counts {
            *self.counts.entry(*category).or_default() += n;
        }
        let only = &self.args.only;
        let shown = differences.into_iter().filter(|(c, _)| only.is_empty() || only.contains(c));
        let told = Told { labels, cases, counts, shown: shown.collect() };
        match self.args.format {
            Format::Human => human(told),
            Format::Jsonl => jsonl(told),
        }
    }

    /// Kernels that only one of two folders has.
    fn alone(&mut self, category: Category, kernels: &[&Recorded], place: &str) -> Result<()> {
        for kernel in kernels {
            *self.counts.entry(category).or_default() += 1;
            out::note(&format!("{} {place}", side::name(kernel)));
            let (word, only) = (category.word(), &self.args.only);
            if self.args.format == Format::Jsonl && (only.is_empty() || only.contains(&category)) {
                let (release, upstream) = (&kernel.release, kernel.upstream.to_string());
                let line = json!({
                    "type": "kernel", "category": word, "release": release, "upstream": upstream,
                    "machine": kernel.machine,
                });
                writeln!(out::stdout(), "{line}")?;
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<Exit> {
        if self.cases == 0 && !self.args.filter.is_empty() {
            let words = self.args.filter.join(" ");
            bail!("no case of the two matches {words}: `uffd-conform list` shows the ids");
        }
        let fails = &self.args.fail_on;
        let found = Category::ALL.into_iter().filter(|c| self.counts.contains_key(c));
        Ok(if found.into_iter().any(|c| fails.is_empty() || fails.contains(&c)) {
            Exit::Different
        } else if self.cases == 0 {
            Exit::Nothing
        } else {
            Exit::Expected
        })
    }
}

/// What is told of two sides.
struct Told<'a> {
    /// Their names.
    labels: &'a [String; 2],
    /// How many cases at least one of them was asked.
    cases: usize,
    /// All differences, counted.
    counts: BTreeMap<Category, usize>,
    /// Those that are shown.
    shown: Vec<(Category, Difference)>,
}

fn sums(counts: &BTreeMap<Category, usize>) -> String {
    let words: Vec<String> = counts.iter().map(|(category, n)| format!("{n} {category}")).collect();
    if words.is_empty() { "no difference".into() } else { words.join(", ") }
}

/// By probe, and in it by category, fact and reason.
fn human(Told { labels: [a, b], cases, counts, shown }: Told<'_>) -> Result<()> {
    let mut out = out::stdout();
    writeln!(out, "{}: {} in {cases} cases", out::bold(format!("{a} → {b}")), sums(&counts))?;
    let place = |(category, d): (Category, Difference)| ((d.probe.clone(), category), d);
    let mut groups: Vec<Group<(String, Category)>> = group(shown.into_iter().map(place));
    groups.sort_by(|x, y| x.place.cmp(&y.place));
    for probe in groups.chunk_by(|x, y| x.place.0 == y.place.0) {
        let n: usize = probe.iter().map(Group::count).sum();
        writeln!(out, "\n{} {n}", out::bold(&probe[0].place.0))?;
        for group in probe {
            let category = out::category(group.place.1);
            let (fact, n) = (&group.fact, group.count());
            writeln!(out, "  {category} {n} × {fact}: {}", group.turn(str::to_owned))?;
            writeln!(out, "             {}", out::dim(group.axes()))?;
            if let Some(why) = &group.reason {
                writeln!(out, "             {}", out::dim(format_args!("why: {why}")))?;
            }
        }
    }
    Ok(())
}

fn jsonl(Told { labels: [a, b], cases, counts, shown }: Told<'_>) -> Result<()> {
    let mut out = out::stdout();
    let words: BTreeMap<&str, usize> = counts.iter().map(|(c, n)| (c.word(), *n)).collect();
    writeln!(out, "{}", json!({"type": "diff", "a": a, "b": b, "cases": cases, "counts": words}))?;
    for (category, Difference { probe, axes, fact, values, reason }) in shown {
        let case = if axes.is_empty() { probe.clone() } else { format!("{probe}[{axes}]") };
        let line = json!({
            "type": "difference", "category": category.word(), "case": case, "probe": probe,
            "fact": fact, "a": values.0, "b": values.1, "why": reason,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
