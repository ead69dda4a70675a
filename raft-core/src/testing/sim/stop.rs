//! The dead-man of a simulated machine: a timer of its kernel on CLOCK_BOOTTIME that ends the process, whatever its tasks
//! do.
//!
//! It is armed as early as the shipped one, by what NTP may slew, and acts late by up to what it promised.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_membership::Stop;
use quorate_membership::lease::Reading;
use quorate_membership::timing::SLEW_PERCENT;

use super::clocks::Timer;
use super::host::SimHost;
use crate::lease::stop::StopMechanism;

/// A dead-man.
pub(super) struct SimStop {
    host: Weak<SimHost>,
    promise: Stop,
    timer: Arc<Timer>,
}

impl SimStop {
    pub(super) fn new(host: &Arc<SimHost>, promise: Stop) -> Self {
        let timer = Arc::new(Timer::default());
        let lateness = match promise {
            Stop::Deadman { lateness } | Stop::Own { bound: lateness } => Some(lateness),
            Stop::Watchdog { timeout, .. } => Some(timeout),
            Stop::Tokens | Stop::Unbounded => None,
        };
        if let Some(lateness) = lateness {
            // A task of the kernel, which a pause of the process does not hold.
            tokio::spawn(watch(Arc::downgrade(host), timer.clone(), lateness));
            host.timers().add(timer.clone());
        }
        Self { host: Arc::downgrade(host), promise, timer }
    }
}

/// The longest nap of the timer's task. It bounds how late the timer notices that the machine is awake again.
const NAP: Duration = Duration::from_millis(20);

async fn watch(host: Weak<SimHost>, timer: Arc<Timer>, lateness: Duration) {
    loop {
        let Some(host) = host.upgrade().filter(|host| host.is_alive()) else { return };
        let left = timer.fires().map(|fires| fires.saturating_sub(host.reading().boottime()));
        match left {
            Some(left) if left.is_zero() && !host.is_asleep() => {
                let late = lateness.mul_f64(host.draw_late());
                tokio::time::sleep(late).await;
                // A signal that is late finds what is disarmed by then.
                if host.is_alive() && timer.fires().is_some() {
                    return host.fire();
                }
            }
            Some(left) => {
                let nap = left.clamp(Duration::from_micros(100), NAP);
                drop(host);
                tokio::time::sleep(nap).await;
            }
            None => {
                drop(host);
                // Wakes now and then, so that it ends with its process.
                let _set_or_not = tokio::time::timeout(Duration::from_secs(1), timer.is_set()).await;
            }
        }
    }
}

impl StopMechanism for SimStop {
    fn stop(&self) -> Stop {
        self.promise
    }

    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pace(&self) -> Duration {
        match self.promise {
            Stop::Watchdog { timeout, .. } => timeout / 5,
            _ => Duration::from_millis(250),
        }
    }

    fn sustain(&mut self, looked: Reading, left: Duration) -> io::Result<()> {
        let short = left * (100 - SLEW_PERCENT) / 100;
        self.timer.set(Some(looked.boottime() + short));
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        self.timer.set(None);
        Ok(())
    }

    fn fire(&mut self) {
        if let Some(host) = self.host.upgrade()
            && self.timer.fires().is_some()
        {
            self.timer.set(Some(host.reading().boottime()));
        }
    }
}
