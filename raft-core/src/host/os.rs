//! The machine as it is: the kernel's clocks and random bits, and threads of the operating system.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::BootId;
use quorate_membership::lease::Reading;
use rustix::time::ClockId;
use tokio::sync::Notify;

use super::{Host, TurnTaker};

/// How many draws of random bits one call of the system serves.
const AT_ONCE: usize = 64;

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

    /// The system is asked for many at a time: every request of a client needs two.
    fn draw(&self) -> io::Result<u64> {
        static DRAWN: Mutex<Vec<u64>> = Mutex::new(Vec::new());
        let mut drawn = DRAWN.lock();
        if let Some(bits) = drawn.pop() {
            return Ok(bits);
        }
        let mut bytes = [0; 8 * AT_ONCE];
        getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no randomness from the system: {e}")))?;
        drawn.extend(bytes.chunks_exact(8).filter_map(|eight| eight.try_into().ok()).map(u64::from_le_bytes));
        drawn.pop().ok_or_else(|| io::Error::other("no randomness from the system"))
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
