//! What all pages read: records, the table they make, the suite's cases, contracts and notes.

use crate::known::Known;
use crate::notes::Note;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uffd_results::{Assumption, Breach, Contract, Dataset, Kept, Record, Recorded, Statement};
use uffd_suites::probe::{Case, Probe};

/// Kernels of one series, by their places among the dataset's.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// `6.12`.
    pub(super) name: String,
    /// The kernels, from the oldest to the newest.
    pub(super) kernels: Vec<usize>,
}

/// A probe of the suite that was recorded.
#[derive(Debug)]
pub(super) struct Question {
    /// The probe.
    pub(super) probe: &'static Probe,
    /// `suite/name`.
    pub(super) name: String,
    /// The recorded cases, in the suite's order.
    pub(super) cases: Vec<Case>,
    /// The contracts that are decided by one of its cases, by name.
    pub(super) contracts: BTreeSet<String>,
    /// Whether kernels differ in one of its facts.
    pub(super) changes: bool,
}

/// What a program assumes, and which kernels keep it.
#[derive(Debug)]
pub(super) struct Assumed {
    /// The assumption.
    pub(super) assumption: Assumption,
    /// Whether each kernel keeps it; `None` where no case answered.
    pub(super) kept: Vec<Option<Kept>>,
    /// The probes whose cases decide it.
    pub(super) probes: BTreeSet<String>,
    /// Where it is broken: the kernel and the first case that breaks it there.
    pub(super) breaches: Vec<(usize, Breach)>,
}

/// Everything that pages are made of.
#[derive(Debug)]
pub(super) struct World<'a> {
    /// The records, from the oldest kernel to the newest: the order of the dataset's kernels.
    pub(super) records: &'a [Record],
    /// What they make.
    pub(super) data: &'a Dataset,
    /// What programs assume.
    pub(super) contracts: &'a [Contract],
    /// What they come to on every kernel, by the names of their contracts, worst consequence first.
    pub(super) assumed: BTreeMap<&'a str, Vec<Assumed>>,
    /// What explains what is odd.
    pub(super) notes: &'a [Note],
    /// The series.
    pub(super) series: Vec<Series>,
    /// The probes, in the suite's order.
    pub(super) questions: Vec<Question>,
    /// The facts of each probe over all kernels, by the probe's name.
    statements: HashMap<&'a str, Vec<Statement<'a>>>,
}

impl<'a> World<'a> {
    /// Puts together what pages read.
    pub(super) fn of(records: &'a [Record], known: &'a Known, notes: &'a [Note]) -> Self {
        let (data, contracts) = (&known.data, known.contracts.as_slice());
        let mut statements: HashMap<&str, Vec<Statement<'_>>> = HashMap::new();
        for statement in data.statements() {
            statements.entry(statement.probe.name()).or_default().push(statement);
        }
        let assumed = assumed(data, contracts);
        let questions = questions(data, &assumed, &statements);
        let series = series(data.kernels());
        Self { records, data, contracts, assumed, notes, series, questions, statements }
    }

    /// The kernels.
    pub(super) fn kernels(&self) -> &'a [Recorded] {
        self.data.kernels()
    }

    /// The record of a kernel, by its place.
    pub(super) fn record(&self, kernel: usize) -> Option<&'a Record> {
        let release = &self.kernels().get(kernel)?.release;
        self.records.iter().find(|record| record.kernel.release == *release)
    }

    /// The facts of a probe over all kernels, in the order of observation.
    pub(super) fn statements(&self, probe: &str) -> &[Statement<'a>] {
        self.statements.get(probe).map_or(&[], Vec::as_slice)
    }

    /// The suites that have recorded probes, in the suite's order.
    pub(super) fn suites(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for question in &self.questions {
            if !names.contains(&question.probe.suite) {
                names.push(question.probe.suite);
            }
        }
        names
    }
}

fn series(kernels: &[Recorded]) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for (at, kernel) in kernels.iter().enumerate() {
        let name = kernel.upstream.series();
        match series.last_mut() {
            Some(last) if last.name == name => last.kernels.push(at),
            _ => series.push(Series { name, kernels: vec![at] }),
        }
    }
    series
}

fn assumed<'a>(data: &Dataset, contracts: &'a [Contract]) -> BTreeMap<&'a str, Vec<Assumed>> {
    let of = |assumption: Assumption| {
        let bound = assumption.bind(data);
        let kernels = 0..data.kernels().len();
        let breaches =
            kernels.clone().filter_map(|at| Some((at, bound.breaches(at).into_iter().next()?)));
        Assumed {
            kept: kernels.clone().map(|at| bound.kept(at)).collect(),
            probes: bound.cases().map(|(case, _)| case.probe().name().to_owned()).collect(),
            breaches: breaches.collect(),
            assumption: assumption.clone(),
        }
    };
    let all = |contract: &Contract| contract.all(contracts).into_iter().map(of).collect();
    contracts.iter().map(|contract| (contract.name.as_str(), all(contract))).collect()
}

fn questions(
    data: &Dataset,
    assumed: &BTreeMap<&str, Vec<Assumed>>,
    statements: &HashMap<&str, Vec<Statement<'_>>>,
) -> Vec<Question> {
    let changes =
        |name: &str| statements.get(name).is_some_and(|all| all.iter().any(Statement::changes));
    let mut asked: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, assumed) in assumed {
        for probe in assumed.iter().flat_map(|assumed| &assumed.probes) {
            asked.entry(probe).or_default().insert((*name).to_owned());
        }
    }
    let (mut questions, mut places): (Vec<Question>, HashMap<String, usize>) = Default::default();
    for case in uffd_suites::cases() {
        if data.case(&case.id()).is_none() {
            continue;
        }
        let name = case.probe.to_string();
        let at = *places.entry(name.clone()).or_insert_with(|| {
            questions.push(Question {
                probe: case.probe,
                contracts: asked.get(name.as_str()).cloned().unwrap_or_default(),
                changes: changes(&name),
                cases: Vec::new(),
                name,
            });
            questions.len() - 1
        });
        questions[at].cases.push(case);
    }
    questions
}

impl Question {
    /// The values that an axis has in its cases, each once.
    pub(super) fn values(&self, axis: &str) -> BTreeSet<String> {
        let value = |case: &Case| {
            let all = case.axes();
            let mut pairs = all.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == axis).map(|(_, value)| value.to_owned())
        };
        self.cases.iter().filter_map(value).collect()
    }
}
