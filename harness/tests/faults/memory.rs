//! A command that gets no more memory: it may end, but loses nothing that it had and says nothing false.

use crate::scene::{Scene, end, injected, pid, times};
use crate::shared::text;
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] =
    &[("a_sweep_without_memory_loses_no_answer", a_sweep_without_memory_loses_no_answer)];

/// Takes a process's right to more memory than it has.
fn no_more_memory(of: nix::unistd::Pid) {
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call reads one limit and writes none.
    unsafe { libc::prlimit(of.as_raw(), libc::RLIMIT_AS, &raw const limit, std::ptr::null_mut()) };
}

fn a_sweep_without_memory_loses_no_answer() {
    let scene = Scene::new();
    let output = end(scene.slow_sweep(&[], 0));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = scene.records();
    let times = times(4);
    for n in 0..times {
        scene.forget();
        let child = scene.slow_sweep(&[], 200);
        std::thread::sleep(Duration::from_secs(1) * (2 * n + 1) / (2 * times));
        no_more_memory(pid(&child));
        let output = end(child);
        let error = text(&output.stderr);
        scene.check_no_process();
        for (name, record) in scene.records() {
            assert!(expected[&name] == record, "{name} is not as it should be: {error}");
        }
        let output = end(scene.slow_sweep(&["--resume"], 0));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(scene.records() == expected && scene.journals().is_empty());
        scene.check_no_file();
    }
    injected("sweep that gets no more memory", times);
}
