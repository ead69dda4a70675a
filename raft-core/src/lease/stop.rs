//! What ends the work of a life when its lease does, whatever state its process is in.
//!
//! ```text
//!   protect ─▶ sustain(left) ─▶ … sustain(left) at every pace ─▶ all stopped: disarm
//!                  armed                    │ no call any more (stopped, blocked, dead), or left = 0
//!                                           └──────────────▶ it acts, within the bound that it promised
//! ```
//!
//! A mechanism is armed only while something is protected. Everything about it is on the safe side: a call that comes
//! too late or not at all lets it act, never the other way round.

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
pub use deadman::Deadman;
pub use watchdog::Watchdog;

/// Ends the work of this life when it is no longer told to wait. All calls come from the keeper's own thread. Dropping it
/// while it is armed must not disarm it: that is how it ends should the keeper die.
pub trait StopMechanism: Send + 'static {
    /// What it promises. Registered with each life of the node when it joins; every leader computes its wait from it, so
    /// it must be the same for as long as the process lives.
    fn stop(&self) -> Stop;

    /// Tries out whatever can be tried without arming it, at the start of the node.
    ///
    /// # Errors
    /// When it could not be relied on: the node does not start.
    fn check(&mut self) -> io::Result<()>;

    /// How often [`Self::sustain`] is to be called while it is armed, at the least. For a watchdog at most a quarter of
    /// its timeout (E5).
    fn pace(&self) -> Duration;

    /// Arms it, or has it wait on: it must act at the latest `left` after `looked`, plus the bound that it promised, if it
    /// is not called again. Both are on the lease clock. That is an instant and not a span from this call: a pause between
    /// the look and the call must not move the end.
    ///
    /// # Errors
    /// When it could not be armed, or may not act in time: nothing further is begun under this lease, and what is
    /// protected is told to stop.
    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()>;

    /// Everything that was protected has stopped: it must not act any more.
    ///
    /// # Errors
    /// When it may act all the same.
    fn disarm(&mut self) -> io::Result<()>;

    /// The lease is over and something is still protected. What a kernel timer or a device does anyway needs nothing
    /// here.
    fn fire(&mut self);
}

/// The resource checks tokens ([`Stop::Tokens`]): nothing here has to stop anything.
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

/// Nothing is relied on ([`Stop::Unbounded`]): only a device, an operator or a clean leave proves the end of such a life.
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

/// Takes a mechanism in at the start of a node: tries it out, and fits the timing to what it promises.
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
    if by_time && !trust_vm_clock && in_a_virtual_machine() {
        let why = "this is a virtual machine, and what its host freezes does not notice the time: fence it by a device, \
                   let the resource check tokens, or say with trust_vm_clock that its clock counts all the same";
        return Err(refused(why.into()));
    }
    mechanism.check().map_err(|error| refused(error.to_string()))?;
    if let Stop::Watchdog { timeout, .. } = stop
        && mechanism.pace() > timeout / 4
    {
        let pace = mechanism.pace();
        return Err(refused(format!("it is fed every {pace:?}, and must be four times within its timeout (E5)")));
    }
    timing.stopped_by(stop).map_err(|error| refused(error.to_string()))
}

/// Whether there may be a hypervisor under this machine. What cannot be told counts as one.
fn in_a_virtual_machine() -> bool {
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        // The processor says so itself.
        let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else { return true };
        let mut flags = text.lines().filter(|line| line.starts_with("flags")).peekable();
        return flags.peek().is_none() || flags.any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    }
    // Elsewhere no flag does: only a firmware that names a physical maker would be believed, and none is asked here.
    true
}
