//! Whether KVM can be used. That /dev/kvm opens says little: inside some virtual machines it does, and
//! guests die, hang, or are interpreted by KVM's emulator of instructions, whose accesses are not those
//! of a vCPU. On a host a guest must have run first, in a process that can be ended, with an instruction
//! that the emulator lacks.

use super::{Lapic, PROOF, Vcpu, VcpuAccess, VcpuEnd};
use crate::outcome::{ASKED_AT_MOST, Stop};
use crate::process;
use crate::stage::{KvmProof, Stage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use std::os::fd::AsFd;
use std::time::Duration;

/// What a guest of two instructions may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A host's KVM must have run a guest; the VM's, which is ours, is taken as it is.
pub(super) fn demand(stage: &Stage) -> Result<(), Stop> {
    if stage.disposable {
        return Ok(());
    }
    let proof = match stage.kvm_proof() {
        KvmProof::Open => {
            let proof = unless_killed(attempt)?;
            stage.set_kvm_proof(proof);
            proof
        }
        known => known,
    };
    match proof {
        KvmProof::Works | KvmProof::Open => Ok(()),
        KvmProof::Absent => Err(Stop::Precondition("/dev/kvm can't be used".into())),
        KvmProof::Hangs => {
            let why = "under this machine's KVM a guest of two instructions does not end";
            Err(Stop::Precondition(why.into()))
        }
        KvmProof::Fails => {
            let why = "under this machine's KVM no guest runs on the CPU: fld1 fails";
            Err(Stop::Precondition(why.into()))
        }
    }
}

/// Tries until nobody has killed the process that runs the guest: that says nothing of KVM.
fn unless_killed(
    mut attempt: impl FnMut() -> Result<Option<KvmProof>, Stop>,
) -> Result<KvmProof, Stop> {
    for _ in 0..ASKED_AT_MOST {
        if let Some(proof) = attempt()? {
            return Ok(proof);
        }
    }
    Err(Stop::Broken("the process that proves KVM was killed each time".into()))
}

/// Runs the smallest guest in a child process; nothing if somebody else has killed that.
fn attempt() -> Result<Option<KvmProof>, Stop> {
    let broken = |what: &str, e: Errno| Stop::Broken(format!("{what}, to prove KVM: {e:?}"));
    let (ours, theirs) = nix::unistd::pipe().map_err(|e| broken("pipe", e))?;
    let child = process::fork(|| {
        let vcpu = Vcpu::make(PROOF, VcpuAccess::Write, None, Lapic::None);
        let proof = match vcpu.map(|vcpu| vcpu.run()) {
            Ok(VcpuEnd::Ran(_)) => KvmProof::Works,
            Ok(_) => KvmProof::Fails,
            Err(_) => KvmProof::Absent,
        };
        let _ = nix::unistd::write(&theirs, &[proof as u8]);
        0
    })?;
    drop(theirs);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let ended = poll(&mut fds, timeout).map_err(|e| broken("poll", e))? > 0;
    if !ended {
        kill(child, Signal::SIGKILL).map_err(|e| broken("kill", e))?;
    }
    let mut said = [KvmProof::Fails as u8];
    if ended {
        nix::unistd::read(&ours, &mut said).map_err(|e| broken("read", e))?;
    }
    let status = waitpid(child, None).map_err(|e| broken("waitpid", e))?;
    Ok(match (ended, status) {
        (false, _) => Some(KvmProof::Hangs),
        (true, WaitStatus::Exited(..)) => Some(KvmProof::of(said[0])),
        (true, WaitStatus::Signaled(_, Signal::SIGKILL, _)) => None,
        (true, _) => Some(KvmProof::Fails),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// The answers of the attempts, and what is taken from them.
    #[rstest]
    #[case::at_once(&[Some(KvmProof::Fails)], Some(KvmProof::Fails))]
    #[case::killed_once(&[None, Some(KvmProof::Works)], Some(KvmProof::Works))]
    #[case::killed_each_time(&[None; ASKED_AT_MOST as usize], None)]
    fn a_killed_proof_is_no_proof(
        #[case] answers: &[Option<KvmProof>],
        #[case] taken: Option<KvmProof>,
    ) {
        let mut left = answers.iter();
        let proof = unless_killed(|| Ok(*left.next().expect("asked too often")));
        assert_eq!((proof.ok(), left.len()), (taken, 0));
    }
}
