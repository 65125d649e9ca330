//! A point of the grid as a picture: its block before, the change, the operation, and the block, its
//! new place and its waiter afterwards, as the facts have them.

use super::Shown;
use super::canvas::{Canvas, HEIGHT, LEFT, PAGE, WIDTH, arrow, left, page_in_words};
use crate::ask::say;
use maud::html;
use std::ops::Range;
use uffd_results::Outcome;
use uffd_suites::point::{
    Change, Discard, GROWN, Mode, Op, Over, PAGES, Part, Point, Remap, SHRUNK, Waiter,
};

/// Draws it.
pub(super) fn draw(shown: Shown<'_>, point: Point) -> maud::Markup {
    let mut canvas = Canvas::default();
    let steps = Steps::of(shown.case.recipe(), point);
    before(&mut canvas, &steps, point);
    let patch = change(&mut canvas, &steps, point);
    operation(&mut canvas, &steps, shown);
    after(&mut canvas, shown, point, patch);
    fate(&mut canvas, shown, point);
    canvas.svg(&format!("The block before and after: {}", shown.case.id()))
}

/// The sentences of a point's recipe, by what they are about.
#[derive(Debug, Default)]
struct Steps {
    ground: Vec<String>,
    waiter: Vec<String>,
    change: Option<String>,
    op: Option<String>,
}

impl Steps {
    fn of(recipe: Vec<String>, point: Point) -> Self {
        let waits = if point.waiter == Waiter::None { 0 } else { 2 };
        let mut steps = recipe.into_iter();
        let ground = match point.mode {
            Mode::Missing => 2,
            Mode::Wp => 4,
            Mode::Minor => 3,
        };
        Self {
            ground: steps.by_ref().take(ground).collect(),
            waiter: steps.by_ref().take(waits).collect(),
            change: if point.change == Change::None { None } else { steps.next() },
            op: if point.op == Op::Look { None } else { steps.next() },
        }
    }
}

fn before(canvas: &mut Canvas, steps: &Steps, point: Point) {
    canvas.text(LEFT, "head", "Before");
    canvas.text(LEFT, "", &format!("{}.", steps.ground.join("; ")));
    canvas.say(format!("Before: {}.", steps.ground.join("; ")));
    let page = point.change.page();
    if let [who, message] = steps.waiter.as_slice() {
        canvas.text(LEFT, "", &format!("{who}; {message}."));
        canvas.say(format!("{who}; {message}."));
        canvas.y += 6;
        figure(canvas, page, point.waiter, true);
    } else {
        canvas.y += 8;
    }
    let letter = match point.mode {
        Mode::Missing => "m",
        Mode::Wp => "w",
        Mode::Minor => "i",
    };
    let holds = |n: usize| match point.mode {
        Mode::Wp if n == page => 'k',
        _ if n == page + 1 => 'k',
        _ => '-',
    };
    canvas.strip(&letter.repeat(PAGES), &(0..PAGES).map(holds).collect::<String>(), "data");
}

/// Draws who waits, above the page where it waits.
fn figure(canvas: &mut Canvas, page: usize, waiter: Waiter, asleep: bool) {
    let (x, y) = (left(page) + PAGE / 2, canvas.y);
    let is_vcpu = waiter.vcpu().is_some();
    canvas.put(html! {
        @if is_vcpu {
            rect x=(x - 11) y=(y + 2) width="22" height="22" rx="3" class="who" {}
            path d=(format!("M{} {}v-4m10 0v4M{} {}v4m10 0v-4", x - 5, y + 2, x - 5, y + 24)) class="limb" {}
        } @else {
            circle cx=(x) cy=(y + 6) r="6" class="who" {}
            path d=(format!("M{x} {}v11M{} {}h16", y + 12, x - 8, y + 16)) class="limb" {}
        }
        @if asleep { text x=(x + 16) y=(y + 14) class="mark" { "z z z" } }
    });
    canvas.y += 26;
    canvas.put(arrow(&format!("M{x} {}v12", canvas.y)));
    canvas.y += 16;
}

/// Pages that a change concerns, and what is written over them.
fn concerned(change: Change) -> Option<(Range<usize>, &'static str)> {
    Some(match change {
        Change::None => return None,
        Change::Munmap(part) => (part.pages(), "unmapped"),
        Change::MmapOver(part, over) => {
            let what = match over {
                Over::Anon => "anonymous",
                Over::Shared => "other memfd",
                Over::ProtNone => "PROT_NONE",
                Over::File => "a file",
                Over::Same => "the same again",
            };
            (part.pages(), what)
        }
        Change::Mremap(how) => match how {
            Remap::Move => (0..PAGES, "moves away"),
            Remap::MovePart => (Part::Middle.pages(), "moves away"),
            Remap::Grow => (PAGES..GROWN, "grows"),
            Remap::Shrink => (SHRUNK..PAGES, "is cut off"),
            Remap::MoveGrow => (0..PAGES, "moves away and grows"),
            Remap::MoveShrink => (0..PAGES, "moves away and is cut"),
            Remap::Onto => (0..PAGES, "other memory is moved here"),
            Remap::DontUnmap => (0..PAGES, "its pages move away, the mapping stays"),
        },
        Change::Discard(how) => {
            let what = match how {
                Discard::DontNeed => "DONTNEED",
                Discard::Remove => "REMOVE",
                Discard::Punch => "punched",
            };
            (Part::Middle.pages(), what)
        }
    })
}

/// Draws the change, and gives where an arrow to a new place begins.
fn change(canvas: &mut Canvas, steps: &Steps, point: Point) -> Option<(i32, i32)> {
    let (pages, what) = concerned(point.change)?;
    let (x, end) = (left(pages.start), left(pages.end));
    let class = match point.change {
        Change::MmapOver(..) | Change::Mremap(Remap::Onto | Remap::Grow) => "patch new",
        _ => "patch",
    };
    let y = canvas.y + 2;
    canvas.put(html! {
        rect x=(x) y=(y) width=(end - x) height="26" rx="4" class=(class) {}
        text x=(i32::midpoint(x, end)) y=(y + 18) class="mid" { (what) }
    });
    canvas.y += 32;
    canvas.text(LEFT, "head", "The change");
    let text = steps.change.clone().unwrap_or_default();
    canvas.text(LEFT, "", &format!("{text}."));
    canvas.say(format!("The change: {text}."));
    point.change.new_window().map(|_| (end, y + 13))
}

fn operation(canvas: &mut Canvas, steps: &Steps, shown: Shown<'_>) {
    let rc = shown.fact("change").filter(|rc| *rc != "0");
    if let Some(errno) = rc {
        canvas.text(LEFT, "bad", &format!("It failed with {errno}."));
    }
    let Some(op) = &steps.op else { return };
    let text = format!("then {op}.");
    canvas.text(LEFT, "", &text);
    canvas.say(text);
}

/// Draws the block, and its new place if there is one, as it was found.
fn after(canvas: &mut Canvas, shown: Shown<'_>, point: Point, patch: Option<(i32, i32)>) {
    canvas.y += 4;
    canvas.text(LEFT, "head", "After");
    if let Some(ended) = shown.ended() {
        canvas.text(LEFT, "bad", &ended);
        canvas.say(ended);
    }
    let waits = ["waiter", "rescued"].iter().any(|f| shown.fact(f) == Some("asleep"));
    if point.waiter != Waiter::None && shown.fact("waiter").is_some() {
        canvas.y += 6;
        figure(canvas, point.change.page(), point.waiter, waits);
    } else {
        canvas.y += 6;
    }
    for (place, reg, pages) in
        [("After, the block's place", "reg", "pages"), ("The new place", "new-reg", "new-pages")]
    {
        let (Some(reg), Some(pages)) = (shown.fact(reg), shown.fact(pages)) else { continue };
        if let (Some((x, y)), "The new place") = (patch, place) {
            let to = canvas.y + HEIGHT / 2 + 20;
            let end = left(reg.chars().count());
            canvas.put(arrow(&format!("M{x} {y}H{edge}V{to}H{end}", edge = WIDTH - 8)));
            canvas.text(LEFT, "head", place);
            canvas.y += 2;
        }
        canvas.strip(reg, pages, "kept");
        canvas.say(format!("{place}: {}.", in_words(reg, pages)));
    }
}

/// A strip as a sentence: `pages 0, 1 registered for missing pages, nothing present; page 2 ...`.
fn in_words(reg: &str, pages: &str) -> String {
    let mut runs: Vec<(String, Vec<String>)> = Vec::new();
    for (n, (reg, holds)) in reg.chars().zip(pages.chars()).enumerate() {
        let words = page_in_words(reg, holds);
        match runs.iter_mut().find(|(known, _)| *known == words) {
            Some((_, pages)) => pages.push(n.to_string()),
            None => runs.push((words, vec![n.to_string()])),
        }
    }
    let run = |(words, pages): &(String, Vec<String>)| {
        let noun = if pages.len() == 1 { "page" } else { "pages" };
        format!("{noun} {}: {words}", pages.join(", "))
    };
    runs.iter().map(run).collect::<Vec<_>>().join("; ")
}

/// Says what the operation returned and what became of the waiter.
fn fate(canvas: &mut Canvas, shown: Shown<'_>, point: Point) {
    let Outcome { end, detail, facts } = shown.outcome;
    let facts = facts.iter().map(|f| (f.name.to_string(), f.value.clone()));
    let seen =
        crate::ask::gather::Seen { end: *end, detail: detail.clone(), facts: facts.collect() };
    let subject = say::subject([Some(point.waiter.word())].into_iter());
    for clause in say::clauses(&seen, true, subject) {
        if clause.key == "end" || clause.key == "change" {
            continue;
        }
        canvas.text(LEFT, "", &clause.text);
        canvas.say(clause.text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure;
    use super::*;
    use rstest::rstest;
    use uffd_results::{Facts, Outcome};
    use uffd_suites::probe::{Ask, Case};

    fn case(id: &str) -> Case {
        uffd_suites::cases().into_iter().find(|case| case.id() == id).expect("a case")
    }

    fn picture(id: &str, facts: &str) -> String {
        let (case, outcome) = (case(id), Outcome::done(Facts::parse(facts).expect("facts")));
        figure(Shown { case: &case, outcome: &outcome }, "6.1").into_string()
    }

    const ID: &str = "copy/mmap-over[backing=anon,part=middle,over=anon,waiter=vcpu-read,msg=read]";

    #[rstest]
    #[case("reg=mm..mm pages=------", "copy=0", &["returns 0"], &["hole", "ENOENT"])]
    #[case("reg=mm--mm pages=------", "copy=ENOENT", &["hole", "fails with ENOENT"], &["returns 0"])]
    #[case("reg=mm..mm pages=--c---", "copy=0", &["copied"], &["hole"])]
    fn a_picture_shows_what_facts_say(
        #[case] ranges: &str,
        #[case] op: &str,
        #[case] there: &[&str],
        #[case] not_there: &[&str],
    ) {
        let facts = format!("fault=read@2 change=0 {op} waiter=asleep queue=1/0 {ranges}");
        let svg = picture(ID, &facts);
        assert!(there.iter().all(|word| svg.contains(word)), "{svg}");
        assert!(!not_there.iter().any(|word| svg.contains(word)), "{svg}");
        assert!(svg.contains("vCPU stays asleep") && svg.contains("role=\"img\""), "{svg}");
        assert_eq!(svg.matches("class=\"registered\"").count(), 6 + 4);
    }

    #[test]
    fn a_waiter_that_is_woken_does_not_sleep_in_the_picture() {
        let facts = |fate: &str| format!("copy=0 waiter={fate} reg=mmmmmm pages=--c---");
        let sleepers = |fate: &str| picture(ID, &facts(fate)).matches("z z z").count();
        assert_eq!((sleepers("asleep"), sleepers("ran:copied")), (2, 1));
    }

    #[test]
    fn the_new_place_is_drawn_from_its_facts() {
        let id = "copy/mremap[backing=anon,how=move,waiter=user-read,msg=read]";
        let svg = picture(id, "change=0 reg=------ pages=------ new-reg=...... new-pages=---k--");
        assert!(svg.contains("The new place") && svg.contains("page 3: mapped, not registered"));
        assert!(!picture(id, "change=EINVAL").contains("The new place"));
    }

    #[test]
    fn the_steps_of_every_point_are_told_apart() {
        let mut points = 0;
        for case in uffd_suites::cases() {
            let (Ask::Point(point) | Ask::Claim(point, _)) = &case.ask else { continue };
            let steps = Steps::of(case.recipe(), *point);
            let op = steps.op.as_ref().is_none_or(|op| op.starts_with("UFFDIO_"));
            let calls = ["munmap of", "mmap(", "mremap", "madvise(", "fallocate("];
            let is_call = |text: &String| calls.iter().any(|call| text.starts_with(call));
            let waits = steps.waiter.first().is_none_or(|text| text.contains("parks in the fault"));
            assert!(op && waits && steps.change.as_ref().is_none_or(is_call), "{}", case.id());
            points += 1;
        }
        assert!(points > 1000);
    }
}
