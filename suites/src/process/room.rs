//! A process that has no descriptor left.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::os::fd::{AsFd, AsRawFd};

/// Runs `job` while this process can open `room` more descriptors and no further. `any` is an open one.
pub fn with_room<T>(any: impl AsFd, room: u64, job: impl FnOnce() -> T) -> Result<T, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The lowest free descriptor is what the next would get.
    let next = nix::unistd::dup(any)?;
    let limit = u64::try_from(next.as_raw_fd()).unwrap_or(0) + room;
    drop(next);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    let done = job();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    Ok(done)
}
