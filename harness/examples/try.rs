use std::time::{Duration, Instant};
use uffd_harness::{environment::Uname, judge::judge, runner::*};
fn main() {
    let pat = std::env::args().nth(1).unwrap_or_default();
    let n: usize = std::env::args().nth(2).map_or(2, |s| s.parse().unwrap());
    let rep: u32 = std::env::args().nth(3).map_or(1, |s| s.parse().unwrap());
    let cases: Vec<_> = uffd_suites::cases()
        .into_iter()
        .filter(|c| c.by_default && c.id().contains(&pat))
        .collect();
    let k = Uname::read().unwrap().upstream().unwrap();
    let t = Instant::now();
    let mut counts = std::collections::BTreeMap::new();
    Pool::new(n, Limits { deadline: Duration::from_secs(10), repeat: rep })
        .run(&cases, &mut |i, o| {
            let j = judge(&cases[i], &o, k);
            *counts.entry(j.verdict.word()).or_insert(0) += 1;
            if std::env::var_os("PRE").is_some() && j.verdict.word() == "precondition" {
                println!("{} {}", cases[i].id(), o);
            }
            if j.verdict.is_trouble() || !pat.is_empty() && rep == 1 {
                println!(
                    "{} {}\n   {}\n   {:?}",
                    j.verdict,
                    cases[i].id(),
                    o,
                    j.differences
                        .iter()
                        .map(|d| (d.expected.fact, d.expected.value.clone(), d.seen.clone()))
                        .collect::<Vec<_>>()
                );
            }
        })
        .unwrap();
    println!("{} cases {:?} {:?}", cases.len(), counts, t.elapsed());
}
