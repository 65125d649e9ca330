//! The export as a Rust file that needs `core` only: the tables, and the library's own reading of
//! release strings and choice of kernels, copied as they stand.

use super::c_header::WHYS;
use super::tables::{Tables, lines, number, quoted};
use super::{ExportError, Selection};
use uffd_results::{Dataset, Why};

const TEMPLATE: &str = include_str!("lookup.rs.in");
const FORM: &str = include_str!("../../../results/src/release/form.rs");
const NEAR: &str = include_str!("../../../results/src/lookup/near.rs");

/// A module to put into another program.
pub fn rust(data: &Dataset, selection: &Selection) -> Result<String, ExportError> {
    let tables = Tables::of(data, selection)?;
    let why =
        |(name, why): (&str, Why)| format!("const {name}: &str = {};\n", quoted(&why.to_string()));
    let whys: String = WHYS.map(why).concat();
    let filled = TEMPLATE
        .replace("@SELECTION@", &selection.words())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SUITE@", data.kernels().last().map_or("", |kernel| &kernel.revision))
        .replace("//@WHYS@\n", &whys)
        .replace("//@TABLES@\n", &of(&tables, data))
        .replace("//@FORM@\n", &indented(FORM))
        .replace("//@NEAR@\n", &indented(NEAR));
    Ok(filled)
}

fn of(tables: &Tables, data: &Dataset) -> String {
    let kernels = lines(data.kernels().iter().map(|k| {
        let [a, b, c, d] = number(k.upstream);
        format!("({}, {}, ({a}, {b}, {c}, {d}))", quoted(&k.release), quoted(&k.machine))
    }));
    let pairs = |pairs: &[(usize, usize)]| lines(pairs.iter().map(|(a, b)| format!("({a}, {b})")));
    let table = |name: &str, kind: &str, text: &str| {
        format!("    pub(super) static {name}: &[{kind}] = &[\n{}    ];\n", indented(text))
    };
    let texts = |texts: &[String]| lines(texts.iter().map(|text| quoted(text)));
    let rows = tables.rows.iter().map(|row| format!("{row:?}"));
    let cases = tables.cases.iter().map(|(id, set)| format!("({}, {set})", quoted(id)));
    [
        table("KERNELS", "(&str, &str, (u16, u16, u16, u16))", &kernels),
        table("VALUES", "&str", &texts(&tables.values)),
        table("FACTS", "&str", &texts(&tables.facts)),
        table("ROWS", &format!("[u16; {}]", data.kernels().len()), &lines(rows)),
        table("ENTRIES", "(u16, u16)", &pairs(&tables.sets.concat())),
        table("SETS", "(u16, u16)", &pairs(&tables.spans())),
        table("CASES", "(&str, u16)", &lines(cases)),
        table("APART", "[u16; 4]", &lines(tables.apart.iter().map(|apart| format!("{apart:?}")))),
    ]
    .concat()
}

/// A text inside of a module.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.is_empty() { "\n".into() } else { format!("    {line}\n") };
    text.lines().map(line).collect()
}
