//! The export as comma-separated values: a line a case, fact and run of kernels that agree.

use super::{Selection, facts_of};
use uffd_results::{Dataset, Support};

/// The first line.
const HEAD: &str = "case,fact,value,first,last,after,before\n";

/// Lines of `case,fact,value,first,last,after,before`: recorded kernels from `first` to `last` showed
/// the value; `after` is the last one before them that showed another, `before` the first one after.
pub fn csv(data: &Dataset, selection: &Selection) -> String {
    let kernels = data.kernels();
    let name = |place: usize| kernels[place].label.clone();
    let mut out = HEAD.to_owned();
    for (id, case) in selection.cases(data) {
        for fact in facts_of(case, kernels.len()) {
            let answers = (0..kernels.len()).filter_map(|k| Some((k, case.fact(k, fact)?)));
            let support = Support::of(answers);
            let runs = support.runs();
            for (i, run) in runs.iter().enumerate() {
                let after = i.checked_sub(1).map_or(String::new(), |i| name(runs[i].last));
                let before = runs.get(i + 1).map_or(String::new(), |run| name(run.first));
                let line =
                    [&id, fact, run.value, &name(run.first), &name(run.last), &after, &before];
                out += &line.map(field).join(",");
                out.push('\n');
            }
        }
    }
    out
}

/// A field, in quotes if it needs them.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
