//! Costs for people: one kernel's as a table on a terminal, and what to do about a machine that is too
//! noisy.

use std::io::{self, Write};
use uffd_results::bench::{Measured, Operation, Ratio, Sample, Unit};

/// A ratio whose interval is wider than this part of it says little.
const WIDE: f64 = 0.2;
/// A limit of which one call in a hundred costs this many times the usual was disturbed.
const DISTURBED: u64 = 4;

/// A cost with its unit, in at most four digits.
pub fn cost(n: u64, unit: Unit) -> String {
    let (n, words) = match unit {
        Unit::Instructions => (n, ["", "k", "M"]),
        Unit::Nanoseconds => (n, [" ns", " us", " ms"]),
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let value = n as f64;
    match n {
        0..10_000 => format!("{n}{}", words[0]),
        10_000..1_000_000 => format!("{:.1}{}", value / 1e3, words[1]),
        _ => format!("{:.2}{}", value / 1e6, words[2]),
    }
}

/// A ratio with its interval.
fn ratio(ratio: Ratio) -> String {
    let Ratio { low, mid, high } = ratio;
    let mark = if is_wide(ratio) { " ~" } else { "" };
    format!("{mid:.2} ({low:.2}..{high:.2}){mark}")
}

fn is_wide(Ratio { low, mid, high }: Ratio) -> bool {
    high - low > WIDE * mid
}

/// A kernel's costs, a line an operation.
pub fn table(out: &mut dyn Write, measured: &Measured) -> io::Result<()> {
    let Measured { unit, kernel, environment, operations, .. } = measured;
    let width = operations.iter().map(|o| o.id.len()).max().unwrap_or(0);
    let how = &environment.accelerator;
    writeln!(out, "{} {} ({how}), {unit} of a call", kernel.release, kernel.upstream)?;
    let head = ["min", "p50", "p99", "limit p50"].map(|word| format!("{word:>9}")).join(" ");
    writeln!(out, "{:<width$} {head}  times the limit (99 % interval)", "operation")?;
    for operation in operations {
        let Operation { id, sample, limit_sample, limit_missing, missing, .. } = operation;
        let Some(Sample { min, p50, p99, .. }) = sample else {
            writeln!(out, "{id:<width$} {}", missing.as_deref().unwrap_or("no sample"))?;
            continue;
        };
        let cells = [*min, *p50, *p99].map(|n| format!("{:>9}", cost(n, *unit))).join(" ");
        let limit = limit_sample.map_or_else(String::new, |limit| cost(limit.p50, *unit));
        let times = match (operation.ratio, limit_missing) {
            (Some(times), _) => ratio(times),
            (None, Some(why)) => format!("the limit is {why}"),
            (None, None) => String::new(),
        };
        writeln!(out, "{}", format!("{id:<width$} {cells} {limit:>9}  {times}").trim_end())?;
    }
    Ok(())
}

/// What a person should know before believing times, a sentence each. `load` is the machine's load before
/// the run, `cpus` how many CPUs it has.
pub fn noise(measured: &Measured, load: f64, cpus: f64) -> Vec<String> {
    if measured.unit == Unit::Instructions {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    if load > 0.25 * cpus {
        remarks.push(format!(
            "the load was {load:.2} on {cpus} CPUs before the run: end what else runs, and measure again"
        ));
    }
    let of = |wanted: &dyn Fn(&Operation) -> bool| {
        measured.operations.iter().filter(|o| wanted(o)).count()
    };
    let with_ratio = of(&|o| o.ratio.is_some());
    let wide = of(&|o| o.ratio.is_some_and(is_wide));
    if wide * 4 > with_ratio {
        remarks.push(format!(
            "{wide} of {with_ratio} ratios have an interval of more than {:.0} % (marked ~): the machine is \
             noisy; measure more rounds (--rounds), or compare instructions (-k)",
            WIDE * 100.0
        ));
    }
    let disturbed = of(&|o| o.limit_sample.is_some_and(|l| l.p99 > DISTURBED * l.p50));
    if disturbed * 4 > with_ratio {
        remarks.push(format!(
            "{disturbed} of {with_ratio} limits themselves take more than {DISTURBED} times as long once in a \
             hundred calls: p99 tells of the machine here, not of the kernel; a fixed clock rate, an idle \
             host and no hypervisor below help"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;
    use rstest::rstest;

    const COPY: &str = "copy/pages[backing=anon,size=4k]";

    #[rstest]
    #[case(7, Unit::Instructions, "7")]
    #[case(12_345, Unit::Instructions, "12.3k")]
    #[case(1_680, Unit::Nanoseconds, "1680 ns")]
    #[case(1_585_000, Unit::Nanoseconds, "1.58 ms")]
    fn costs_are_short(#[case] n: u64, #[case] unit: Unit, #[case] text: &str) {
        assert_eq!(cost(n, unit), text);
    }

    fn times(low: f64, high: f64, p99: u64) -> Measured {
        let mut run = measured("6.12.43", &[(COPY, 2000)]);
        run.unit = Unit::Nanoseconds;
        run.environment.accelerator = "native".into();
        run.operations[0].ratio = Some(Ratio { low, mid: 2.0, high });
        run.operations[0].limit_sample = Some(Sample { count: 9, min: 900, p50: 1000, p99 });
        run
    }

    #[test]
    fn the_table_has_ratios_and_says_what_is_missing() {
        let mut run = times(1.9, 2.1, 1000);
        let mut lacking = run.operations[0].clone();
        (lacking.sample, lacking.ratio) = (None, None);
        lacking.missing = Some("unsupported: UFFDIO_MOVE".into());
        run.operations.push(lacking);
        let mut text = Vec::new();
        table(&mut text, &run).expect("a Vec takes all");
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.contains("2.00 (1.90..2.10)\n"), "{text}");
        assert!(text.contains("unsupported: UFFDIO_MOVE"), "{text}");
    }

    #[rstest]
    #[case(1.9, 2.1, 1000, 0.1, 0)]
    #[case(1.9, 2.1, 1000, 1.5, 1)]
    #[case(1.0, 3.0, 1000, 0.1, 1)]
    #[case(1.9, 2.1, 9000, 0.1, 1)]
    #[case(1.0, 3.0, 9000, 1.5, 3)]
    fn a_noisy_machine_is_told_of(
        #[case] low: f64,
        #[case] high: f64,
        #[case] p99: u64,
        #[case] load: f64,
        #[case] remarks: usize,
    ) {
        let run = times(low, high, p99);
        let noise = noise(&run, load, 2.0);
        assert_eq!(noise.len(), remarks, "{noise:?}");
    }

    #[test]
    fn instructions_know_no_noise() {
        assert!(noise(&measured("6.12.43", &[(COPY, 2000)]), 9.0, 2.0).is_empty());
    }
}
