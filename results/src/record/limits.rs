//! Limits of a record's file, looked at before anything is read from it: a wrong or hostile file is
//! refused before it can cost memory or time.

/// Bytes of the largest file that is read as a record; the largest of ours has less than 1 MB.
pub const LARGEST: usize = 16 << 20;
/// How deep brackets may be nested; a record's are five deep.
const DEEPEST: usize = 8;
/// Bytes of a string, escapes counted as written.
const LONGEST: usize = 4096;
/// Strings in a file: each takes many times its length in memory. A file as we write it has at most
/// five a case, so all of [`CASES`] fit.
const MOST: usize = 800_000;
/// Cases of a record; the suite has less than a tenth of that.
pub(super) const CASES: usize = 100_000;
/// Settings and features of each kind.
pub(super) const SETTINGS: usize = 10_000;

/// Where in a text a limit is passed, and which.
pub(super) struct Passed {
    pub(super) place: String,
    pub(super) what: String,
}

/// Goes once over a JSON text. Whether it is JSON at all is not its business.
pub(super) fn check(json: &str) -> Result<(), Passed> {
    let (mut depth, mut strings, mut line, mut line_start) = (0_usize, 0_usize, 1, 0);
    let mut string: Option<usize> = None;
    let mut bytes = json.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        let what = match (byte, string) {
            (b'"', Some(_)) => {
                string = None;
                continue;
            }
            (b'\\', Some(_)) => {
                bytes.next();
                continue;
            }
            (_, Some(start)) if at - start > LONGEST => {
                format!("a string of more than {LONGEST} bytes")
            }
            (b'"', None) if strings == MOST => format!("more than {MOST} strings"),
            (b'"', None) => {
                (string, strings) = (Some(at), strings + 1);
                continue;
            }
            (b'[' | b'{', None) if depth == DEEPEST => {
                format!("brackets nested more than {DEEPEST} deep")
            }
            (b'[' | b'{', None) => {
                depth += 1;
                continue;
            }
            (b']' | b'}', None) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            (b'\n', _) => {
                (line, line_start) = (line + 1, at + 1);
                continue;
            }
            _ => continue,
        };
        let place = format!("line {line} column {}", at - line_start + 1);
        return Err(Passed { place, what });
    }
    Ok(())
}
