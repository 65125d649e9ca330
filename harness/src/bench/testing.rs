//! Costs for tests.

use std::collections::BTreeMap;
use uffd_results::bench::{Measured, Operation, SCHEMA, Sample, Unit};
use uffd_results::{Environment, Kernel};

/// Instructions of some operations on a kernel.
pub(crate) fn measured(version: &str, costs: &[(&str, u64)]) -> Measured {
    let operation = |&(id, n): &(&str, u64)| Operation {
        id: id.to_owned(),
        pages: 1,
        several: false,
        sample: Some(Sample { count: 10, min: n, p50: n, p99: n }),
        limit: None,
        limit_sample: None,
        limit_missing: None,
        ratio: None,
        missing: None,
    };
    Measured {
        schema: SCHEMA,
        kernel: Kernel {
            upstream: version.into(),
            release: format!("{version}-test"),
            version: "#1".into(),
            machine: "x86_64".into(),
            package: None,
            image_sha256: None,
            config: BTreeMap::new(),
        },
        environment: Environment {
            accelerator: "tcg".into(),
            cpus: 1,
            memory_mib: 1024,
            page_size: 4096,
            huge_pages_2m: 16,
            uffd: "syscall".into(),
            uffd_features: Vec::new(),
            kvm: false,
            append: String::new(),
            sysctls: BTreeMap::new(),
        },
        suite: super::convert::suite(),
        unit: Unit::Instructions,
        cpu: String::new(),
        rounds: 5,
        operations: costs.iter().map(operation).collect(),
    }
}
