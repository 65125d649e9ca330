//! Questions over all recorded statements: an expression, and which cases of which facts it is true of.
//!
//! Belongs here: what the terms mean. How an expression is read stands in `parse`.

pub(crate) mod foreign;
mod parse;

pub(crate) use parse::QueryError;

use crate::ask::distinct;
use crate::ask::words::meant;
use crate::cli::which::Which;
use crate::known::Known;
use parse::{Expr, Name, Term};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use uffd_results::{
    Assumption, Case, Dataset, End, Extent, Group, Held, KernelVersion, Statement, Support, glob,
};

/// Words that are shown where there is none like the one that was given.
const NEAR: usize = 12;

/// Cases of a probe in which a fact goes the same way over the kernels, as far as the expression is
/// true of them.
pub(crate) struct Hit<'d> {
    /// The probe.
    pub(crate) probe: uffd_results::ProbeCases<'d>,
    /// The fact.
    pub(crate) fact: &'d str,
    /// Its values.
    pub(crate) support: Support<&'d str>,
    /// The cases.
    pub(crate) cases: Vec<Case<'d>>,
}

/// An expression that has been read.
pub(crate) struct Query(Expr);

impl Query {
    /// Reads an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        parse::parse(text).map(Self)
    }

    /// Everything that it is true of. An error names a contract that there is not.
    pub(crate) fn run<'d>(&self, known: &'d Known) -> Result<Vec<Hit<'d>>, String> {
        self.over(&known.data.statements(), known)
    }

    fn over<'d>(
        &self,
        statements: &[Statement<'d>],
        known: &'d Known,
    ) -> Result<Vec<Hit<'d>>, String> {
        let mut contracts = HashMap::new();
        for name in self.0.terms().filter(|t| t.name == Name::Contract).map(|t| &t.argument) {
            contracts.insert(name.as_str(), assumptions(known, name)?);
        }
        for term in self.0.terms() {
            check(term, statements)?;
        }
        let mut hits = Vec::new();
        for statement in statements {
            let mut view = View {
                data: &known.data,
                statement,
                differs_by: OnceCell::new(),
                held: OnceCell::new(),
                contracts: &contracts,
                unsupported: HashMap::new(),
            };
            for group in &statement.groups {
                let mut cases = Vec::new();
                for case in &group.cases {
                    if view.holds(&self.0, group, *case) {
                        cases.push(*case);
                    }
                }
                if !cases.is_empty() {
                    let (probe, fact) = (statement.probe, statement.fact);
                    hits.push(Hit { probe, fact, support: group.support.clone(), cases });
                }
            }
        }
        Ok(hits)
    }
}

/// An error if a term names what there is not: a slip of the pen must not read as a fact about kernels.
fn check(term: &Term, statements: &[Statement<'_>]) -> Result<(), String> {
    let (what, known) = match term.name {
        Name::Suite => ("a suite", distinct(statements.iter().map(|s| s.probe.suite()))),
        Name::Probe => ("a probe", distinct(statements.iter().map(|s| s.probe.name()))),
        Name::Fact => ("a fact", distinct(statements.iter().map(|s| s.fact))),
        Name::Consumer => {
            let all = statements.iter().flat_map(|s| s.probe.consumers()).map(String::as_str);
            ("a consumer", distinct(all))
        }
        Name::DiffersBy => ("an axis", axes(statements)),
        Name::Backing | Name::Axis => {
            let (axis, _) = term.axis();
            let values = distinct(cases(statements).filter_map(|case| case.axis(axis)));
            if values.is_empty() {
                ("an axis", axes(statements))
            } else {
                ("a value of that axis:", values)
            }
        }
        _ => return Ok(()),
    };
    let text = match (term.name, what) {
        (Name::Axis, "an axis") => term.axis().0,
        _ => term.argument.as_str(),
    };
    let is_meant = |word: &&&str| match term.name {
        Name::Probe => is_probe(text, word),
        Name::Consumer => is_in(text, word),
        Name::Backing | Name::Axis if what != "an axis" => {
            let (axis, value) = term.axis();
            is_value(axis, value, word)
        }
        _ => glob(text, word),
    };
    if known.iter().any(|word| is_meant(&word)) {
        return Ok(());
    }
    let close = |word: &str| strsim::jaro_winkler(text, word);
    let mut near = known;
    near.sort_by(|a, b| close(b).total_cmp(&close(a)));
    near.truncate(NEAR);
    let there = if near.is_empty() { "nothing".to_owned() } else { near.join(", ") };
    Err(format!(
        "nothing that was recorded is {what} {text:?}; there are, the nearest first: {there}"
    ))
}

fn cases<'d>(statements: &[Statement<'d>]) -> impl Iterator<Item = Case<'d>> {
    statements.iter().flat_map(|statement| statement.probe.cases())
}

/// The names of all axes.
fn axes<'d>(statements: &[Statement<'d>]) -> Vec<&'d str> {
    let words = cases(statements).flat_map(|case| case.axes().split(','));
    distinct(words.filter_map(|word| word.split_once('=')).map(|(axis, _)| axis))
}

fn is_probe(text: &str, name: &str) -> bool {
    glob(text, name) || glob(text, name.split_once('/').map_or("", |(_, short)| short))
}

/// Whether a text has these words somewhere, whatever their case.
fn is_in(text: &str, place: &str) -> bool {
    let (text, place) = (text.to_lowercase(), place.to_lowercase());
    if text.contains('*') { glob(&text, &place) } else { place.contains(&text) }
}

/// Whether a value of an axis is meant, by itself, a pattern or a word that people use for it.
fn is_value(axis: &str, wanted: &str, value: &str) -> bool {
    glob(wanted, value) || meant(axis, wanted).contains(&value)
}

fn assumptions(known: &Known, name: &str) -> Result<Vec<Assumption>, String> {
    let mut chosen = known.contracts.iter().filter(|c| glob(name, &c.name)).peekable();
    if chosen.peek().is_none() {
        let names: Vec<&str> = known.contracts.iter().map(|c| c.name.as_str()).collect();
        return Err(format!("there is no contract {name:?}; there are: {}", names.join(" ")));
    }
    Ok(chosen.flat_map(|contract| contract.all(&known.contracts)).collect())
}

struct View<'a, 'd> {
    data: &'d Dataset,
    statement: &'a Statement<'d>,
    /// What decides, once somebody has asked.
    differs_by: OnceCell<Option<&'d str>>,
    /// Whether the statement holds, likewise.
    held: OnceCell<Support<Held>>,
    contracts: &'a HashMap<&'a str, Vec<Assumption>>,
    /// Cases that a kernel lacks the feature for, by the kernel that was named.
    unsupported: HashMap<String, HashSet<String>>,
}

impl<'d> View<'_, 'd> {
    fn holds(&mut self, expr: &Expr, group: &Group<'d>, case: Case<'d>) -> bool {
        match expr {
            Expr::Any(all) => all.iter().any(|expr| self.holds(expr, group, case)),
            Expr::All(all) => all.iter().all(|expr| self.holds(expr, group, case)),
            Expr::Not(expr) => !self.holds(expr, group, case),
            Expr::Term(term) => self.term(term, group, case),
        }
    }

    fn term(&mut self, term: &Term, group: &Group<'d>, case: Case<'d>) -> bool {
        let probe = self.statement.probe;
        let text = term.argument.as_str();
        let has = |place: &str| is_in(text, place);
        match term.name {
            Name::Suite => glob(text, probe.suite()),
            Name::Probe => is_probe(text, probe.name()),
            Name::Fact => glob(text, self.statement.fact),
            Name::Value => group.support.runs().iter().any(|run| glob(text, run.value)),
            Name::Backing | Name::Axis => {
                let (axis, value) = term.axis();
                case.axis(axis).is_some_and(|seen| is_value(axis, value, seen))
            }
            Name::Changed => !group.support.is_constant(),
            Name::Constant => group.support.is_constant(),
            Name::Since | Name::Until | Name::Only => {
                term.version.as_ref().is_some_and(|v| self.turns(term.name, v, &group.support))
            }
            Name::DiffersBy => {
                let statement = self.statement;
                let by = self.differs_by.get_or_init(|| statement.differs_by());
                by.is_some_and(|axis| glob(text, axis))
            }
            Name::Held => {
                let data = self.data;
                let support = self.held.get_or_init(|| probe.support(data));
                support.runs().iter().any(|run| run.value.word() == text)
            }
            Name::Unsupported => {
                term.version.as_ref().is_some_and(|version| self.lacks(version, case))
            }
            Name::Consumer => probe.consumers().iter().any(|consumer| has(consumer)),
            Name::Contract => {
                let all = self.contracts.get(text).into_iter().flatten();
                let mut needs = all.flat_map(|assumption| &assumption.needs);
                let (id, fact) = (case.id(), self.statement.fact);
                needs.any(|need| need.facts.contains_key(fact) && need.takes(&id))
            }
            Name::Text => has(probe.statement()) || has(probe.name()),
        }
    }

    /// Whether some value began, ended or was seen only in a release or series.
    fn turns(&self, name: Name, version: &Which, support: &Support<&str>) -> bool {
        let kernels = self.data.kernels();
        let at = |place: usize| kernels[place].upstream;
        let is_at = |kernel: KernelVersion| match version {
            Which::Series(series) => kernel.series() == *series,
            Which::Release(_) => named(version).is_some_and(|v| v == kernel),
        };
        // A turn between two recorded releases may have come with any release between them.
        let between = |older: KernelVersion, newer: KernelVersion| {
            named(version).is_some_and(|v| older < v && v <= newer)
        };
        support.runs().iter().any(|run| match (name, support.extent(run.value)) {
            (Name::Since, Extent::Since { after, by }) => {
                is_at(at(by)) || between(at(after), at(by))
            }
            (Name::Until, Extent::Until { last, before }) => {
                let later = named(version).is_some_and(|v| at(last) <= v && v < at(before));
                is_at(at(last)) || later
            }
            (Name::Only, Extent::All | Extent::Never) => false,
            (Name::Only, _) => {
                let same = support.runs().iter().filter(|other| other.value == run.value);
                same.flat_map(|run| [run.first, run.last]).all(|place| is_at(at(place)))
            }
            _ => false,
        })
    }

    fn lacks(&mut self, which: &Which, case: Case<'d>) -> bool {
        let key = which.to_string();
        if !self.unsupported.contains_key(&key) {
            let cases = self.statement.probe.cases().filter(|case| {
                let found = which.look_up(self.data, |kernel| case.answer(kernel).map(|o| o.end));
                let lacks = Some(End::Unsupported);
                found.is_ok_and(|all| all.iter().any(|found| found.answer.value == lacks))
            });
            let cases = cases.map(Case::id).collect();
            self.unsupported.insert(key.clone(), cases);
        }
        self.unsupported.get(&key).is_some_and(|cases| cases.contains(&case.id()))
    }
}

/// The version that a kernel's name begins with; of a series its first.
fn named(which: &Which) -> Option<KernelVersion> {
    KernelVersion::parse(&which.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::built_in;
    use rstest::rstest;

    /// Every term is true of something that is recorded, and not of everything.
    #[test]
    fn every_term_tells() {
        let known = built_in();
        let statements = known.data.statements();
        let cases = |text: &str| {
            let query = Query::parse(text).expect("an expression");
            let hits = query.over(&statements, &known).expect("an answer");
            hits.iter().map(|hit| hit.cases.len()).sum::<usize>()
        };
        let terms = [
            "suite(copy)",
            "probe(copy/munmap)",
            "probe(munmap)",
            "fact(waiter)",
            "value(ENOENT)",
            "value(\"(none)\")",
            "backing(anon)",
            "axis(waiter=user-*)",
            "changed",
            "constant",
            "since(6.12)",
            "until(6.1)",
            "only(5.10)",
            "differs_by(backing)",
            "held(unsupported)",
            "unsupported(5.10)",
            "unsupported(5.10.0-30-cloud-amd64)",
            "consumer(qemu)",
            "contract(qemu-postcopy)",
            "text(munmap)",
        ];
        for term in terms {
            let (with, without) = (cases(term), cases(&format!("!{term}")));
            assert!(with > 0 && without > 0, "{term}: {with} with, {without} without");
        }
        let (a, b) = ("suite(copy)", "backing(anon)");
        let [both, any] = ["&", "|"].map(|by| cases(&format!("{a} {by} {b}")));
        assert_eq!(both + any, cases(a) + cases(b));
    }

    #[rstest]
    #[case("contract(nobody)", "qemu-postcopy")]
    #[case("suite(unregistr)", "unregister")]
    #[case("probe(copy/munnmap)", "copy/munmap")]
    #[case("fact(wayter)", "waiter")]
    #[case("backing(teapot)", "shmem")]
    #[case(
        "changed & axis(weiter=vcpu-read)",
        "an axis \"weiter\"; there are, the nearest first: waiter"
    )]
    #[case("axis(waiter=vcpu-raed)", "vcpu-read")]
    #[case("axis(weiter=*)", "waiter")]
    #[case("differs_by(backings)", "backing")]
    #[case("consumer(nobody)", "QEMU")]
    fn what_is_named_must_be_there(#[case] text: &str, #[case] near: &str) {
        let known = built_in();
        let query = Query::parse(text).expect("an expression");
        let error = query.run(&known).err().expect("an error");
        assert!(error.contains(near), "{error}");
    }

    #[rstest]
    #[case("backing(memfd)", "backing(shmem)")]
    #[case("axis(waiter=vcpu)", "axis(waiter=vcpu-*)")]
    #[case("consumer(*QEMU*)", "consumer(qemu)")]
    fn words_that_people_use_mean_the_same(#[case] text: &str, #[case] as_well: &str) {
        let known = built_in();
        let cases = |text: &str| {
            let query = Query::parse(text).expect("an expression");
            let hits = query.run(&known).expect("an answer");
            hits.iter().map(|hit| hit.cases.len()).sum::<usize>()
        };
        assert_eq!(cases(text), cases(as_well));
        assert!(cases(text) > 0);
    }
}
