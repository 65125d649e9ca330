//! The export as a C header that needs nothing beside it.

use super::tables::{Tables, lines, number, quoted};
use super::{ExportError, Selection};
use uffd_results::{Dataset, Origin, Release, Why};

const TEMPLATE: &str = include_str!("uffd_conform.h.in");

/// What an unknown answer says, with the names that lookups of other languages give it.
pub(crate) const WHYS: [(&str, Why); 12] = [
    ("DISAGREE", Why::Disagree),
    ("NEWER", Why::Newer),
    ("OLDER", Why::Older),
    ("PERHAPS_NEWER", Why::PerhapsNewer),
    ("PERHAPS_OLDER", Why::PerhapsOlder),
    ("CARRIED_BACK", Why::CarriedBack),
    ("MACHINE", Why::Machine),
    ("NOT_ASKED", Why::NotAsked),
    ("OTHERWISE", Why::Otherwise),
    ("NO_SUCH_CASE", Why::NoSuchCase),
    ("NO_SUCH_FACT", Why::NoSuchFact),
    ("NOT_A_RELEASE", Why::NotARelease),
];

/// A header to put into another program.
pub fn c_header(data: &Dataset, selection: &Selection) -> Result<String, ExportError> {
    let tables = Tables::of(data, selection)?;
    let why = |(name, why): (&str, Why)| {
        format!("#define UFFD_WHY_{name} {}\n", quoted(&why.to_string()))
    };
    let whys: String = WHYS.map(why).concat();
    let filled = TEMPLATE
        .replace("@SELECTION@", &selection.words())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SUITE@", data.kernels().last().map_or("", |kernel| &kernel.revision))
        .replace("/*@WHYS@*/\n", &whys)
        .replace("/*@WORDS@*/\n", &words_of_builders())
        .replace("/*@TABLES@*/\n", &of(&tables, data));
    Ok(filled)
}

fn words_of_builders() -> String {
    let list = |name: &str, origin: Origin| {
        let words = origin.words().iter().map(|word| quoted(word));
        format!("static const char *const {name}[] = {{\n{}    NULL\n}};\n", lines(words))
    };
    let machines = lines(Release::MACHINES.iter().flat_map(|(a, b)| [quoted(a), quoted(b)]));
    [
        list("uffd_ubuntu", Origin::Ubuntu),
        list("uffd_debian", Origin::Debian),
        list("uffd_followers", Origin::Follower),
        "/* What words begin with, before a number. */\n".to_owned(),
        list("uffd_downstream", Origin::Downstream),
        "/* A word, and what uname -m calls that machine, in turn. */\n".to_owned(),
        format!("static const char *const uffd_machines[] = {{\n{machines}    NULL\n}};\n"),
    ]
    .concat()
}

/// No case has this number.
const END: usize = u16::MAX as usize;

fn of(tables: &Tables, data: &Dataset) -> String {
    let kernels = lines(data.kernels().iter().map(|k| {
        let [a, b, c, d] = number(k.upstream);
        format!("{{{}, {}, {{{a}, {b}, {c}, {d}}}}}", quoted(&k.release), quoted(&k.machine))
    }));
    let pairs =
        |pairs: &[(usize, usize)]| lines(pairs.iter().map(|(a, b)| format!("{{{a}, {b}}}")));
    let texts = |texts: &[String]| lines(texts.iter().map(|text| quoted(text)));
    let table = |kind: &str, name: &str, text: &str| {
        format!("static const {kind} {name} = {{\n{text}}};\n\n")
    };
    let row = |row: &Vec<usize>| {
        let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
        format!("{{{}}}", cells.join(", "))
    };
    let row_of = |row: &[usize; 4]| {
        let [a, b, c, d] = row;
        format!("{{{a}, {b}, {c}, {d}}}")
    };
    let cases = tables.cases.iter().map(|(id, set)| format!("{{{}, {set}}}", quoted(id)));
    [
        format!("#define UFFD_KERNELS {}\n", data.kernels().len()),
        format!("#define UFFD_CASES {}\n\n", tables.cases.len()),
        table("struct uffd_kernel", "uffd_kernels[UFFD_KERNELS]", &kernels),
        table("char *const", "uffd_values[]", &texts(&tables.values)),
        table("char *const", "uffd_facts[]", &texts(&tables.facts)),
        "/* Values, a kernel a column; 0 where it did not answer. */\n".to_owned(),
        table("uint16_t", "uffd_rows[][UFFD_KERNELS]", &lines(tables.rows.iter().map(row))),
        "/* Facts with their rows. */\n".to_owned(),
        table("struct uffd_pair", "uffd_entries[]", &pairs(&tables.sets.concat())),
        "/* Where the facts of a set begin, and how many they are; the first is \"end\". */\n"
            .to_owned(),
        table("struct uffd_pair", "uffd_sets[]", &pairs(&tables.spans())),
        "/* Ids in order, with their sets. */\n".to_owned(),
        table("struct uffd_case", "uffd_cases[UFFD_CASES]", &lines(cases)),
        "/* Cases, facts and series that the recorded kernels of other series do not speak for, and an end. */\n"
            .to_owned(),
        table("uint16_t", "uffd_apart[][4]", &lines(tables.apart.iter().chain([&[END; 4]]).map(row_of))),
    ]
    .concat()
}
