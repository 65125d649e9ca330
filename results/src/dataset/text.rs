//! A dataset as text: what is built into the library. Lines, so that a diff shows what changed;
//! each distinct outcome, and each distinct row of outcomes over the kernels, once.
//!
//! ```text
//! uffd-results data 2
//! kernels 21
//! upstream<TAB>release<TAB>version<TAB>machine<TAB>package<TAB>image<TAB>accelerator<TAB>revision
//! outcomes 2098
//! copy=0 waiter=woken                      facts of a case that ran to its end
//! !hang<TAB>detail<TAB>facts               any other end
//! rows 2181
//! 0*2 17* 4d -                             an outcome a kernel, `*N` for N kernels in a row,
//!                                          `d` if it differs from what is expected, `-` not asked
//! probes 300
//! name<TAB>statement<TAB>consumer<TAB>...  then its cases
//!  axes<TAB>row
//! reasons 500
//! newer<TAB>probe<TAB>fact<TAB>why
//! apart 200
//! case<TAB>fact<TAB>major.minor<TAB>values
//! end
//! ```

use super::{Apart, Cell, Dataset, Probe, Question, Reason, Recorded};
use crate::facts::Facts;
use crate::outcome::{End, Outcome};
use crate::plain::is_plain;
use crate::version::KernelVersion;
use std::fmt::{Display, Write as _};
use std::str::{FromStr, Lines};

const HEAD: &str = "uffd-results data 2";

/// Why a text is not a dataset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DataError {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Dataset {
    /// The text: equal datasets give equal bytes.
    pub fn to_text(&self) -> String {
        let mut out = format!("{HEAD}\nkernels {}\n", self.kernels.len());
        for k in &self.kernels {
            let version = match k.upstream.rc {
                None => k.upstream.to_string(),
                Some(rc) => {
                    format!("{}.{}.{}~rc{rc}", k.upstream.major, k.upstream.minor, k.upstream.patch)
                }
            };
            let maybe = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            let words = [
                version,
                k.release.clone(),
                k.version.clone(),
                k.machine.clone(),
                maybe(&k.package),
                maybe(&k.image_sha256),
                k.accelerator.clone(),
                k.revision.clone(),
            ];
            out += &words.map(|word| plain(&word)).join("\t");
            out.push('\n');
        }
        let _ = writeln!(out, "outcomes {}", self.outcomes.len());
        for Outcome { end, detail, facts } in &self.outcomes {
            let _ = match end {
                End::Done => writeln!(out, "{facts}"),
                _ => writeln!(out, "!{}\t{}\t{facts}", end.word(), plain(detail)),
            };
        }
        let _ = writeln!(out, "rows {}", self.rows.len());
        for row in &self.rows {
            write_row(&mut out, row, &self.outcomes);
        }
        let _ = writeln!(out, "probes {}", self.probes.len());
        for Probe { question, cases } in &self.probes {
            let Question { name, statement, consumers } = question;
            let words = [name, statement].into_iter().chain(consumers);
            out += &words.map(|word| plain(word)).collect::<Vec<_>>().join("\t");
            out.push('\n');
            for (axes, row) in cases {
                let _ = writeln!(out, " {}\t{row}", plain(axes));
            }
        }
        let _ = writeln!(out, "reasons {}", self.reasons.len());
        for Reason { newer, probe, fact, why } in &self.reasons {
            let _ = writeln!(out, "{newer}\t{}\t{}\t{}", plain(probe), plain(fact), plain(why));
        }
        let _ = writeln!(out, "apart {}", self.apart.len());
        for Apart { case, fact, series: (major, minor), value } in &self.apart {
            let [case, fact, value] = [case, fact, value].map(|text| plain(text));
            let _ = writeln!(out, "{case}\t{fact}\t{major}.{minor}\t{value}");
        }
        out.push_str("end\n");
        out
    }

    /// Reads what [`Dataset::to_text`] wrote.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let mut reader = Reader { lines: text.lines(), line: 0 };
        if reader.next()? != HEAD {
            return Err(reader.error(format_args!("it does not begin with {HEAD:?}")));
        }
        let mut data = Self::default();
        for _ in 0..reader.count("kernels")? {
            data.kernels.push(reader.kernel()?);
        }
        if !data.kernels.is_sorted_by(|a, b| a.order() < b.order()) {
            return Err(reader.error("the kernels are not in order"));
        }
        Recorded::label(&mut data.kernels);
        for _ in 0..reader.count("outcomes")? {
            data.outcomes.push(reader.outcome()?);
        }
        for _ in 0..reader.count("rows")? {
            data.rows.push(reader.row(data.kernels.len(), &data.outcomes)?);
        }
        reader.probes(&mut data)?;
        for _ in 0..reader.count("reasons")? {
            data.reasons.push(reader.reason(data.kernels.len())?);
        }
        for _ in 0..reader.count("apart")? {
            data.apart.push(reader.apart()?);
        }
        if !data.apart.is_sorted() {
            return Err(reader.error("what stands apart is not in order"));
        }
        if reader.next()? != "end" || reader.lines.next().is_some() {
            return Err(reader.error("expected the line \"end\" and nothing behind it"));
        }
        Ok(data)
    }
}

/// One field of a line: no tab and no line break in it.
fn plain(text: &str) -> String {
    text.replace(|c: char| !is_plain(c), " ")
}

fn write_row(out: &mut String, row: &[Option<Cell>], outcomes: &[Outcome]) {
    for (i, run) in row.chunk_by(|a, b| a == b).enumerate() {
        out.push_str(if i == 0 { "" } else { " " });
        match run[0] {
            None => out.push('-'),
            Some(Cell { outcome, expected }) => {
                let _ = write!(out, "{outcome}");
                let ended = outcomes.get(outcome as usize).is_some_and(|o| o.end == End::Done);
                out.push_str(if ended && !expected { "d" } else { "" });
            }
        }
        if run.len() > 1 {
            let _ = write!(out, "*{}", run.len());
        }
    }
    out.push('\n');
}

struct Reader<'t> {
    lines: Lines<'t>,
    line: usize,
}

impl<'t> Reader<'t> {
    fn error(&self, what: impl Display) -> DataError {
        DataError { line: self.line, what: what.to_string() }
    }

    fn next(&mut self) -> Result<&'t str, DataError> {
        self.line += 1;
        let line = self.lines.next().ok_or_else(|| self.error("the text ends too early"))?;
        if line.chars().all(|c| c == '\t' || is_plain(c)) {
            Ok(line)
        } else {
            Err(self.error("characters that can't be shown"))
        }
    }

    fn count(&mut self, word: &str) -> Result<usize, DataError> {
        let line = self.next()?;
        let number = line.strip_prefix(word).and_then(|n| n.strip_prefix(' ')?.parse().ok());
        number.ok_or_else(|| self.error(format_args!("expected {word:?} and a number")))
    }

    fn number<T: FromStr>(&self, text: &str) -> Result<T, DataError> {
        text.parse().map_err(|_| self.error(format_args!("{text:?} is not a number that fits")))
    }

    fn fields<const N: usize>(&self, line: &'t str) -> Result<[&'t str; N], DataError> {
        let fields: Vec<&str> = line.split('\t').collect();
        fields.try_into().map_err(|_| self.error(format_args!("expected {N} fields between tabs")))
    }

    fn kernel(&mut self) -> Result<Recorded, DataError> {
        let line = self.next()?;
        let [upstream, release, version, machine, package, image, accelerator, revision] =
            self.fields(line)?;
        let maybe = |text: &str| (text != "-").then(|| text.to_owned());
        Ok(Recorded {
            label: String::new(),
            upstream: KernelVersion::parse(upstream).map_err(|e| self.error(e))?,
            release: release.to_owned(),
            version: version.to_owned(),
            machine: machine.to_owned(),
            package: maybe(package),
            image_sha256: maybe(image),
            accelerator: accelerator.to_owned(),
            revision: revision.to_owned(),
        })
    }

    fn outcome(&mut self) -> Result<Outcome, DataError> {
        let line = self.next()?;
        let facts = |text| Facts::parse(text).map_err(|e| self.error(e));
        let Some(ended) = line.strip_prefix('!') else { return Ok(Outcome::done(facts(line)?)) };
        let [word, detail, seen] = self.fields(ended)?;
        let end = End::from_word(word).filter(|end| *end != End::Done);
        let end = end.ok_or_else(|| self.error(format_args!("{word:?} is no way to end")))?;
        Ok(Outcome::ended(end, detail, facts(seen)?))
    }

    fn row(
        &mut self,
        kernels: usize,
        outcomes: &[Outcome],
    ) -> Result<Vec<Option<Cell>>, DataError> {
        let mut row = Vec::with_capacity(kernels);
        for word in self.next()?.split(' ').filter(|word| !word.is_empty()) {
            let (cell, times) = word.split_once('*').unwrap_or((word, "1"));
            let times: usize = self.number(times)?;
            let cell = if cell == "-" { None } else { Some(self.cell(cell, outcomes)?) };
            if times > kernels - row.len() {
                return Err(self.error(format_args!("more than {kernels} kernels")));
            }
            row.resize(row.len() + times, cell);
        }
        if row.len() == kernels { Ok(row) } else { Err(self.error("fewer outcomes than kernels")) }
    }

    fn cell(&self, text: &str, outcomes: &[Outcome]) -> Result<Cell, DataError> {
        let (number, expected) = text.strip_suffix('d').map_or((text, true), |n| (n, false));
        let outcome: u32 = self.number(number)?;
        match outcomes.get(outcome as usize) {
            None => Err(self.error(format_args!("there is no outcome {outcome}"))),
            Some(Outcome { end, .. }) if !expected && *end != End::Done => {
                Err(self.error(format_args!("outcome {outcome} has no facts that could differ")))
            }
            Some(_) => Ok(Cell { outcome, expected }),
        }
    }

    fn probes(&mut self, data: &mut Dataset) -> Result<(), DataError> {
        let probes = self.count("probes")?;
        // The cases of the last probe end where the next section begins.
        while let Some(line) = self.lines.clone().next() {
            if let Some(case) = line.strip_prefix(' ') {
                self.next()?;
                let [axes, row] = self.fields(case)?;
                let row: u32 = self.number(row)?;
                let Some(probe) =
                    data.probes.last_mut().filter(|_| (row as usize) < data.rows.len())
                else {
                    return Err(self.error("a case without a probe, or whose row does not exist"));
                };
                if probe.cases.last().is_some_and(|(last, _)| last.as_str() >= axes) {
                    return Err(self.error("the cases are not in order"));
                }
                probe.cases.push((axes.to_owned(), row));
            } else if data.probes.len() < probes {
                let mut words = self.next()?.split('\t').map(str::to_owned);
                let (name, statement) = (words.next(), words.next());
                let (Some(name), Some(statement)) = (name, statement) else {
                    return Err(self.error("expected a probe's name and statement"));
                };
                if data.probes.last().is_some_and(|last| last.question.name >= name) {
                    return Err(self.error("the probes are not in order"));
                }
                let question = Question { name, statement, consumers: words.collect() };
                data.probes.push(Probe { question, cases: Vec::new() });
            } else {
                break;
            }
        }
        if data.probes.len() == probes { Ok(()) } else { Err(self.error("fewer probes than said")) }
    }

    fn apart(&mut self) -> Result<Apart, DataError> {
        let line = self.next()?;
        let [case, fact, series, value] = self.fields(line)?;
        let Some((major, minor)) = series.split_once('.') else {
            return Err(self.error(format_args!("{series:?} is no series")));
        };
        let series = (self.number(major)?, self.number(minor)?);
        let [case, fact, value] = [case, fact, value].map(str::to_owned);
        Ok(Apart { case, fact, series, value })
    }

    fn reason(&mut self, kernels: usize) -> Result<Reason, DataError> {
        let line = self.next()?;
        let [newer, probe, fact, why] = self.fields(line)?;
        let newer = self.number(newer)?;
        if newer >= kernels {
            return Err(self.error(format_args!("there is no kernel {newer}")));
        }
        let [probe, fact, why] = [probe, fact, why].map(str::to_owned);
        Ok(Reason { newer, probe, fact, why })
    }
}
