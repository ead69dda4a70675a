//! The clock that opinions rest on: CLOCK_BOOTTIME, which counts while the machine sleeps and is never set.
//!
//! `std` and tokio instants are CLOCK_MONOTONIC on Linux: blind to suspend. They may drive sleeping here, never a
//! decision.

use std::time::Duration;

use quorate_membership::BootId;
use quorate_membership::detector::Moment;
use quorate_membership::lease::Reading;
use rustix::time::ClockId;

#[cfg(any(test, feature = "testing"))]
fn simulated() -> Option<Reading> {
    crate::host::simulated().map(|host| host.reading())
}

#[cfg(not(any(test, feature = "testing")))]
fn simulated() -> Option<Reading> {
    None
}

fn shown(clock: ClockId) -> Duration {
    let spec = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(spec.tv_sec).unwrap_or(0), u32::try_from(spec.tv_nsec).unwrap_or(0))
}

/// Now, counted from the boot of this machine.
pub(crate) fn now() -> Moment {
    Moment::new(simulated().map_or_else(|| shown(ClockId::Boottime), Reading::boottime))
}

/// What the lease clocks show: CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW. About 50 ns.
pub(crate) fn reading() -> Reading {
    simulated().unwrap_or_else(|| Reading::new(shown(ClockId::Boottime), shown(ClockId::MonotonicRaw)))
}

/// Which boot of the machine this is, as the kernel names it; all zeros where it does not say.
pub(crate) fn boot_id() -> BootId {
    #[cfg(any(test, feature = "testing"))]
    if let Some(host) = crate::host::simulated() {
        return host.boot_id();
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.parse().unwrap_or_default()
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
