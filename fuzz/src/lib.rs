//! Fuzz targets: one for each of `uffd_harness::foreign::PARSERS`, where it is said what must hold.

pub use libfuzzer_sys::fuzz_target;

/// Looks at bytes as the parser `name` does.
///
/// # Panics
/// If something did not hold: that is what libFuzzer looks for.
pub fn check(name: &str, bytes: &[u8]) {
    let parser = uffd_harness::foreign::PARSERS.iter().find(|parser| parser.name == name);
    let Some(parser) = parser else { panic!("there is no parser {name}") };
    if let Err(why) = (parser.holds)(bytes) {
        panic!("{name}: {why}");
    }
}

/// The target of a parser.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::fuzz_target!(|bytes: &[u8]| $crate::check($name, bytes));
    };
}
