//! The clocks that decisions rest on. CLOCK_BOOTTIME counts while the machine sleeps, and nothing sets it.
//!
//! ```text
//!   now()      CLOCK_BOOTTIME                          detectors, embargo, ledger
//!   reading()  CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW     leases
//! ```
//!
//! `std` and tokio instants are CLOCK_MONOTONIC on Linux and do not count suspend. They may drive timers here, never a
//! decision.

use quorate_membership::BootId;
use quorate_membership::detector::Moment;
use quorate_membership::lease::Reading;

use crate::host;

/// Now, counted from the boot of this machine.
pub(crate) fn now() -> Moment {
    Moment::new(host::current().boottime())
}

/// The two lease clocks.
pub(crate) fn reading() -> Reading {
    host::current().reading()
}

/// Which boot of the machine this is; all zeros where the kernel does not name it.
pub(crate) fn boot_id() -> BootId {
    host::current().boot_id()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_goes_forward_and_the_boot_has_a_name() {
        let before = super::now();
        assert!(super::now() >= before);
        assert_ne!(super::boot_id(), quorate_membership::BootId::default());
    }
}
