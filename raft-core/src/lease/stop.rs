//! Stop mechanisms: what ends the work of a life when its lease ends, in whatever state its process is.
//!
//! ```text
//!   protect ─▶ sustain(left) ─▶ … sustain(left) at every pace ─▶ all stopped: disarm
//!                  armed                    │ no call any more (stopped, blocked, dead), or left = 0
//!                                           └──────────────▶ it acts, within the bound that it promised
//! ```
//!
//! A mechanism is armed only while something is protected. It errs on the safe side: it acts when a call is late or does
//! not come.

mod child;
mod deadman;
mod kernel;
mod watchdog;

use std::io;
use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Stop, Timing};

use crate::error::StartError;

pub use child::BoundChild;
pub(crate) use child::ChildEnd;
pub use deadman::Deadman;
pub use watchdog::Watchdog;

/// Ends the work of this life unless it is told again and again to wait. All calls come from the keeper's thread. Dropping
/// an armed mechanism must not disarm it: it is dropped when the keeper dies.
pub trait StopMechanism: Send + 'static {
    /// What it promises. Each life of the node registers this when it joins, and every leader computes its wait from it. It
    /// must not change while the process lives.
    fn stop(&self) -> Stop;

    /// Checks at the start of the node whatever can be checked without arming it.
    ///
    /// # Errors
    /// When it cannot be relied on. The node does not start.
    fn check(&mut self) -> io::Result<()>;

    /// The longest time between two calls of [`Self::sustain`] while it is armed. For a watchdog at most a quarter of its
    /// timeout (E5).
    fn pace(&self) -> Duration;

    /// Arms it, or moves its end. Without another call it must act at the latest `left` after `looked`, plus the bound that
    /// it promised, on the lease clock. The end is an instant, not a span from this call: a pause of the process between
    /// the reading of the clock and the call must not move it.
    ///
    /// # Errors
    /// When it could not be armed, or may not act in time. No further work begins under this lease, and what is protected
    /// has to stop.
    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()>;

    /// Disarms it: everything that was protected has stopped, and it must not act.
    ///
    /// # Errors
    /// When it may still act.
    fn disarm(&mut self) -> io::Result<()>;

    /// Acts now: the lease has ended and something is still protected. A mechanism that a kernel timer or a device
    /// completes need do nothing here.
    fn fire(&mut self);

    /// Whether it counts its time outside of this machine, so that a virtual machine which its host has frozen is stopped in
    /// time all the same. By default it does not, and is refused in a virtual machine unless its clock is trusted. Also true of
    /// one that stops nothing real, for tests.
    fn counts_elsewhere(&self) -> bool {
        false
    }
}

/// For resources that check tokens ([`Stop::Tokens`]): nothing on this machine has to be stopped.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokensOnly;

impl StopMechanism for TokensOnly {
    fn stop(&self) -> Stop {
        Stop::Tokens
    }

    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn sustain(&mut self, _: Reading, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn fire(&mut self) {}
}

/// No mechanism ([`Stop::Unbounded`]): only a device, an operator or a clean leave proves the end of such a life.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Nothing;

impl StopMechanism for Nothing {
    fn stop(&self) -> Stop {
        Stop::Unbounded
    }

    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn sustain(&mut self, _: Reading, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn fire(&mut self) {}
}

/// Admits a mechanism at the start of a node: checks it, and fits the timing to what it promises.
pub(crate) fn admit(
    mechanism: &mut dyn StopMechanism,
    timing: Timing,
    trust_vm_clock: bool,
) -> Result<Timing, StartError> {
    let stop = mechanism.stop();
    let refused = |why: String| StartError::Config { what: "the stop mechanism", value: stop.to_string(), why };
    let by_time = match stop {
        Stop::Watchdog { .. } | Stop::Deadman { .. } | Stop::Own { .. } => true,
        Stop::Tokens | Stop::Unbounded => false,
    };
    if by_time && !trust_vm_clock && !mechanism.counts_elsewhere() && in_a_virtual_machine() {
        let why = "this is a virtual machine, which does not notice the time while its host has frozen it: fence it by a \
                   device, let the resource check tokens, or set trust_vm_clock if its clock counts all the same";
        return Err(refused(why.into()));
    }
    mechanism.check().map_err(|error| refused(error.to_string()))?;
    if let Stop::Watchdog { timeout, .. } = stop
        && mechanism.pace() > timeout / 4
    {
        let pace = mechanism.pace();
        return Err(refused(format!(
            "it is sustained every {pace:?}, which must be at most a quarter of its timeout (E5)"
        )));
    }
    timing.stopped_by(stop).map_err(|error| refused(error.to_string()))
}

/// Whether this machine may be a virtual one. Counts as virtual where that cannot be found out.
fn in_a_virtual_machine() -> bool {
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        // The processor has a flag for it.
        let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else { return true };
        let mut flags = text.lines().filter(|line| line.starts_with("flags")).peekable();
        return flags.peek().is_none() || flags.any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    }
    // Other processors have no such flag.
    true
}
