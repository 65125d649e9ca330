//! Any other case as a picture: the steps of its recipe, each beside the lane of who acts in it, and
//! then what was seen.

use super::Shown;
use super::canvas::{Canvas, LINE};
use maud::{Markup, html};

/// Who acts in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    /// The program that asks: it maps, registers, reads messages, issues ioctls.
    Program,
    /// Somebody else: a thread that waits, a guest, another process.
    Other,
    /// The kernel, whose state is looked at.
    Kernel,
}

/// Where the lanes are, and where text begins.
const LANES: [i32; 3] = [24, 52, 80];
const TEXT: i32 = 104;

impl Actor {
    const ALL: [Self; 3] = [Self::Program, Self::Other, Self::Kernel];

    const fn lane(self) -> i32 {
        match self {
            Self::Program => LANES[0],
            Self::Other => LANES[1],
            Self::Kernel => LANES[2],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Other => "waiter or other actor",
            Self::Kernel => "what is looked at",
        }
    }

    /// The actor of a recipe's step, by the words that recipes begin with.
    fn of(step: &str) -> Self {
        let step = step.trim_start_matches("meanwhile: ").to_ascii_lowercase();
        let begins = |words: &[&str]| words.iter().any(|word| step.starts_with(word));
        let others = [
            "a thread",
            "another thread",
            "each thread",
            "the thread",
            "a second thread",
            "threads",
            "a waiter",
            "the waiter",
            "waiters",
            "a vcpu",
            "the guest",
            "kvm_run",
            "a child",
            "the child",
            "another process",
            "that process",
            "a process",
            "the process",
            "the caller",
            "it parks",
            "it waits",
        ];
        let looks = [
            "look",
            "read registration",
            "read smaps",
            "smaps",
            "read the bits",
            "read fdinfo",
            "read anonhugepages",
            "every page",
            "did it",
            "was it",
            "was the",
            "is it",
            "wait ",
            "when it",
            "while it",
            "what ",
            "who ",
            "count",
            "how ",
            "compare",
        ];
        // `a user-read thread parks`, `3 threads load`.
        let thread = step.split(' ').take(3).any(|word| matches!(word, "thread" | "threads"));
        if begins(&looks) {
            Self::Kernel
        } else if thread || begins(&others) {
            Self::Other
        } else {
            Self::Program
        }
    }

    /// Its mark; each has a shape of its own.
    fn mark(self, x: i32, y: i32) -> Markup {
        html! {
            @match self {
                Self::Program => { rect x=(x - 6) y=(y - 6) width="12" height="12" class="who" {} }
                Self::Other => { circle cx=(x) cy=(y) r="7" class="who other" {} }
                Self::Kernel => { path d=(format!("M{x} {}l8 8l-8 8l-8 -8z", y - 8)) class="who kernel" {} }
            }
        }
    }
}

/// Draws it.
pub(super) fn draw(shown: Shown<'_>) -> Markup {
    let mut canvas = Canvas::default();
    let mut x = LANES[0];
    for actor in Actor::ALL {
        canvas.put(actor.mark(x, 12));
        canvas.put(html! { text x=(x + 14) y="17" class="soft" { (actor.name()) } });
        x += 40 + 7 * i32::try_from(actor.name().len()).unwrap_or(0);
    }
    canvas.y = 32;
    let recipe = shown.case.recipe();
    let (top, mut last): (i32, Option<(i32, i32)>) = (canvas.y, None);
    let mut marks = Vec::new();
    let steps = recipe.iter().map(|step| (Actor::of(step), step.as_str()));
    for (n, (actor, step)) in steps.enumerate() {
        last = Some(place(&mut canvas, &mut marks, last, actor));
        let text = format!("{}. {step}", n + 1);
        canvas.text(TEXT, "", &text);
        canvas.say(text);
        canvas.y += 8;
    }
    place(&mut canvas, &mut marks, last, Actor::Kernel);
    canvas.text(TEXT, "head", "Seen");
    if let Some(ended) = shown.ended() {
        canvas.text(TEXT, "bad", &ended);
        canvas.say(ended);
    }
    let facts: Vec<String> =
        shown.outcome.facts.iter().map(|fact| format!("{}={}", fact.name, fact.value)).collect();
    canvas.text(TEXT, "code", &facts.join("  "));
    canvas.say(format!("Seen: {}.", facts.join(" ")));
    let bottom = canvas.y;
    for lane in LANES {
        canvas.put(html! { path d=(format!("M{lane} {top}V{bottom}")) class="lane" {} });
    }
    for mark in marks {
        canvas.put(mark);
    }
    strips(&mut canvas, shown);
    canvas.svg(&format!("What is done, step by step, and what was seen: {}", shown.case.id()))
}

/// Places the mark of the next step, and a line from the one before.
fn place(
    canvas: &mut Canvas,
    marks: &mut Vec<Markup>,
    last: Option<(i32, i32)>,
    actor: Actor,
) -> (i32, i32) {
    let (x, y) = (actor.lane(), canvas.y + LINE / 2 + 1);
    if let Some((from, above)) = last {
        canvas.put(html! { path d=(format!("M{from} {above}L{x} {y}")) class="way" {} });
    }
    marks.push(actor.mark(x, y));
    (x, y)
}

/// Draws the block as it was found, where the facts have it page by page.
fn strips(canvas: &mut Canvas, shown: Shown<'_>) {
    let places = [("The block then", "reg", "pages"), ("The new place", "new-reg", "new-pages")];
    for (place, reg, pages) in places {
        let (Some(reg), Some(pages)) = (shown.fact(reg), shown.fact(pages)) else { continue };
        let letters =
            |text: &str| (2..=8).contains(&text.len()) && text != "none" && text.is_ascii();
        if !letters(reg) || reg.len() != pages.len() {
            continue;
        }
        canvas.y += 6;
        canvas.text(super::canvas::LEFT, "head", place);
        canvas.y += 2;
        canvas.strip(reg, pages, "kept");
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure;
    use super::*;
    use rstest::rstest;
    use uffd_results::{Facts, Outcome};

    #[rstest]
    #[case("a thread (user-read) accesses page 2 and parks; read its message", Actor::Other)]
    #[case("KVM_RUN: the guest accesses page 2 and waits", Actor::Other)]
    #[case("look at fdinfo and /proc: was the waiter woken?", Actor::Kernel)]
    #[case("3 threads load from page 2", Actor::Other)]
    #[case("a user-read thread parks in a fault of page 2", Actor::Other)]
    #[case("UFFDIO_COPY to page 2; wait for the access to end", Actor::Program)]
    #[case("map and register a block of 6 pages", Actor::Program)]
    fn actors_are_known_by_words(#[case] step: &str, #[case] actor: Actor) {
        assert_eq!(Actor::of(step), actor);
    }

    #[test]
    fn steps_and_facts_are_those_of_the_case() {
        let id = "waiters/signal[backing=anon,waiter=user-read,signal=handled-twice]";
        let case = uffd_suites::cases().into_iter().find(|c| c.id() == id).expect("a case");
        let draw = |facts: &str| {
            let outcome = Outcome::done(Facts::parse(facts).expect("facts"));
            figure(Shown { case: &case, outcome: &outcome }, "7.3").into_string()
        };
        let svg = draw("signal=again handled=2");
        assert!(svg.contains("1. map and register a block") && svg.contains("handled=2"), "{svg}");
        assert!(!svg.contains("The block then"));
        assert!(draw("signal=asleep reg=mm--mm pages=------").contains("The block then"));
    }
}
