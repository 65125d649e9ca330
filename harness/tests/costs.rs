//! Operations cost in a VM what is stored of its kernel: a change of how guests are run must not pass for one of
//! what kernels do.

mod shared;

use serde_json::Value;
use shared::{conform, kernel, text};
use std::path::Path;
use uffd_harness::bench::{check, load};
use uffd_results::bench::{Measured, Unit};

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

/// Operations that show who wakes whom, and when: what they cost hangs on how a guest schedules.
const OPERATIONS: [&str; 3] =
    ["roundtrip/read[cpus=same]", "roundtrip/sigbus[cpus=same]", "window/eagain[cpus=same]"];

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn operations_cost_in_a_vm_what_is_stored() {
    let mut command = conform();
    command.args(["bench", "--rounds", "30", "--format", "jsonl"]).args(OPERATIONS);
    let output = command.arg("--kernel-image").arg(kernel()).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines: Result<Vec<Value>, _> = said.lines().map(serde_json::from_str).collect();
    let lines = lines.expect("an object a line");
    assert_eq!(lines.len(), OPERATIONS.len(), "{lines:?}");
    let stored = load(Path::new(RESULTS)).expect("stored costs");
    let release = lines[0]["release"].as_str().expect("a release");
    let of_kernel = |m: &&Measured| m.unit == Unit::Instructions && m.kernel.release == release;
    let stored = stored.iter().find(of_kernel).unwrap_or_else(|| {
        panic!("{release}: no costs are stored, measure them: uffd-conform bench -k 6.12 --record")
    });
    for line in &lines {
        let operation = &line["operation"];
        let id = operation["id"].as_str().expect("an id");
        let now = operation["sample"]["min"].as_f64().expect("a count");
        let before = stored.operation(id).and_then(|o| o.sample).expect("a stored count").min;
        #[expect(clippy::cast_precision_loss, reason = "costs of one call stay below 2^52")]
        let by = (now / before as f64 - 1.0).abs() * 100.0;
        assert!(by <= check::SEVERAL, "{id} costs {now} instructions, stored are {before}");
    }
}
