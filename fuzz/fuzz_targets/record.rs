//! Any bytes as a record: what must hold is said, and tested with a thousand files, in `uffd-results`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(why) = uffd_results::holds(bytes) {
        panic!("{why}");
    }
});
