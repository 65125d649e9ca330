// Answers lines of "release, machine or -, case, fact" between tabs, a line each.
mod uffd_conform;

use uffd_conform::{Certainty, lookup, lookup_on};

fn main() {
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let fields: Vec<&str> = line.split('\t').collect();
        let answer = match fields[1] {
            "-" => lookup(fields[0], fields[2], fields[3]),
            machine => lookup_on(fields[0], Some(machine), fields[2], fields[3]),
        };
        let sure = match answer.certainty {
            Certainty::Unknown => "unknown",
            Certainty::BetweenSeries => "between series",
            Certainty::WithinSeries => "within series",
            Certainty::Exact => "exact",
        };
        let (first, last) = answer.rests_on.unwrap_or(("-", "-"));
        let (value, why) = (answer.value.unwrap_or("-"), answer.why.unwrap_or("-"));
        println!("{value}\t{sure}\t{why}\t{first}\t{last}");
    }
}
