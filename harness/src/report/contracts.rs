//! What programs assume, against recorded kernels: a table a contract.

use super::markdown::{head, row};
use super::series::Series;
use crate::known::Known;
use std::collections::HashMap;
use std::fmt::Write as _;
use uffd_results::{Bound, Contract, Kept, Kernel, Recorded};

/// The tables of all contracts; nothing if there are none.
pub(super) fn tables(Known { data, contracts, .. }: &Known, columns: &[Series<'_>]) -> String {
    if contracts.is_empty() {
        return String::new();
    }
    // One release can be recorded on two machines.
    let of = |(place, k): (usize, &'_ Recorded)| ((k.machine.clone(), k.release.clone()), place);
    let places: HashMap<_, usize> = data.kernels().iter().enumerate().map(of).collect();
    let mut out = String::from(
        "Whether each kernel keeps what a program assumes, worst consequence first. *kept*: every case \
         that decides it showed what is assumed; *broken*: some case did not; *unsupported*: the kernel \
         lacks what it is about; *unknown*: no case could be answered. `uffd-conform contract NAME -v` \
         shows where a program relies on it and which cases break it.\n",
    );
    for contract in contracts {
        let Contract { name, title, about, snapshot, .. } = contract;
        let _ = writeln!(out, "\n### {title}\n\n{about} Read in: {snapshot}. (`{name}`)\n");
        let names = columns.iter().map(|series| series.name.clone());
        let names = ["assumption", "if broken"].map(str::to_owned).into_iter().chain(names);
        out += &head(names.collect());
        for assumption in contract.all(contracts) {
            let bound = assumption.bind(data);
            let says = format!("{} <br>`{}`", assumption.says, assumption.id);
            let cells = columns.iter().map(|series| match &assumption.not_asked {
                Some(_) => "not asked".to_owned(),
                None => series.cell(|record| {
                    let Kernel { machine, release, .. } = &record.kernel;
                    word(&bound, places.get(&(machine.clone(), release.clone())))
                }),
            });
            out += &row([says, assumption.breaks.to_string()].into_iter().chain(cells));
        }
    }
    out
}

fn word(bound: &Bound<'_, '_>, kernel: Option<&usize>) -> String {
    match kernel.and_then(|kernel| bound.kept(*kernel)) {
        Some(Kept::Broken) => "**broken**".to_owned(),
        Some(kept) => kept.to_string(),
        None => "unknown".to_owned(),
    }
}
