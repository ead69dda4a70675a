//! The clock that opinions rest on: CLOCK_BOOTTIME, which counts while the machine sleeps and is never set.
//!
//! `std` and tokio instants are CLOCK_MONOTONIC on Linux: blind to suspend. They may drive sleeping here, never a
//! decision.

use std::time::Duration;

use quorate_membership::BootId;
use quorate_membership::detector::Moment;

/// Now, counted from the boot of this machine.
pub(crate) fn now() -> Moment {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(spec.tv_nsec).unwrap_or(0);
    Moment::new(Duration::new(seconds, nanos))
}

/// Which boot of the machine this is, as the kernel names it; all zeros where it does not say.
pub(crate) fn boot_id() -> BootId {
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
