//! A command that gets no more memory: it may end, but loses nothing that it had and says nothing false.

use crate::scene::{Scene, end, injected, pid, times};
use crate::shared::text;
use std::time::Duration;

pub(crate) const TESTS: &[(&str, fn())] =
    &[("a_sweep_without_memory_loses_no_answer", a_sweep_without_memory_loses_no_answer)];

/// Takes a process's right to more memory than it has.
fn no_more_memory(of: nix::unistd::Pid) {
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    let null = std::ptr::null_mut();
    // SAFETY: the call reads one limit and writes none.
    let ret = unsafe { libc::prlimit(of.as_raw(), libc::RLIMIT_AS, &raw const limit, null) };
    assert_eq!(ret, 0, "prlimit");
}

fn a_sweep_without_memory_loses_no_answer() {
    let scene = Scene::new();
    let output = end(scene.slow_sweep(&[], 0));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = scene.records();
    let (times, mut starved) = (times(4), 0);
    for n in 0..times {
        scene.forget();
        let mut child = scene.slow_sweep(&[], 200);
        std::thread::sleep(Duration::from_secs(1) * (2 * n + 1) / (2 * times));
        if child.try_wait().expect("it can be waited for").is_none() {
            no_more_memory(pid(&child));
            starved += 1;
        }
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
    injected("sweep that gets no more memory", starved);
}
