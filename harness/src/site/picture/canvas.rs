//! The sheet that pictures are drawn on: pages, arrows, figures and text that is broken into lines.

use maud::{Markup, html};

/// Width of every picture, in its own units; text of 14 units is as large as the page's when a
/// picture is as wide as it wants to be.
pub(super) const WIDTH: i32 = 540;
/// Where the first page of a strip begins.
pub(super) const LEFT: i32 = 20;
/// Width of a page; eight of them fit.
pub(super) const PAGE: i32 = 60;
/// Height of a page.
pub(super) const HEIGHT: i32 = 44;
/// From line to line.
pub(super) const LINE: i32 = 19;

/// A picture in the making, filled from the top.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    parts: Vec<Markup>,
    /// The first free height.
    pub(super) y: i32,
    /// What is said of it to those who don't see it.
    said: Vec<String>,
}

impl Canvas {
    /// Adds a piece.
    pub(super) fn put(&mut self, part: Markup) {
        self.parts.push(part);
    }

    /// Adds what is told of a picture in place of showing it.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.said.push(text.into());
    }

    /// Writes a text from `x` on, in lines as long as there is room, and goes on below it.
    pub(super) fn text(&mut self, x: i32, class: &str, text: &str) {
        let wide = if class == "code" { |_| 8 } else { width };
        for line in lines(text, WIDTH - x - 4, wide) {
            self.y += LINE;
            let y = self.y - 5;
            self.put(html! { text x=(x) y=(y) class=(class) { (line) } });
        }
    }

    /// Draws the pages of a range with their numbers, each given by what it is registered for and
    /// what it holds, in the letters of the facts `reg` and `pages`; and goes on below it.
    pub(super) fn strip(&mut self, reg: &str, pages: &str, present: &str) {
        let y = self.y;
        let mut letters = pages.chars();
        for (n, registered) in reg.chars().enumerate() {
            let x = left(n);
            let holds = letters.next().unwrap_or('-');
            let class = match registered {
                '-' => "hole",
                '.' => "plain",
                _ => "registered",
            };
            self.put(html! {
                rect x=(x) y=(y) width=(PAGE) height=(HEIGHT) class=(class) {}
                @if class == "registered" {
                    rect x=(x) y=(y) width=(PAGE) height=(HEIGHT) fill="url(#hatch)" {}
                    text x=(x + 4) y=(y + 14) class="mark" { (registered) }
                }
                @if class == "hole" {
                    text x=(x + PAGE / 2) y=(y + 28) class="mid soft" { "hole" }
                } @else if holds != '-' {
                    rect x=(x + 5) y=(y + 18) width=(PAGE - 10) height="21" rx="3" class="data" {}
                    text x=(x + PAGE / 2) y=(y + 33) class="mid" { (content(holds, present)) }
                }
                @if class != "hole" && holds == '-' {
                    text x=(x + PAGE / 2) y=(y + 33) class="mid soft small" { "empty" }
                }
                text x=(x + PAGE / 2) y=(y + HEIGHT + 15) class="mid soft" { (n) }
            });
        }
        self.y += HEIGHT + 20;
    }

    /// The drawing.
    pub(super) fn svg(self, title: &str) -> Markup {
        let height = self.y + 6;
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" xmlns="http://www.w3.org/2000/svg" {
                title { (title) }
                desc { (self.said.join(" ")) }
                defs {
                    pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse"
                        patternTransform="rotate(45)" { path d="M0 0V8" class="hatch" {} }
                    marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
                        orient="auto-start-reverse" { path d="M0 0L8 4L0 8z" class="tip" {} }
                }
                @for part in &self.parts { (part) }
            }
        }
    }
}

/// Where a page begins.
pub(super) fn left(page: usize) -> i32 {
    LEFT + PAGE * i32::try_from(page).unwrap_or(0)
}

/// An arrow along a path.
pub(super) fn arrow(path: &str) -> Markup {
    html! { path d=(path) class="arrow" marker-end="url(#tip)" {} }
}

/// What a page holds, in a word that fits into it; `present` is the word for what it held before.
fn content(letter: char, present: &str) -> String {
    match letter {
        'k' => present.to_owned(),
        'c' => "copied".to_owned(),
        '0' => "zeros".to_owned(),
        'n' => "new".to_owned(),
        'w' => "written".to_owned(),
        other => other.to_string(),
    }
}

/// What a page holds, for a sentence.
pub(super) fn page_in_words(registered: char, holds: char) -> String {
    let is = match registered {
        '-' => return "not mapped".to_owned(),
        '.' => "mapped, not registered",
        'm' => "registered for missing pages",
        'w' => "registered for write protection",
        'i' => "registered for minor faults",
        _ => "registered",
    };
    match holds {
        '-' => format!("{is}, nothing present"),
        other => format!("{is}, holds {}", content(other, "what it held before")),
    }
}

/// About how wide a letter is, in a wide font.
const fn width(letter: char) -> i32 {
    match letter {
        'A'..='Z' | 'm' | 'w' | '_' | '=' | '+' | '<' | '>' => 11,
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | ',' | ':' | ';' | ' ' | '(' | ')' | '|' => 5,
        _ => 9,
    }
}

/// A text in lines that are not wider than `room`, broken at spaces; a longer word is broken anywhere.
fn lines(text: &str, room: i32, wide: fn(char) -> i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let width: i32 = word.chars().map(wide).sum();
        if used > 0 && used + wide(' ') + width > room {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += wide(' ');
        }
        for letter in word.chars() {
            if used > 0 && used + wide(letter) > room {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(letter);
            used += wide(letter);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a thread loads from page 2", 10, &["a thread", "loads from", "page 2"])]
    #[case("aaaaaaaaaaaaaaaaaaaa b", 8, &["aaaaaaaa", "aaaaaaaa", "aaaa b"])]
    #[case("", 10, &[])]
    fn texts_are_broken(#[case] text: &str, #[case] room: i32, #[case] expected: &[&str]) {
        assert_eq!(lines(text, room, |_| 1), expected);
    }

    #[test]
    fn texts_of_a_picture_are_text() {
        let mut canvas = Canvas::default();
        canvas.text(0, "t", "</svg><script>x</script>");
        canvas.say("<b>");
        let svg = canvas.svg("<i>").into_string();
        assert!(!svg.contains("<script>") && !svg.contains("<b>") && !svg.contains("<i>"));
    }
}
