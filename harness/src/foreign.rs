//! What comes from elsewhere, and what must hold of any bytes that are read as it.
//!
//! A function a parser: it has the parser read the bytes, and says whether they were taken, or what did
//! not hold: that it is the same when its own text is read again, that no name leads out of a folder and
//! nothing steers a terminal. `tests/parsers.rs` calls each with thousands of spoilt seeds, `fuzz/` with
//! whatever libFuzzer finds. What belongs to one parser stands beside it (`kernels::foreign`,
//! `vm::foreign`, `query::foreign`); here are the table, and parsers of the library.

mod files;
mod words;

use crate::{kernels, query, vm};
use serde_json::Value;
use std::fmt::Debug;
use uffd_results::is_plain;

/// Whether the bytes were taken; an error says what did not hold.
pub type Held = Result<bool, String>;

/// Something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its name: that of its fuzz target, and of the folder with its seeds.
    pub name: &'static str,
    /// What it reads, and from where.
    pub reads: &'static str,
    /// What must hold of any bytes.
    pub holds: fn(&[u8]) -> Held,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "record", reads: "records of anybody", holds: files::record },
    Parser { name: "costs", reads: "costs of operations of anybody", holds: files::costs },
    Parser { name: "table", reads: "the library's table of facts", holds: files::table },
    Parser {
        name: "toml",
        reads: "contracts, notes and recipes of a results folder",
        holds: files::toml,
    },
    Parser {
        name: "outcome",
        reads: "facts and outcomes, in records and from guests",
        holds: words::outcome,
    },
    Parser {
        name: "release",
        reads: "release strings of kernels, versions of kernels and packages",
        holds: words::release,
    },
    Parser {
        name: "filter",
        reads: "filters, patterns and names of kernels, on the command line",
        holds: words::filter,
    },
    Parser {
        name: "sequence",
        reads: "sequences of the explorer, on the command line",
        holds: words::sequence,
    },
    Parser {
        name: "query",
        reads: "expressions of `query`, on the command line",
        holds: query::foreign::query,
    },
    Parser { name: "frames", reads: "frames of a guest, and its plan", holds: vm::foreign::frames },
    Parser { name: "console", reads: "the console of a guest", holds: vm::foreign::console },
    Parser { name: "image", reads: "boot images, packed kernels", holds: image },
    Parser {
        name: "package",
        reads: "members of a package, packed modules",
        holds: kernels::foreign::package,
    },
    Parser {
        name: "rpm",
        reads: "heads of rpm packages, cpio archives",
        holds: kernels::foreign::rpm,
    },
    Parser {
        name: "index",
        reads: "indexes of packages, the lock file, what apt prints, configurations of kernels",
        holds: kernels::foreign::index,
    },
];

fn image(bytes: &[u8]) -> Held {
    Ok(kernels::foreign::header(bytes)? | vm::foreign::image(bytes)?)
}

/// Fails unless both are the same.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what}: {a:?} is not {b:?}")) }
}

/// Fails with `what` unless it holds.
pub(crate) fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Fails if a text would steer a terminal; ends of lines may be in it.
pub(crate) fn plain(what: &str, text: &str) -> Result<(), String> {
    let plain = text.chars().all(|c| c == '\n' || is_plain(c));
    must(plain, || format!("{what} can't be shown: {text:?}"))
}

/// The first text in some data that would steer a terminal; ends of lines and tabs may be in it.
pub(crate) fn odd_text(value: &Value) -> Option<&str> {
    let shows = |text: &str| text.chars().all(|c| is_plain(c) || c == '\n' || c == '\t');
    match value {
        Value::String(text) => Some(text.as_str()).filter(|text| !shows(text)),
        Value::Array(values) => values.iter().find_map(odd_text),
        Value::Object(values) => values.iter().find_map(|(key, value)| {
            Some(key.as_str()).filter(|k| !shows(k)).or_else(|| odd_text(value))
        }),
        _ => None,
    }
}
