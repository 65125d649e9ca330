//! Several pages at once: what is moved before one refuses, what the field says, who is woken.

use super::{
    ART, NEEDS, block, fate, look, map_block, map_source, open, park, ran, relocate, returned,
    says, source_area,
};
use crate::abi::{REGISTER_MODE_MISSING, newer::MOVE_MODE_ALLOW_SRC_HOLES};
use crate::expect::Expected;
use crate::memory::{PAGE, tag};
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Memory, Script, Step, Treat};

static SPAN: Probe = Probe {
    suite: "move",
    name: "span",
    statement: "MOVE of several pages stops at the first that refuses; if any was moved it fails with \
                EAGAIN and stores their length, else it stores the error; only waiters of what was \
                moved are woken.",
    consumers: &[ART],
};
static TAKEN: Probe = Probe {
    suite: "move",
    name: "span-taken",
    statement: "MOVE of several pages onto a range with a page in it stops there: EAGAIN with the \
                length that was moved, or EEXIST; nobody behind it is woken.",
    consumers: &[ART],
};
static OVERLAP: Probe = Probe {
    suite: "move",
    name: "overlap",
    statement: "MOVE within one mapping goes page by page upwards: ranges that overlap work downwards \
                and meet EEXIST upwards.",
    consumers: &[ART],
};

/// Kinds of source pages in a pattern: present, zero page, missing, shared.
const LETTERS: [char; 4] = ['p', 'z', 'm', 's'];

/// The suite's cases about several pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut patterns: Vec<String> = LETTERS.iter().map(ToString::to_string).collect();
    for _ in 0..2 {
        let longer = patterns.iter().flat_map(|p| LETTERS.iter().map(move |l| format!("{p}{l}")));
        patterns = longer.collect();
        for pattern in &patterns {
            for holes in [false, true] {
                for page in [0, pattern.len() - 1] {
                    // Three pages say what two say, but for a refusal between two others.
                    let by_default =
                        pattern.len() == 2 || (matches!(&**pattern, "pmp" | "psp" | "zmz"));
                    let script = pattern_of(pattern.clone(), holes, page);
                    cases.push(Case::trial(&SPAN, script, by_default));
                }
            }
        }
    }
    for count in 2..=4 {
        for taken in 0..count {
            for page in (0..count).filter(|page| *page != taken) {
                cases.push(Case::trial(&TAKEN, onto(count, taken, page), true));
            }
        }
    }
    for from in 0..4 {
        for to in 0..4 {
            for count in 1..=2 {
                cases.push(Case::trial(&OVERLAP, within(from, to, count), true));
            }
        }
    }
    cases
}

fn pattern_of(pattern: String, holes: bool, page: usize) -> Script {
    let count = pattern.len();
    let pages = |letter| {
        let is = move |(_, l): &(usize, char)| *l == letter;
        pattern.chars().enumerate().filter(is).map(|(n, _)| source_area(n, 1)).collect::<Vec<_>>()
    };
    let mut steps = map_block();
    steps.extend(map_source());
    let shared = pages('s');
    steps.extend(shared.iter().map(|page| Step::Fill(*page, tag::NEW)));
    steps.extend(shared.first().map(|page| Step::Prepare(Treat::Fork, *page)));
    steps.extend(pages('p').into_iter().map(|page| Step::Fill(page, tag::NEW)));
    steps.extend(pages('z').into_iter().map(Step::Load));
    steps.extend(open());
    steps.extend(park(Waiter::UserRead, page));
    let mode = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.push(relocate(block(0, count), source_area(0, count), mode));
    steps.extend(look());
    let holes_word = if holes { "allowed" } else { "no" };
    let axes = format!("source={pattern},holes={holes_word},waits={page}");
    Script::new(axes, NEEDS, steps, move |_| expect_pattern(&pattern, holes, page))
}

fn expect_pattern(pattern: &str, holes: bool, page: usize) -> Vec<Expected> {
    let refused = pattern.chars().position(|l| l == 's' || (l == 'm' && !holes));
    let done = refused.unwrap_or(pattern.len());
    let source = |from: usize| {
        let stays = |l| {
            if matches!(l, 'p' | 's') {
                'n'
            } else if l == 'z' {
                '0'
            } else {
                '-'
            }
        };
        pattern.chars().enumerate().map(move |(n, l)| if n < from { '-' } else { stays(l) })
    };
    let (mut facts, says) = match refused {
        None => (returned("0", pattern.len() * PAGE, says::MOVED), says::MOVED),
        Some(0) if pattern.starts_with('s') => (returned("EBUSY", -16, says::EBUSY), says::EBUSY),
        Some(0) => (returned("ENOENT", -2, says::ENOENT), says::ENOENT),
        Some(n) => (returned("EAGAIN", n * PAGE, says::PARTLY), says::PARTLY),
    };
    let letter = pattern.chars().nth(page);
    let (word, why) = match letter {
        _ if page >= done => ("asleep", says),
        Some('m') => ("again", says::HOLES),
        Some('z') => (ran(Waiter::UserRead, "zero"), says),
        _ => (ran(Waiter::UserRead, "new"), says),
    };
    facts.extend(fate(Waiter::UserRead, word, why));
    let moved = pattern.chars().enumerate().map(|(n, l)| match l {
        _ if n >= done => '-',
        'p' => 'n',
        'z' => '0',
        _ => '-',
    });
    let rest = |row: String| format!("{row:-<5}k");
    facts.push(Expected::new("pages", rest(moved.collect()), says));
    facts.push(Expected::new("src-pages", rest(source(done).collect()), says));
    facts
}

fn onto(count: usize, taken: usize, page: usize) -> Script {
    let mut steps = map_block();
    steps.push(Step::Fill(block(taken, 1), tag::KEPT));
    steps.extend(map_source());
    steps.push(Step::Fill(source_area(0, count), tag::NEW));
    steps.extend(open());
    steps.extend(park(Waiter::UserRead, page));
    steps.push(relocate(block(0, count), source_area(0, count), 0));
    steps.extend(look());
    let axes = format!("pages={count},taken={taken},waits={page}");
    Script::new(axes, NEEDS, steps, move |_| {
        let (mut facts, says) = if taken == 0 {
            (returned("EEXIST", -17, says::EEXIST), says::EEXIST)
        } else {
            (returned("EAGAIN", taken * PAGE, says::PARTLY), says::PARTLY)
        };
        let word = if page < taken { "ran:new" } else { "asleep" };
        facts.extend(fate(Waiter::UserRead, word, says));
        let moved = (0..5).map(|n| match n {
            n if n < taken => 'n',
            n if n == taken => 'k',
            _ => '-',
        });
        let stay = (0..5).map(|n| if (taken..count).contains(&n) { 'n' } else { '-' });
        facts.push(Expected::new("pages", format!("{}k", moved.collect::<String>()), says));
        facts.push(Expected::new("src-pages", format!("{}k", stay.collect::<String>()), says));
        facts
    })
}

fn within(from: usize, to: usize, count: usize) -> Script {
    let all = block(0, PAGES);
    let steps = vec![
        Step::Map(all, Memory::Of(Backing::Anon)),
        Step::Fill(block(5, 1), tag::KEPT),
        Step::Fill(block(from, count), tag::NEW),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        relocate(block(to, count), block(from, count), 0),
        Step::Survey(all, "reg", "pages"),
        Step::Touch(Ctx::First, Waiter::UserRead, block(from, 1), "src-touch"),
    ];
    let axes = format!("from={from},to={to},pages={count}");
    Script::new(axes, NEEDS, steps, move |_| {
        let mut row = ['-', '-', '-', '-', '-', 'k'];
        row[from..from + count].fill('n');
        let mut done = 0;
        while done < count && row[to + done] == '-' && row[from + done] == 'n' {
            (row[to + done], row[from + done]) = ('n', '-');
            done += 1;
        }
        let (mut facts, says) = if done == count {
            (returned("0", count * PAGE, says::MOVED), says::MOVED)
        } else if done == 0 {
            (returned("EEXIST", -17, says::EEXIST), says::EEXIST)
        } else {
            (returned("EAGAIN", done * PAGE, says::PARTLY), says::PARTLY)
        };
        facts.push(Expected::new("pages", String::from_iter(row), says));
        let touch = if row[from] == '-' { "parks:read" } else { "ran:new" };
        facts.push(Expected::new("src-touch", touch, says::SOURCE));
        facts
    })
}
