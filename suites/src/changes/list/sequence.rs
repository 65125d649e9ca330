//! What consumers do to their memory step by step.

use super::{Change, also_huge, plain};
use crate::changes::step::Step::{
    Advise, Allocate, Map, MapOnceMore, Protect, Punch, Register, Shrink, Unregister,
};
use crate::changes::step::{Advice, MIDDLE, Over, PAGE, Prot, Span, WHOLE};
use crate::probe::Probe;

static SEQUENCE: Probe = Probe {
    suite: "changes",
    name: "sequence",
    statement: "What a consumer does to RAM step by step (remap, resize, plug, unplug, discard) wakes \
                no waiter at any step.",
    consumers: &[
        "QEMU: qemu_ram_remap(), ram_mig_ram_block_resized(), virtio-mem",
        "Firecracker: virtio-mem unplug and plug",
        "Cloud Hypervisor: balloon",
    ],
};

/// Every sequence.
pub(in crate::changes) static SEQUENCES: &[Change] = &[
    plain(
        &SEQUENCE,
        "qemu-remap-file",
        &[Punch(PAGE), Advise(PAGE, Advice::DontNeed), Map(PAGE, Over::Same)],
    ),
    plain(
        &SEQUENCE,
        "qemu-remap-anon",
        &[
            Advise(PAGE, Advice::DontNeed),
            Map(PAGE, Over::Same),
            Advise(PAGE, Advice::DontDump),
            Advise(PAGE, Advice::Mergeable),
        ],
    ),
    plain(&SEQUENCE, "qemu-shrink", &[Advise(Span(2, 6), Advice::DontNeed)]),
    plain(
        &SEQUENCE,
        "qemu-shrink-file",
        &[Punch(Span(2, 6)), Advise(Span(2, 6), Advice::DontNeed)],
    ),
    plain(&SEQUENCE, "qemu-shrink-no-access", &[Map(Span(2, 6), Over::NoAccess)]),
    plain(
        &SEQUENCE,
        "qemu-shrink-then-grow",
        &[Map(Span(2, 6), Over::NoAccess), Map(Span(2, 6), Over::Same)],
    ),
    plain(&SEQUENCE, "shrink-then-grow", &[Shrink(2), MapOnceMore(Span(2, 6))]),
    plain(
        &SEQUENCE,
        "shrink-grow-register",
        &[Shrink(2), MapOnceMore(Span(2, 6)), Register(Span(2, 6))],
    ),
    plain(&SEQUENCE, "virtio-mem-unplug", &[Advise(MIDDLE, Advice::DontNeed)]),
    also_huge(
        &SEQUENCE,
        "virtio-mem-unplug-file",
        &[Punch(MIDDLE), Advise(MIDDLE, Advice::DontNeed)],
    ),
    plain(
        &SEQUENCE,
        "virtio-mem-unplug-remove",
        &[Advise(MIDDLE, Advice::DontNeed), Advise(MIDDLE, Advice::Remove)],
    ),
    plain(&SEQUENCE, "virtio-mem-prealloc", &[Allocate(MIDDLE)]),
    plain(&SEQUENCE, "virtio-mem-replug", &[Punch(MIDDLE), Allocate(MIDDLE)]),
    plain(
        &SEQUENCE,
        "firecracker-unplug",
        &[Advise(MIDDLE, Advice::DontNeed), Protect(MIDDLE, Prot::None)],
    ),
    also_huge(
        &SEQUENCE,
        "firecracker-replug",
        &[Advise(MIDDLE, Advice::DontNeed), Protect(MIDDLE, Prot::None), Protect(MIDDLE, Prot::Rw)],
    ),
    plain(
        &SEQUENCE,
        "firecracker-unplug-again",
        &[
            Protect(MIDDLE, Prot::None),
            Protect(MIDDLE, Prot::Rw),
            Advise(MIDDLE, Advice::DontNeed),
            Protect(MIDDLE, Prot::None),
        ],
    ),
    plain(&SEQUENCE, "firecracker-old-balloon", &[Map(MIDDLE, Over::Anon)]),
    plain(
        &SEQUENCE,
        "remove-then-unregister",
        &[Advise(MIDDLE, Advice::DontNeed), Unregister(MIDDLE)],
    ),
    plain(&SEQUENCE, "crosvm-swap-out", &[Advise(WHOLE, Advice::Remove), Register(WHOLE)]),
    plain(&SEQUENCE, "criu-mprotect-half", &[Protect(Span(0, 3), Prot::Read)]),
];
