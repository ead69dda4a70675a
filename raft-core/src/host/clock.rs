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
    use std::time::Duration;

    use quorate_membership::NodeId;

    use crate::host;
    use crate::testing::sim::{Rate, Setting, World};

    #[test]
    fn a_task_of_a_simulated_machine_and_those_that_it_starts_read_its_clocks() {
        let story = async {
            let config = crate::config::Config::default();
            let mut world = World::new(Setting { seed: 7, config, stop: None, device: false, aloud: false });
            world.add_machine(NodeId::new(1), Rate::default());
            let process = world.begin(NodeId::new(1)).unwrap();
            let (host, outside) = (process.host(), super::boot_id());
            let seen = host.spawn(async { host::spawn(async { (super::now(), super::boot_id()) }).await.unwrap() });
            let (now, boot) = seen.await.unwrap();
            assert_eq!(now.since_origin(), host.reading().boottime());
            assert!(boot != outside && now.since_origin() > Duration::from_secs(1));
        };
        World::run(7, story).unwrap();
    }

    #[test]
    fn the_clock_goes_forward_and_the_boot_has_a_name() {
        let before = super::now();
        assert!(super::now() >= before);
        assert_ne!(super::boot_id(), quorate_membership::BootId::default());
    }
}
