//! `bench --self-check`: whether a delay of known length is found with its size.

use super::{Exit, Format, json, out};
use crate::bench::{check, convert};
use anyhow::{Context, Result};
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;
use uffd_results::Record;
use uffd_results::bench::{Measured, Unit};

/// How often it is looked for in time: a CPU that others use, or that changes its speed, is none of our faults.
const TRIES: u32 = 8;

/// Before the `n`th try: what has disturbed one of them disturbs what follows at once.
fn pause(n: u32) -> Duration {
    Duration::from_secs(1 << n.min(4) >> 1)
}

/// Looks for it until it is found, in what `measure` measures anew for each try, [with a turn](with_turn).
pub(super) fn in_time(
    format: Format,
    measure: impl Fn() -> Result<(Measured, f64)>,
) -> Result<Exit> {
    let mut rounds = Vec::new();
    let mut exit = Exit::Nothing;
    for n in 0..TRIES {
        sleep(pause(n));
        let round = measure().and_then(|run| {
            rounds.push(run);
            judge(&rounds, format)
        });
        match round {
            Ok(Exit::Expected) => return Ok(Exit::Expected),
            Ok(other) => exit = other,
            Err(error) if n + 1 < TRIES || exit != Exit::Nothing => {
                out::note(&format!("this try counts for nothing: {error:#}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

/// Looks for it in one run.
pub(super) fn once(run: &(Measured, Record), format: Format) -> Result<Exit> {
    judge(&[with_turn(run)?], format)
}

/// A run with what a turn of the delay's loop takes.
pub(super) fn with_turn((measured, record): &(Measured, Record)) -> Result<(Measured, f64)> {
    let turn = match measured.unit {
        Unit::Instructions => check::instructions_of_a_turn(),
        Unit::Nanoseconds => convert::turn(record)?,
    };
    Ok((measured.clone(), turn))
}

/// Says what the last round has found, or all of them together if that is nearer.
fn judge(rounds: &[(Measured, f64)], format: Format) -> Result<Exit> {
    let Some(last @ (measured, _)) = rounds.last() else { return Ok(Exit::Nothing) };
    let found = [check::delay(std::slice::from_ref(last)), check::delay(rounds)];
    let nearest = found.into_iter().flatten().min_by(|a, b| a.off().total_cmp(&b.off()));
    let found = nearest.with_context(|| {
        let why = measured.operations.iter().find_map(|o| o.missing.clone());
        format!("the round trips with a delay were not measured: {}", why.unwrap_or_default())
    })?;
    let exit = if found.holds() { Exit::Expected } else { Exit::Different };
    let mut out = out::stdout();
    if format == Format::Jsonl {
        json::delay(&mut out, measured, &found)?;
        return Ok(exit);
    }
    let check::Found { put_in, found: seen, tolerance } = found;
    let (release, unit, off) = (&measured.kernel.release, measured.unit, found.off());
    let word = if found.holds() { "found" } else { "missed" };
    writeln!(
        out,
        "{release}: a delay of {put_in:.0} {unit} in the handler is {word}: {seen:.0}, {off:.1} % off \
         ({tolerance} % allowed)"
    )?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let seconds: Vec<u64> = (0..TRIES).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 8, 8, 8]);
    }

    /// A try that fails, as where a clock was not measured, is followed by others.
    #[test]
    fn a_try_that_fails_is_none() {
        let tries = std::cell::Cell::new(0);
        let exit = in_time(Format::Jsonl, || {
            tries.set(tries.get() + 1);
            anyhow::ensure!(tries.get() > 1, "it was disturbed");
            let [(without, _), (with, _)] = uffd_suites::bench::delays();
            let run = measured("6.12.43", &[(&without, 9000), (&with, 409_000)]);
            Ok((run, check::instructions_of_a_turn()))
        });
        assert_eq!((exit.expect("it is judged"), tries.get()), (Exit::Expected, 2));
    }
}
