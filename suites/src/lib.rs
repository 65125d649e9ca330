//! What is asked: probes of userfaultfd after mappings changed, with waiters parked in the fault.
