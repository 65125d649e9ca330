//! Text that may come from anywhere, made fit for a terminal or a message.

/// Whether a character is shown as itself: no control character, nothing invisible, nothing that
/// turns the direction of what follows.
///
/// ```
/// assert!(uffd_results::is_plain('ü') && !uffd_results::is_plain('\u{202e}'));
/// ```
pub fn is_plain(c: char) -> bool {
    let steers = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}');
    !steers && !c.is_control()
}

/// The text with everything written out that a terminal would take as a command, cut to `most`
/// characters. Ends of lines stay if `lines`.
fn shown(text: &str, most: usize, lines: bool) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == most {
            out.push('…');
            break;
        }
        if is_plain(c) || (lines && c == '\n') {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// A text of unknown origin as one line that can be printed: `\u{1b}` for what a terminal would act
/// upon, and not longer than a message may be.
///
/// ```
/// assert_eq!(uffd_results::printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
pub fn printable(text: &str) -> String {
    shown(text, 400, false)
}

/// The same of a text of several lines, however long.
pub fn printable_lines(text: &str) -> String {
    shown(text, usize::MAX, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        assert_eq!(printable("ü × <b>"), "ü × <b>");
        assert_eq!(printable("\u{9b}31m\u{202e}\n"), "\\u{9b}31m\\u{202e}\\u{a}");
        assert_eq!(printable_lines("a\n\rb"), "a\n\\u{d}b");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 401);
    }
}
