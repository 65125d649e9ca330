//! Words: facts, release strings, filters, sequences.

use super::{Held, must, plain, same};
use crate::cli::which::Which;
use crate::kernels;
use std::sync::LazyLock;
use uffd_results::{
    Dataset, Facts, KernelVersion, Outcome, Release, glob, id_matches, is_case_id, is_plain,
};
use uffd_suites::explore::Sequence;

/// Facts and outcomes are what their own text gives again, and are words that can be shown.
pub(super) fn outcome(bytes: &[u8]) -> Held {
    let text = String::from_utf8_lossy(bytes);
    let facts = Facts::parse(&text);
    if let Ok(facts) = &facts {
        let words = facts.to_string();
        plain("facts", &words)?;
        same("facts", &Facts::parse(&words).as_ref(), &Ok(facts))?;
    }
    let outcome = serde_json::from_str::<Outcome>(&text);
    if let Ok(outcome) = &outcome {
        plain("an outcome", &outcome.to_string())?;
        must(!outcome.to_string().contains('\n'), || format!("{outcome} has several lines"))?;
        let json = serde_json::to_string(outcome).map_err(|e| e.to_string())?;
        let again: Outcome = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        same("an outcome", &again, outcome)?;
    }
    Ok(facts.is_ok() || outcome.is_ok())
}

/// The first line is `uname -r`, the second `uname -v`, the third a machine, the last three are versions
/// of packages.
pub(super) fn release(bytes: &[u8]) -> Held {
    const CASE: &str = "copy/unchanged[backing=anon,waiter=user-read,msg=read]";
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let line = |n: usize| lines.get(n).copied().unwrap_or_default();
    let version = KernelVersion::parse(line(0).trim_ascii());
    if let Ok(version) = version {
        same("a version", &KernelVersion::parse(&version.to_string()), &Ok(version))?;
    }
    let release = Release::parse(line(0));
    if let Ok(release) = &release {
        must(version.is_ok(), || format!("{release} has no version"))?;
        plain("a release", release.as_str())?;
        same("a release", &Release::parse(release.as_str()).as_ref(), &Ok(release))?;
        let more = release.clone().with_version(line(1)).on_machine(line(2));
        // Whatever it is, the library has an answer or says why it has none.
        let _ = Dataset::recorded().fact(CASE, "copy", &more);
    }
    let last = lines.len().saturating_sub(3);
    kernels::foreign::order(line(last), line(last + 1), line(last + 2))?;
    Ok(release.is_ok())
}

/// The first line is a filter or the name of a kernel, the second a text to be matched.
pub(super) fn filter(bytes: &[u8]) -> Held {
    static IDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let cases = Dataset::recorded().cases().step_by(97);
        cases.map(uffd_results::Case::id).collect()
    });
    let text = String::from_utf8_lossy(bytes);
    let (pattern, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if pattern.len() * rest.len() < 1 << 16 {
        same("a match", &glob(pattern, rest), &slow_glob(pattern.as_bytes(), rest.as_bytes()))?;
    }
    let found = IDS.iter().filter(|id| id_matches(pattern, id)).count();
    let within = IDS.iter().filter(|id| id_matches(&format!("*{pattern}*"), id)).count();
    must(found <= within, || format!("{pattern:?} finds {found}, with stars {within}"))?;
    if is_case_id(rest) {
        let parts = rest.split(['[', ',', '=']).all(|part| part != "..");
        must(parts && rest.chars().all(is_plain), || format!("{rest:?} is no id"))?;
    }
    let which = pattern.parse::<Which>();
    if let Ok(which) = &which {
        plain("a name", &which.to_string())?;
        let again = which.to_string().parse::<Which>();
        same("a name", &format!("{again:?}"), &format!("{:?}", Ok::<_, ()>(which)))?;
    }
    let chosen = kernels::foreign::chosen(pattern)?;
    Ok(found > 0 || glob(pattern, rest) || which.is_ok() || chosen)
}

/// The same as [`glob`] by the book: which beginnings of the text each beginning of the pattern matches.
fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut matched = vec![false; text.len() + 1];
    matched[0] = true;
    for &p in pattern {
        let mut next = vec![false; text.len() + 1];
        for n in 0..=text.len() {
            next[n] = match p {
                b'*' => matched[n] || (n > 0 && next[n - 1]),
                _ => n > 0 && matched[n - 1] && (p == b'?' || p == text[n - 1]),
            };
        }
        matched = next;
    }
    matched[text.len()]
}

/// A sequence is what its own text gives again, can be shown, and has a sentence a step.
pub(super) fn sequence(bytes: &[u8]) -> Held {
    let text = String::from_utf8_lossy(bytes);
    let Ok(sequence) = text.parse::<Sequence>() else { return Ok(false) };
    let own = sequence.to_string();
    plain("a sequence", &own)?;
    same("a sequence", &own.parse::<Sequence>().as_ref(), &Ok(&sequence))?;
    same("sentences", &sequence.recipe().len(), &sequence.steps().len())?;
    sequence.recipe().iter().try_for_each(|sentence| plain("a sentence", sentence))?;
    must(sequence.cost() >= 1000 && !sequence.candidate().is_empty(), || own)?;
    Ok(true)
}
