//! What is said of cases together: what all of them have in common, and by which axes the rest differs.

use super::gather::{Group, Span, Table, varying};
use super::say::{Clause, clauses, subject};
use super::{Asked, distinct};
use uffd_results::Certainty;

/// What a span's cases showed, in sentences.
#[derive(Debug)]
pub(crate) struct Compared<'t> {
    /// How sure it is, if that is one thing for all of them; empty if recorded.
    pub(crate) note: String,
    /// What is said of every case.
    pub(crate) common: Vec<Clause>,
    /// Sets of axes, each of which decides the rest; empty if none does or nothing differs.
    pub(crate) deciding: Vec<Vec<&'t str>>,
    /// What differs, a group of cases each; empty if all went the same way.
    pub(crate) parts: Vec<Part>,
}

/// What is said of some cases of a span and not of all.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which cases, each entry some values of the axes that decide, of which every combination is meant.
    pub(crate) label: Vec<String>,
    /// How sure it is, if that is not the same for all of the span.
    pub(crate) note: String,
    /// What is said of these alone.
    pub(crate) own: Vec<Clause>,
}

impl<'t> Compared<'t> {
    /// Puts together what a span says.
    pub(crate) fn of(table: &'t Table<'_>, span: &Span<'_>) -> Self {
        let groups = &span.groups;
        let notes: Vec<String> = groups.iter().map(note).collect();
        let one_note = notes.windows(2).all(|pair| pair[0] == pair[1]);
        let cases: Vec<&Asked> =
            groups.iter().flat_map(|group| &group.cases).map(|at| &table.cases[*at]).collect();
        let subject = subject(cases.iter().map(|asked| asked.axis("waiter")));
        let said: Vec<Vec<Clause>> =
            groups.iter().map(|group| said(table, group, subject)).collect();
        let in_all = |clause: &Clause| said.iter().all(|said| said.contains(clause));
        let common = said.first().into_iter().flatten().filter(|c| in_all(c)).cloned().collect();
        let deciding = table.deciding(groups);
        let names = deciding.first().cloned().unwrap_or_else(|| varying(&cases));
        let mut parts = Vec::new();
        if groups.len() > 1 {
            for ((group, said), note) in groups.iter().zip(&said).zip(&notes) {
                parts.push(Part {
                    label: values(table, group, &names),
                    note: if one_note { String::new() } else { note.clone() },
                    own: said.iter().filter(|clause| !in_all(clause)).cloned().collect(),
                });
            }
        }
        let note = notes.into_iter().next().filter(|_| one_note).unwrap_or_default();
        Self { note, common, deciding, parts }
    }

    /// By what the rest differs: ` by over and waiter`; empty where that can't be said.
    pub(crate) fn by(&self) -> String {
        let sets: Vec<String> = self.deciding.iter().map(|set| set.join(" and ")).collect();
        match sets.split_first() {
            None => String::new(),
            Some((first, [])) => format!(" by {first}"),
            Some((first, others)) => {
                format!(" by {first} (or by {}: these cases do not tell)", others.join(", or by "))
            }
        }
    }
}

/// What is said of a group's cases.
pub(crate) fn said(table: &Table<'_>, group: &Group<'_>, subject: &str) -> Vec<Clause> {
    let is_point = group.cases.first().is_some_and(|at| table.cases[*at].is_point());
    let say = |seen: usize| clauses(&table.seen[seen], is_point, subject);
    if let Some(seen) = group.cell.seen {
        return say(seen);
    }
    let basis = group.cell.basis.iter().map(|(kernel, seen)| {
        let said: Vec<String> = say(*seen).into_iter().map(|clause| clause.text).collect();
        let text = format!("On {}: {}", kernel.label, said.join(" "));
        Clause { key: kernel.release.clone(), text, is_line: true }
    });
    basis.collect()
}

/// How sure an answer is, unless it is recorded.
fn note(group: &Group<'_>) -> String {
    let cell = &group.cell;
    let kernels: Vec<&str> = cell.basis.iter().map(|(k, _)| k.label.as_str()).collect();
    let kernels = kernels.join(", ");
    match (cell.certainty, cell.why) {
        (Certainty::Exact, _) => String::new(),
        (_, Some(why)) if kernels.is_empty() => format!("not known: {why}"),
        (_, Some(why)) => format!("not known: {why}; the nearest recorded: {kernels}"),
        (certainty, None) if cell.basis.len() == 1 => {
            format!("not recorded itself; {certainty}: as {kernels}")
        }
        (certainty, None) => format!("not recorded itself; {certainty}: {kernels} agree"),
    }
}

/// Values of several axes, of which every combination is meant; `None` where a case has no such axis.
type Product<'a> = Vec<Vec<Option<&'a str>>>;

/// The values that the cases of a group have on some axes: `part=head/tail backing=anon`, as often as
/// it takes to name no other case.
fn values(table: &Table<'_>, group: &Group<'_>, names: &[&str]) -> Vec<String> {
    let cases = || group.cases.iter().map(|at| &table.cases[*at]);
    if let [name] = names {
        let mut values = distinct(cases().filter_map(|asked| asked.axis(name)));
        if cases().any(|asked| asked.axis(name).is_none()) {
            values.push("none");
        }
        return vec![values.join(", ")];
    }
    let rows = cases().map(|asked| names.iter().map(|name| asked.axis(name)).collect());
    let say = |product: Product<'_>| {
        let axes = names.iter().zip(product).filter_map(|(name, values)| {
            let values: Vec<&str> = values.into_iter().flatten().collect();
            (!values.is_empty()).then(|| format!("{name}={}", values.join("/")))
        });
        axes.collect::<Vec<_>>().join(" ")
    };
    cover(&rows.collect::<Vec<_>>()).into_iter().map(say).collect()
}

/// Rows as products that have these rows and no others.
fn cover<'a>(rows: &[Vec<Option<&'a str>>]) -> Vec<Product<'a>> {
    if rows.iter().all(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let mut firsts: Vec<Option<&str>> = Vec::new();
    for row in rows {
        if !firsts.contains(&row[0]) {
            firsts.push(row[0]);
        }
    }
    let mut products: Vec<Product<'a>> = Vec::new();
    for first in firsts {
        let rest = rows.iter().filter(|row| row[0] == first).map(|row| row[1..].to_vec());
        for rest in cover(&rest.collect::<Vec<_>>()) {
            match products.iter_mut().find(|product| product[1..] == rest) {
                Some(product) => product[0].push(first),
                None => products.push([vec![vec![first]], rest].concat()),
            }
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["a x", "b x", "a y", "b y"], &["a/b x/y"])]
    #[case(&["a x", "b x", "b y"], &["a x", "b x/y"])]
    #[case(&["a x", "b y"], &["a x", "b y"])]
    fn rows_are_named_by_products_of_no_other_rows(#[case] rows: &[&str], #[case] said: &[&str]) {
        let rows: Vec<Vec<Option<&str>>> =
            rows.iter().map(|row| row.split(' ').map(Some).collect()).collect();
        let say = |product: Product<'_>| {
            let axes = product.into_iter().map(|v| v.into_iter().flatten().collect::<Vec<_>>());
            axes.map(|values| values.join("/")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(cover(&rows).into_iter().map(say).collect::<Vec<_>>(), said);
    }
}
