//! `ask`: what a point of the grid, named by its axes, showed on a kernel, in plain words first.

mod json;
mod text;

use super::which::Which;
use super::{Exit, Format, out, told};
use crate::ask::choose::{Wanted, candidates, choose, nearest};
use crate::ask::gather::Table;
use crate::ask::words::{self, GRID, Meant};
use crate::known::Known;
use crate::store::Store;
use anyhow::{Result, bail};
use clap::{Args, Parser};
use std::io::Write;
use std::str::FromStr;

/// Options of `ask`.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// Parts of case ids, or patterns with `*`: then also cases beside the grid are meant.
    filter: Vec<String>,
    /// The operation that was issued after the change: copy or UFFDIO_COPY, zeropage, ...
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("op"))]
    op: Vec<Meant>,
    /// What happened to the mapping.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("change"))]
    change: Vec<Meant>,
    /// To which part of the block, for munmap and mmap-over.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("part"))]
    part: Vec<Meant>,
    /// What mmap(2) put over it.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("over"))]
    over: Vec<Meant>,
    /// How mremap(2) changed it, or how it was discarded.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("how"))]
    how: Vec<Meant>,
    /// Who waits in the fault.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("waiter"))]
    waiter: Vec<Meant>,
    /// What backs the block.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("backing"))]
    backing: Vec<Meant>,
    /// Whether the message of the fault had been read before the change.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("msg"))]
    msg: Vec<Meant>,
    /// For what the block is registered; of the grid usually `missing` is meant.
    #[arg(long, value_delimiter = ',', ignore_case = true, value_parser = words::parser("mode"))]
    mode: Vec<Meant>,
    /// Any other axis of a case, with values joined by `|` in which `*` is any text.
    #[arg(long, value_name = "NAME=VALUE")]
    axis: Vec<Axis>,
    /// Only for these kernels: a series (6.12), a version, or what `uname -r` prints.
    #[arg(short, long, value_name = "KERNEL")]
    kernel: Vec<Which>,
    /// Show every group and every case, however many.
    #[arg(long)]
    all: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// An axis with the values that will do.
#[derive(Clone, Debug)]
struct Axis(String, Vec<String>);

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text
            .split_once('=')
            .filter(|(name, values)| !name.is_empty() && !values.is_empty())
            .ok_or(
                "give an axis and its value, such as event=fork; `uffd-conform list` shows them",
            )?;
        let mut all = Vec::new();
        for value in values.split('|') {
            let meant = words::meant(name, value);
            if meant.is_empty() {
                all.push(value.to_owned());
            } else {
                all.extend(meant.into_iter().map(str::to_owned));
            }
        }
        Ok(Self(name.to_owned(), all))
    }
}

impl AskArgs {
    fn wanted(&self) -> Result<Wanted> {
        let given = [
            &self.op,
            &self.change,
            &self.part,
            &self.over,
            &self.how,
            &self.waiter,
            &self.backing,
            &self.msg,
            &self.mode,
        ];
        let mut wanted = Wanted { filters: self.filter.clone(), axes: Vec::new() };
        for (name, words) in GRID.iter().zip(given).filter(|(_, words)| !words.is_empty()) {
            let values = words.iter().flat_map(|Meant(values)| values);
            let values = values.map(|value| (*value).to_owned()).collect();
            wanted.axes.push(((*name).to_owned(), values));
        }
        wanted.axes.extend(self.axis.iter().map(|Axis(n, v)| (n.clone(), v.clone())));
        if wanted.filters.is_empty() && wanted.axes.is_empty() {
            bail!(
                "nothing is asked: name axes, such as `uffd-conform ask --op copy --change mmap-over \
                 --waiter kvm -k 6.1`, or a part of a case id"
            );
        }
        Ok(wanted)
    }
}

pub(crate) fn ask(args: &AskArgs, store: &Store) -> Result<Exit> {
    answer(args, &told::load(store)?, &mut out::stdout())
}

/// Writes the answer.
fn answer(args: &AskArgs, known: &Known, out: &mut dyn Write) -> Result<Exit> {
    let wanted = args.wanted()?;
    let all = candidates(&wanted)?;
    let wanted = wanted.with_usual_mode(&all);
    let mut chosen = choose(&wanted, &all, &known.data)?;
    if args.format == Format::Jsonl {
        return json::write(out, args, chosen, &known.data);
    }
    let text = text::Text { args, data: &known.data };
    if !chosen.recorded.is_empty() {
        let others = std::mem::take(&mut chosen.others);
        let table = Table::of(chosen.recorded, &known.data);
        return text.answered(out, &table, &others);
    }
    text.not_recorded(out, &chosen.others)?;
    if let Some(near) = nearest(&wanted, &all, &known.data) {
        text::near(out, &near.given_up)?;
        let table = Table::of(near.recorded, &known.data);
        text.answered(out, &table, &[])?;
    }
    Ok(Exit::Nothing)
}

/// The question of somebody whose VM stands still.
const EXAMPLE: &str = "ask --op copy --change mmap-over --waiter kvm -k 6.1";

#[derive(Debug, Parser)]
struct Only {
    #[command(flatten)]
    args: AskArgs,
}

/// That question and its answer, as they stand in the README.
pub(crate) fn example(known: &Known) -> Result<String> {
    let only = Only::try_parse_from(EXAMPLE.split(' '))?;
    let mut text = Vec::new();
    answer(&only.args, known, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let plain = anstream::adapter::strip_str(&text).to_string();
    let lines = plain.trim_end().lines().map(|line| format!("    {line}").trim_end().to_owned());
    let lines: Vec<String> = lines.collect();
    Ok(format!("    $ uffd-conform {EXAMPLE}\n{}\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::built_in;

    /// "UFFDIO_COPY returned ENOENT after mmap over the block on 6.1: is my vCPU still stuck, and how
    /// do I free it?"
    #[test]
    fn a_stuck_vcpu_is_answered_in_words() {
        let text = example(&built_in()).expect("an answer");
        let words = [
            "UFFDIO_COPY fails with ENOENT; its result field holds -2.",
            "The vCPU stays asleep",
            "To free the vCPU: UFFDIO_WAKE of its page",
            "After that the vCPU goes on",
            "copy/mmap-over[",
            "uffd-conform run -k 6.1 '",
        ];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn axes_are_read() {
        let Axis(name, values) = "waiter=kvm|mlock".parse().expect("an axis");
        assert_eq!(name, "waiter");
        assert_eq!(values, ["vcpu-read", "vcpu-write", "vcpu-fetch", "mlock"]);
        assert!("waiter".parse::<Axis>().is_err() && "=x".parse::<Axis>().is_err());
    }
}
