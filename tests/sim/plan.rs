//! What one run is made of, drawn from its seed.

use std::time::Duration;

use quorate::testing::sim::{Rate, Rng};
use quorate::{Config, Profile, Timing, lease::Stop, timing::Plan as Times};

use crate::faults::Kind;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    pub(crate) config: Config,
    pub(crate) stop: Option<Stop>,
    pub(crate) device: bool,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rates: Vec<Rate>,
    /// How long there are faults.
    pub(crate) chaos: Duration,
    /// Between two faults, at the most.
    pub(crate) gap: Duration,
    pub(crate) locks: u64,
    /// Faults from this number on are left out: for making a failed run's schedule shorter.
    pub(crate) upto: u64,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x71a6);
        let ms = Duration::from_millis;
        let nodes = *rng.pick(&[3, 3, 3, 3, 4, 5]).unwrap_or(&3);
        let profile = *rng.pick(&[Profile::Standard, Profile::Standard, Profile::Fast]).unwrap_or(&Profile::Standard);
        let lateness = if profile == Profile::Fast { ms(50) } else { ms(250) };
        let (stop, device) = match rng.below(10) {
            0..=4 => (Some(Stop::Deadman { lateness }), false),
            5..=7 => (Some(Stop::Deadman { lateness }), true),
            _ => (None, true),
        };
        let process_bound = rng.chance(200);
        let in_flight =
            if stop.is_some() && !device && !process_bound && rng.chance(400) { ms(100) } else { Duration::ZERO };
        let timing = Timing::new(Times { in_flight, ..*profile.timing().plan() }).unwrap_or_default();
        let quick = profile == Profile::Fast;
        let config = Config {
            timing,
            suspect_after: Some(if quick { ms(200) } else { ms(600) }),
            fence_after: Some(if quick { ms(500) } else { ms(1500) }),
            fence_deadline: ms(2000),
            fence_backoff: ms(100),
            propose_timeout: ms(5000),
            snapshot_every: *rng.pick(&[32, 128, 1024]).unwrap_or(&128),
            keep_entries: *rng.pick(&[0, 8, 32]).unwrap_or(&8),
            work_dies_with_process: process_bound,
            // Not drawn, so that every other choice of a seed stays as it was.
            fencer_tells_lives_apart: device && seed.is_multiple_of(3),
            ..Config::default()
        };
        let rates = (0..16).map(|_| Rate { oscillator: rng.between(0, 20_000) as i64 - 10_000, slew: 0 }).collect();
        Self {
            seed,
            nodes,
            config,
            stop,
            device,
            kinds: Kind::draw(&mut rng),
            rates,
            chaos: rng.span(ms(20_000), ms(60_000)),
            gap: *rng.pick(&[ms(300), ms(1500), ms(5000)]).unwrap_or(&ms(1500)),
            locks: rng.between(1, 3),
            upto: u64::MAX,
        }
    }

    /// How long everything may take after the last fault until all is well again.
    pub(crate) fn timeout(&self) -> Duration {
        let timing = &self.config.timing;
        let by_time = self.stop.and_then(|stop| timing.stopped_by(stop).ok()).and_then(|timing| timing.leader_crash());
        // A leader is elected, notes who is silent, has them fenced one after the other, with what had to wait; who comes back
        // waits out its embargo, joins, and its former life is condemned after twice its own wait.
        let fenced = by_time.unwrap_or_default() * 4 + self.config.fence_after() * 2;
        let device = self.config.fence_deadline * 2 + self.config.fence_backoff * 32 + Duration::from_secs(8);
        let elected = self.config.election_max() * 8;
        elected + fenced + device + self.config.propose_timeout * 4 + Duration::from_secs(10)
    }
}
