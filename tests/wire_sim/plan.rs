//! What one run is made of, drawn from its seed.

use std::time::Duration;

use quorate::testing::sim::{Dice, Rate};
use quorate::{Config, Profile, Stop};

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
    /// The longest way of a packet, in fair weather.
    pub(crate) latency: Duration,
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
        let mut dice = Dice::new(seed ^ 0x2717e);
        let ms = Duration::from_millis;
        let nodes = *dice.pick(&[3, 3, 3, 5]).unwrap_or(&3);
        let profile = *dice.pick(&[Profile::Standard, Profile::Standard, Profile::Fast]).unwrap_or(&Profile::Standard);
        let quick = profile == Profile::Fast;
        let lateness = if quick { ms(50) } else { ms(250) };
        let (stop, device) = match dice.below(10) {
            0..=4 => (Some(Stop::Deadman { lateness }), false),
            5..=7 => (Some(Stop::Deadman { lateness }), true),
            _ => (None, true),
        };
        let config = Config {
            timing: profile.timing(),
            yellow: if quick { ms(200) } else { ms(600) },
            red: if quick { ms(500) } else { ms(1500) },
            fence_deadline: ms(2000),
            fence_backoff: ms(100),
            propose_timeout: ms(5000),
            snapshot_every: *dice.pick(&[32, 128, 1024]).unwrap_or(&128),
            keep_entries: *dice.pick(&[0, 8, 32]).unwrap_or(&8),
            ..Config::default()
        };
        let rates = (0..8).map(|_| Rate { oscillator: dice.between(0, 20_000) as i64 - 10_000, slew: 0 }).collect();
        Self {
            seed,
            nodes,
            config,
            stop,
            device,
            kinds: Kind::draw(&mut dice),
            rates,
            latency: *dice.pick(&[ms(1), ms(2), ms(5)]).unwrap_or(&ms(2)),
            chaos: dice.span(ms(20_000), ms(60_000)),
            gap: *dice.pick(&[ms(300), ms(1500), ms(5000)]).unwrap_or(&ms(1500)),
            locks: dice.between(1, 3),
            upto: u64::MAX,
        }
    }

    /// How long everything may take after the last fault until all is well again.
    pub(crate) fn patience(&self) -> Duration {
        let timing = &self.config.timing;
        let by_time = self.stop.and_then(|stop| timing.stopped_by(stop).ok()).and_then(|timing| timing.leader_crash());
        // Connections are found dead; a leader is elected, notes who is silent, has them fenced one after the other; who
        // comes back waits out its embargo, joins, and its former life is condemned after twice its own wait.
        let reconnected = Duration::from_secs(4);
        let fenced = by_time.unwrap_or_default() * 4 + self.config.red * 2;
        let device = self.config.fence_deadline * 2 + self.config.fence_backoff * 32 + Duration::from_secs(8);
        let elected = self.config.election_max() * 8;
        reconnected + elected + fenced + device + self.config.propose_timeout * 4 + Duration::from_secs(10)
    }
}
