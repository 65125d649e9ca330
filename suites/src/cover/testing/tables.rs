//! What the rule of the default trials is told by name.

/// What a consumer's assumption rests on stays a default beyond the first case that its filter finds: a probe, and
/// what the axes of a case must have.
pub(in crate::cover) const INSISTED: &[(&str, &[&str])] = &[
    ("changes/collapse", &["backing=shmem", "present=few", "then=serve"]),
    ("changes/collapse", &["backing=anon", "present=most", "then=look"]),
    ("changes/collapse", &["backing=shmem", "mode=none", "present=few"]),
    ("changes/exchange", &["backing=anon", "events=remap+unmap"]),
    ("changes/file", &["backing=shmem", "how=write-page", "user-read", "op=copy"]),
    ("changes/madvise", &["backing=shmem", "how=dontneed-page", "user-read"]),
    ("changes/half-way", &["events=remap+unmap,"]),
    ("changes/merge", &["touched=before", "then=nothing"]),
    ("changes/sequence", &["backing=anon", "how=qemu-shrink,", "op=copy"]),
    ("changes/sequence", &["backing=shmem", "how=qemu-shrink-file", "op=copy"]),
    ("continue/fault", &["backing=shmem", "page=punched", "mode=missing,"]),
    ("events/mremap", &["backing=anon", "how=move-part", "events=remap+unmap,"]),
    ("events/mremap", &["backing=anon", "events=remap+remove+unmap,"]),
    ("handle/feature", &["with=offered"]),
    ("handle/ready", &["call=epoll,", "state=one-of-two-read"]),
    ("handle/user-mode-only", &["way=user-mode-only"]),
    ("permission/open", &["who=other-user", "way=user-mode-only", "features=none"]),
    ("permission/open", &["who=userns-root", "features=event-fork"]),
    (
        "register/mprotect-later",
        &["backing=shmem", "registered=none,later=write,", "touch=user-write"],
    ),
    ("register/modes", &["memory=hugetlb-shared", "mode=missing,", "features=none"]),
    ("register/modes", &["memory=shmem", "mode=missing,", "features=none"]),
    ("register/modes", &["memory=shmem", "mode=wp,"]),
    ("waiters/spread", &["backing=anon", "waiter=user-read,msg=read", "first=3"]),
    ("writeprotect/reach", &["backing=anon", "page=missing", "asks=wp-unpopulated"]),
];

/// Stay defaults because something happens in them that is expected not to happen in other defaults of
/// their probes, on the same kind of memory; `controls.rs` asks for such a case in every probe.
pub(in crate::cover) const CONTROLS: &[(&str, &[&str])] = &[
    (
        "arguments/range",
        &["ioctl=wake,backing=hugetlb-shared", "user-read", "bad=huge-len-of-page"],
    ),
    ("changes/adopt", &["backing=anon,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/adopt", &["backing=private-memfd,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/adopt", &["backing=shmem,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/file", &["backing=hugetlb-shared,how=punch-page,waiter=user-read,op=copy"]),
    ("changes/mprotect", &["backing=shmem,how=none-middle,waiter=user-read,op=copy"]),
    (
        "changes/sequence",
        &["backing=private-memfd,how=shrink-grow-register,waiter=user-read,op=copy"],
    ),
    ("changes/truncate", &["backing=hugetlb-shared,how=zero-then-back,waiter=user-read,op=copy"]),
    ("changes/truncate", &["backing=private-memfd,how=grow,waiter=user-read,op=copy"]),
    (
        "events/discard",
        &["backing=hugetlb-shared,advice=dontneed,what=page,events=remap+remove+unmap"],
    ),
    ("events/mremap", &["backing=shmem,how=move,events=remap+unmap"]),
    ("events/munmap", &["backing=shmem,what=whole,events=remap+remove+unmap"]),
    ("handle/read-size", &["fd=blocking", "unread=1"]),
    ("lifetime/core-dump", &["backing=shmem,mode=missing,first=served"]),
    ("rwp/scan", &["backing=private-memfd,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shared-anon,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shmem,ask=accessed,done=load"]),
    ("waiters/debugger", &["backing=shmem,page=missing,access=process-vm-readv,owner=idle"]),
    ("waiters/grow-locked", &["backing=shmem,call=mremap-grow,lock=mlock,then=copy"]),
    ("waiters/sigbus", &["backing=shmem,mode=missing,access=user-read,feature=none"]),
];

/// What alone reaches a line of the kernel, mostly one that refuses an argument, stays a default too:
/// each ioctl has a check of its own. `docs/coverage.md` has the lines that nothing reaches.
pub(in crate::cover) const REACHES: &[(&str, &[&str])] = &[
    ("arguments/event-unread", &["ioctl=continue,", "backing=shmem", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=copy,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=move,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=poison,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=zeropage,", "backing=anon", "wrong=struct"]),
    ("arguments/mode", &["ioctl=continue,", "backing=shmem", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=copy,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=move,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=poison,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=writeprotect,", "backing=anon", "user-write", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=zeropage,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/range", &["ioctl=continue,", "backing=shmem", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=copy,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=copy,", "backing=anon", "user-read", "bad=start-odd"]),
    ("arguments/range", &["ioctl=copy,", "backing=hugetlb-shared", "bad=huge-"]),
    ("arguments/range", &["ioctl=move,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=poison,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=unregister,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=unregister,", "backing=hugetlb-shared", "bad=huge-start"]),
    ("arguments/range", &["ioctl=writeprotect,", "backing=anon", "user-write", "bad=len-zero"]),
    ("arguments/range", &["ioctl=writeprotect,", "backing=hugetlb-shared", "bad=huge-"]),
    ("arguments/range", &["ioctl=zeropage,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/struct", &["ioctl=continue,", "backing=shmem", "user-read", "struct=half"]),
    ("arguments/struct", &["ioctl=move,", "backing=anon", "user-read", "struct=half"]),
    ("arguments/struct", &["ioctl=poison,", "backing=anon", "user-read", "struct=half"]),
    ("events/munmap", &["backing=anon", "what=around,events=unmap,"]),
    ("events/munmap", &["backing=anon", "what=split,events=unmap,"]),
    ("handle/read-fault", &["buffer=half", "unread=1"]),
    ("handle/read-fault", &["buffer=second-outside", "unread=2"]),
    ("kinds/beyond-end", &["backing=private-memfd", "deed=copy"]),
    ("kinds/beyond-end", &["backing=private-memfd", "deed=zeropage"]),
    ("kinds/thp", &["how=protect-all", "access=user-write"]),
    ("lifetime/core-dump", &["backing=shmem,mode=missing,first=nothing"]),
    ("move/memory", &["to=read-only,from=read-only"]),
    ("move/source", &["source=no-page-directory,holes=allowed"]),
    ("move/source", &["source=no-page-directory,holes=no,waiter=user-read"]),
    ("races/argument", &["ioctl=move", "meanwhile=remove-unread"]),
    ("races/argument", &["ioctl=protect", "meanwhile=remove-unread"]),
    ("races/copy-source", &["backing=shared-anon", "meanwhile=mmap-over-same-registered"]),
    ("races/copy-source", &["backing=private-memfd", "meanwhile=mmap-over-registered"]),
    ("races/copy-source", &["backing=shmem", "meanwhile=mprotect-none"]),
    ("register/modes", &["memory=anon-droppable", "mode=missing,", "features=none"]),
    (
        "writeprotect/missing-then-wp",
        &["hugetlb-shared", "mark-then-copy,", "user-write", "asks=none"],
    ),
];

/// Asked by default whatever its suite proposes.
pub(in crate::cover) const WANTED: &[(&str, &[&str])] = &[
    ("arguments/mode", &["ioctl=continue", "backing=shmem", "mode=none"]),
    ("changes/move", &["backing=shmem", "how=overlapping", "waiter=user-read,op=copy"]),
    ("changes/truncate", &["hugetlb-shared,how=shrink-to-page,waiter=user-read,op=copy"]),
    ("continue/fault", &["backing=shmem", "page=dropped", "mode=minor,", "who=user-read"]),
    (
        "continue/fault",
        &["backing=hugetlb-shared", "page=punched", "mode=missing,", "who=user-read"],
    ),
    // The mapping that keeps it out, beside the one that does not.
    ("kinds/beyond-end-huge", &["backing=hugetlb-shared", "deed=copy"]),
    ("lifetime/dead-owner", &["backing=anon", "how=execve", "register"]),
    ("lifetime/ends-waiting", &["how=lives", "waiter=user-read", "waiters=1,msg=unread"]),
    ("lifetime/ends-waiting", &["how=sigkill", "waiters=1,msg=unread"]),
    // Who is refused shows nothing of faults in kernel mode.
    ("permission/open", &["who=other-user,sysctl=1,way=syscall,features=none"]),
    ("register/mprotect-later", &["backing=anon,registered=none,later=read,touch=user-read"]),
    ("register/modes", &["memory=vdso", "mode=wp,features=wp-async"]),
    ("vcpu/async-killed", &["lapic=kernel"]),
    ("vcpu/async-signal", &["backing=anon"]),
    ("waiters/process", &["backing=anon", "op=sigkill"]),
];

/// Two axes of which every two values meet.
pub(in crate::cover) const PAIRED: &[(&str, &str, &str)] =
    &[("arguments/range", "ioctl=", "bad="), ("arguments/struct", "ioctl=", "struct=")];

/// Values with which little is asked, so that every other value is to be asked without them, too: `*` stands for
/// all probes of a suite.
pub(in crate::cover) const OFF: &[(&str, &str)] = &[
    ("changes/*", "op=look"),
    ("continue/*", "mode=none"),
    ("events/*", "events=none"),
    ("handle/address", "feature=off"),
    ("handle/address", "offset=0"),
    ("handle/read-fault", "unread=0"),
    ("handle/read-vector", "unread=0"),
    ("handle/ready", "state=before-api"),
    ("handle/ready", "state=idle"),
    ("handle/thread-id", "feature=off"),
    ("races/argument", "meanwhile=none"),
    ("register/mprotect-later", "registered=none"),
];
