//! A disk that is too slow for the timing: measured again until it is fast enough, because a busy moment after a boot is
//! not the disk.
//!
//! ```text
//!   first start ── too slow ─▶ wait, measure again ─▶ … until the timeout ─▶ refused: nothing was begun
//!   member      ── too slow ─▶ starts, and protects nothing ─▶ measured again ─▶ fast enough: may protect
//! ```
//!
//! A member does not wait with its start: the others may need its vote after all of them have lost power. It loses nothing,
//! because without protected work its lease is no right to act.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_membership::Timing;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::StartError;
use crate::lease::keeper::Keeper;
use crate::lease::message::Message;
use crate::probe;

/// The wait after the first measurement. It doubles, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);

const LONGEST: Duration = Duration::from_secs(15);

/// Measures the disk until it holds the timing. A member's start does not wait: returns why its disk is too slow.
///
/// # Errors
/// [`StartError::Config`] when the disk of a node that is no member yet is too slow until `timeout`, and
/// [`StartError::Folder`] when it cannot be measured.
pub(crate) async fn admit(
    folder: &Path,
    timing: Timing,
    member: bool,
    timeout: Duration,
) -> Result<Option<String>, StartError> {
    let (give_up, mut pause) = (Instant::now() + timeout, FIRST);
    loop {
        let Some(why) = measure(folder.into(), timing).await? else { return Ok(None) };
        if member {
            return Ok(Some(why));
        }
        if Instant::now() + pause > give_up {
            let value = format!("heartbeat {:?}", timing.plan().heartbeat);
            return Err(StartError::Config { what: "the timing", value, why });
        }
        tracing::warn!(folder = %folder.display(), %why, ?pause, "the disk is too slow for the timing; measuring it again");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// Tells the keeper why nothing may be protected; `None` once it may. A message to the keeper that is sent later is also
/// handled later, so nothing slips through before this one.
pub(crate) fn tell(keeper: &Keeper, folder: &Path, why: Option<String>) {
    match &why {
        Some(why) => tracing::warn!(folder = %folder.display(), %why, "no work is protected here yet"),
        None => tracing::info!(folder = %folder.display(), "the disk holds the timing; work may be protected"),
    }
    // A keeper that has ended protects nothing either.
    let _keeper_gone = keeper.handle.send(Message::Unfit(why));
}

/// Measures the disk, and tells the keeper what came of it, until the disk holds the timing, or `stop`.
pub(crate) async fn measure_again(folder: PathBuf, timing: Timing, keeper: &Keeper, stop: CancellationToken) {
    let measure = || async {
        let measured = measure(folder.clone(), timing).await;
        measured.unwrap_or_else(|error| Some(error.to_string()))
    };
    tokio::select! { biased;
        () = stop.cancelled() => {}
        () = until_fast_enough(measure, |why| tell(keeper, &folder, why)) => {}
    }
}

/// Tells the result of each measurement, until the disk is fast enough: then `None`, and that is the end.
async fn until_fast_enough<M: Future<Output = Option<String>>>(measure: impl Fn() -> M, tell: impl Fn(Option<String>)) {
    let mut pause = FIRST;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
        let why = measure().await;
        let fast_enough = why.is_none();
        tell(why);
        if fast_enough {
            return;
        }
    }
}

/// Why the disk does not hold the timing; `None` if it does.
async fn measure(folder: PathBuf, timing: Timing) -> Result<Option<String>, StartError> {
    let measured = tokio::task::spawn_blocking(move || probe::too_slow(&folder, timing));
    measured.await.map_err(|error| StartError::Engine(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_member_may_protect_work_as_soon_as_a_measurement_passes() {
        let (began, times, told) = (Instant::now(), Cell::new(0), RefCell::new(vec![]));
        let measure = || async {
            times.set(times.get() + 1);
            (times.get() < 3).then(|| format!("slow, {}", times.get()))
        };
        until_fast_enough(measure, |why| told.borrow_mut().push(why)).await;
        let slow = ["slow, 1", "slow, 2"].map(|why| Some(why.to_string()));
        assert_eq!(told.into_inner(), [slow.as_slice(), &[None]].concat());
        assert_eq!(began.elapsed(), Duration::from_secs(1 + 2 + 4));
    }
}
