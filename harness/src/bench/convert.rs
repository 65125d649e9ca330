//! From the outcomes of operations, whose facts are ticks, to costs in a unit.

use uffd_results::bench::{Measured, Operation, Ratio, SCHEMA, Sample, Unit};
use uffd_results::{End, Facts, Outcome, Record, Suite};
use uffd_suites::bench::{self, clock};

/// Why ticks are worth nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClockError {
    /// What says what a tick is worth was not measured.
    #[error("{0} was not measured ({1}): without it nobody knows what a tick is worth")]
    Missing(String, String),
    /// The clock does not count instructions.
    #[error(
        "a loop of {instructions} instructions took {ticks:.0} ticks more than none: the clock does not count \
         instructions; use a QEMU whose -icount works (7.2 does)"
    )]
    NotCounting {
        /// How many more instructions the longer loop has.
        instructions: u64,
        /// How many more ticks it took.
        ticks: f64,
    },
}

/// The suite that costs come from: the operations' own revision.
pub fn suite() -> Suite {
    Suite { version: env!("CARGO_PKG_VERSION").into(), revision: bench::REVISION.into() }
}

/// The operations that say what a tick is worth; they are measured with every selection.
pub fn clocks() -> Vec<String> {
    let loops = clock::loops().into_iter().map(|(id, _)| id);
    loops.chain(std::iter::once(clock::MILLISECOND.to_owned())).collect()
}

/// What a record of operations comes to. `cpu` names the machine's, for times.
pub fn measured(
    record: &Record,
    unit: Unit,
    cpu: String,
    rounds: u32,
) -> Result<Measured, ClockError> {
    let tick = match unit {
        Unit::Instructions => instructions_per_tick(record)?,
        Unit::Nanoseconds => 1e6 / f64_of(ticks(record, clock::MILLISECOND)?.p50),
    };
    let clocks = clocks();
    let operations = bench::operations().iter().filter_map(|operation| {
        let outcome = record.cases.get(&operation.id())?;
        Some(convert(operation, outcome, tick)).filter(|o| !clocks.contains(&o.id))
    });
    Ok(Measured {
        schema: SCHEMA,
        kernel: record.kernel.clone(),
        environment: record.environment.clone(),
        suite: suite(),
        unit,
        cpu,
        rounds,
        operations: operations.collect(),
    })
}

/// Two loops of known length say what a tick is worth, and that it is worth the same in both: counts that
/// depend on anything but instructions are refused.
fn instructions_per_tick(record: &Record) -> Result<f64, ClockError> {
    let [(short, few), (long, many)] = clock::loops();
    let more = f64_of(ticks(record, &long)?.min) - f64_of(ticks(record, &short)?.min);
    let instructions = many - few;
    let each = more / f64_of(instructions);
    // A few ticks are the stamps' own.
    if (each - 1.0).abs() > 0.001 {
        return Err(ClockError::NotCounting { instructions, ticks: more });
    }
    Ok(1.0 / each)
}

/// What a turn of the clock's loop takes on this machine, in nanoseconds.
pub fn turn(record: &Record) -> Result<f64, ClockError> {
    let [(short, few), (long, many)] = clock::loops();
    let more = f64_of(ticks(record, &long)?.p50) - f64_of(ticks(record, &short)?.p50);
    let turns = f64_of((many - few) / clock::SPIN);
    Ok(more / turns * 1e6 / f64_of(ticks(record, clock::MILLISECOND)?.p50))
}

fn ticks(record: &Record, id: &str) -> Result<Sample, ClockError> {
    let outcome = record.cases.get(id);
    let sample = outcome.and_then(|outcome| sample(&outcome.facts, "", 1.0));
    let how = || outcome.map_or_else(|| "not asked".to_owned(), Outcome::to_string);
    sample.ok_or_else(|| ClockError::Missing(id.to_owned(), how()))
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one call stay below 2^52")]
fn f64_of(n: u64) -> f64 {
    n as f64
}

fn sample(facts: &Facts, of: &str, tick: f64) -> Option<Sample> {
    let number = |name: &str| facts.get(&format!("{of}{name}"))?.parse::<u64>().ok();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no more than ticks"
    )]
    let cost = |name: &str| number(name).map(|n| (f64_of(n) * tick).round() as u64);
    Some(Sample {
        count: number("count")?,
        min: cost("min")?,
        p50: cost("p50")?,
        p99: cost("p99")?,
    })
}

fn convert(operation: &bench::Operation, outcome: &Outcome, tick: f64) -> Operation {
    let facts = &outcome.facts;
    let done = outcome.end == End::Done;
    let ratio = |name: &str| facts.get(name)?.parse::<f64>().ok();
    let ratio = || {
        let (low, mid, high) = (ratio("ratio-low")?, ratio("ratio")?, ratio("ratio-high")?);
        Some(Ratio { low, mid, high })
    };
    let sample_of = |of| if done { sample(facts, of, tick) } else { None };
    let measured = sample_of("");
    let missing = measured.is_none().then(|| {
        let why: String = uffd_results::printable(&outcome.detail);
        if done { "broken: no costs".to_owned() } else { format!("{}: {why}", outcome.end.word()) }
    });
    Operation {
        id: operation.id(),
        pages: operation.pages,
        several: operation.several,
        sample: measured,
        limit: operation.limit.clone(),
        limit_sample: sample_of("limit-"),
        limit_missing: facts.get("limit-end").map(str::to_owned),
        ratio: if done { ratio() } else { None },
        missing,
    }
}

/// The CPU by its own name.
pub fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// Costs as bytes of their own file, which a reader takes: nothing is stored that can't be read again.
pub fn is_readable(measured: &Measured) -> Result<(), uffd_results::bench::MeasuredError> {
    Measured::read(measured.to_json().as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing;
    use rstest::rstest;
    use uffd_results::Cases;

    const COPY: &str = "copy/pages[backing=anon,size=4k]";

    fn record(costs: &[(&str, &str)]) -> Record {
        let one = |(id, facts): &(&str, &str)| {
            ((*id).to_owned(), Outcome::done(Facts::parse(facts).expect("facts")))
        };
        let Measured { kernel, environment, suite, .. } = testing::measured("6.12.43", &[]);
        let cases = Cases::new(costs.iter().map(one).collect());
        Record { schema: uffd_results::SCHEMA, kernel, environment, suite, by: None, cases }
    }

    #[rstest]
    #[case(100_010, 1_000_010, true)]
    #[case(100_010, 1_001_200, false)]
    #[case(100_010, 3_000_010, false)]
    #[case(1_000_010, 100_010, false)]
    fn only_a_clock_that_counts_instructions_is_believed(
        #[case] short: u64,
        #[case] long: u64,
        #[case] counts: bool,
    ) {
        let [(few, _), (many, _)] = clock::loops();
        let fact = |n: u64| format!("count=4 min={n} p50={n} p99={n}");
        let costs = "count=9 min=3000 p50=3010 p99=4000 limit-count=9 limit-min=1500 limit-p50=1505 \
                     limit-p99=2000 ratio-low=1.9 ratio=2 ratio-high=2.1";
        let record = record(&[(&few, &fact(short)), (&many, &fact(long)), (COPY, costs)]);
        let measured = measured(&record, Unit::Instructions, String::new(), 5);
        assert_eq!(measured.is_ok(), counts, "{measured:?}");
        if let Ok(measured) = measured {
            let [copy] = &measured.operations[..] else { panic!("{measured:?}") };
            assert_eq!(copy.sample, Some(Sample { count: 9, min: 3000, p50: 3010, p99: 4000 }));
            assert_eq!(copy.ratio, Some(Ratio { low: 1.9, mid: 2.0, high: 2.1 }));
            is_readable(&measured).expect("its own text");
        }
    }

    #[test]
    fn ticks_become_nanoseconds_and_what_is_missing_is_said() {
        let mut record = record(&[
            (clock::MILLISECOND, "count=3 min=2900000 p50=3000000 p99=3100000"),
            (COPY, "count=9 min=3000 p50=6000 p99=9000 limit-end=unsupported"),
        ]);
        record.environment.accelerator = "native".into();
        let lacking =
            Outcome::ended(End::Unsupported, "UFFDIO_API does not offer MOVE", Facts::new());
        let cases = record.cases.iter().map(|(id, o)| (id.to_owned(), o.clone()));
        let id = "move/pages[backing=anon,size=4k]".to_owned();
        record.cases = Cases::new(cases.chain([(id, lacking)]).collect());
        let measured = measured(&record, Unit::Nanoseconds, "A CPU".into(), 5).expect("measured");
        let [copy, moved] = &measured.operations[..] else { panic!("{measured:?}") };
        assert_eq!(copy.sample, Some(Sample { count: 9, min: 1000, p50: 2000, p99: 3000 }));
        assert_eq!(copy.limit_missing.as_deref(), Some("unsupported"));
        let why = "unsupported: UFFDIO_API does not offer MOVE";
        assert_eq!((moved.sample, moved.missing.as_deref()), (None, Some(why)));
        is_readable(&measured).expect("its own text");
    }

    #[test]
    fn without_a_clock_there_are_no_costs() {
        let error = measured(&record(&[]), Unit::Nanoseconds, String::new(), 5).expect_err("none");
        assert!(error.to_string().contains("check/clock"), "{error}");
    }
}
