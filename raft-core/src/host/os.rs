//! The machine as it is: the kernel's clocks and random bits, and threads of the operating system.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::BootId;
use quorate_membership::lease::Reading;
use rustix::time::ClockId;
use tokio::sync::Notify;

use super::{Host, TurnTaker};

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy)]
pub(super) struct OsHost;

fn read(clock: ClockId) -> Duration {
    let spec = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(spec.tv_sec).unwrap_or(0), u32::try_from(spec.tv_nsec).unwrap_or(0))
}

impl Host for OsHost {
    /// Takes about 50 ns.
    fn reading(&self) -> Reading {
        Reading::new(read(ClockId::Boottime), read(ClockId::MonotonicRaw))
    }

    fn boottime(&self) -> Duration {
        read(ClockId::Boottime)
    }

    /// As the kernel names it; all zeros where it does not.
    fn boot_id(&self) -> BootId {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits.parse().unwrap_or_default()
    }

    fn draw(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no randomness from the system: {e}")))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn run(&self, name: &str, mut work: Box<dyn TurnTaker>, _bell: Arc<Notify>) -> io::Result<()> {
        std::thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                let nap = work.turn();
                work.wait(nap);
                if !work.handle_messages() {
                    return;
                }
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bits_differ_from_draw_to_draw() {
        assert_ne!(OsHost.draw().unwrap(), OsHost.draw().unwrap());
    }
}
