//! The run: carries the schedule out, keeps the hosts going, and notes what was done to whom and when.
//!
//! ```text
//!   schedule ─▶ begin ─▶ the world is worse ─▶ end ─▶ better again          every tick: who has ended, who is due,
//!   health   ◀── who is hurt, down, cut off, and since when                 how does each stand
//!   at last: everything is mended, everybody must come back and work, then quiet, a last look, the end
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::faults::{FLAP, Planned};
use crate::fleet::{Ending, Fleet};
use crate::harm::{self, Running, Undo};
use crate::health::{Health, Moment};
use crate::ledger;
use crate::log::{self, now};
use crate::worker::LOCKS;
use anyhow::{Context, Result, bail, ensure};

/// How often the director looks.
const TICK: Duration = Duration::from_millis(20);

/// How long the hosts may take to come back when everything is mended. It is to find who never does.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How long after its end a fault may show its first effect.
pub(crate) const SHOWS: Duration = Duration::from_secs(2);

/// How often a kind of fault was met, and how often it was felt.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Met {
    pub(crate) times: usize,
    pub(crate) bit: usize,
}

/// A run in progress. Dropping it mends and ends everything.
pub(crate) struct Director {
    pub(crate) fleet: Fleet,
    pub(crate) health: Health,
    pub(crate) met: BTreeMap<&'static str, Met>,
    pub(crate) running: Vec<Running>,
    /// Who wants a processor all the time.
    load: Vec<std::process::Child>,
    /// Who has been active in its present process.
    came: BTreeSet<u64>,
    interrupted: tokio::signal::unix::Signal,
    terminated: tokio::signal::unix::Signal,
}

impl Drop for Director {
    fn drop(&mut self) {
        harm::end(&mut self.load);
        for running in &mut self.running {
            if let Some(Undo::Spinners(children)) = &mut running.undo {
                harm::end(children);
            }
        }
    }
}

impl Director {
    /// Founds the cluster; all hosts are active when it returns.
    pub(crate) async fn found(fleet: Fleet) -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (health, met, running) = (Health::new(fleet.numbers().count() as u64), BTreeMap::new(), vec![]);
        let (interrupted, terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut all =
            Self { fleet, health, met, running, load: vec![], came: BTreeSet::new(), interrupted, terminated };
        for node in all.fleet.numbers() {
            all.fleet.start(node)?;
            let give_up = Instant::now() + TIMEOUT;
            while !all.came.contains(&node) {
                ensure!(Instant::now() < give_up, "n{node} did not come in; see n{node}.err and n{node}.log");
                all.tick().await?;
            }
            all.fleet.belongs(node)?;
        }
        Ok(all)
    }

    /// From now on so many other processes want a processor.
    pub(crate) fn load(&mut self, load: u64, lasts: Duration) -> Result<()> {
        // Longer than the run: it takes time to mend everything.
        self.load = harm::spin(load, lasts + Duration::from_secs(120))?;
        Ok(())
    }

    /// Waits a little, and sees to everything that is due.
    async fn tick(&mut self) -> Result<()> {
        tokio::select! {
            _ = self.interrupted.recv() => bail!("interrupted"),
            _ = self.terminated.recv() => bail!("terminated"),
            () = tokio::time::sleep(TICK) => {}
        }
        self.fleet.supervise()?;
        for node in self.fleet.numbers() {
            if !self.fleet.runs(node)? {
                self.came.remove(&node);
            } else if self.fleet.standing(node).is("active") {
                self.came.insert(node);
            }
        }
        self.flap()?;
        self.feel();
        let down = self.fleet.numbers().filter(|node| !self.came.contains(node)).collect();
        let mut moment = Moment { down, busy: !self.load.is_empty(), ..Moment::default() };
        for running in self.running.iter().filter(|running| running.undo.is_some()) {
            moment.hurt.extend(&running.hurts);
            moment.frayed.extend(&running.frays);
            moment.busy |= matches!(running.undo, Some(Undo::Spinners(_)));
        }
        self.health.note(now(), moment);
        Ok(())
    }

    /// Whether a fault is felt by anybody.
    fn feel(&mut self) {
        let unwell = self.came.iter().any(|node| !self.fleet.standing(*node).well());
        let term = self.term();
        for running in &mut self.running {
            running.bit |= unwell || term > running.term;
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.fleet.numbers().map(|node| self.fleet.standing(node).term).max().unwrap_or_default()
    }

    fn flap(&mut self) -> Result<()> {
        for running in &mut self.running {
            if let Some(Undo::Flapping { host, pulled, next }) = &mut running.undo
                && *next <= Instant::now()
            {
                *pulled = !*pulled;
                *next += FLAP;
                self.fleet.net.pull(*host, *pulled)?;
            }
        }
        Ok(())
    }

    /// Carries a schedule out.
    pub(crate) async fn play(&mut self, schedule: &[Planned], length: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut coming = schedule.iter().peekable();
        while begun.elapsed() < length || coming.peek().is_some() {
            self.tick().await?;
            while let Some(next) = coming.next_if(|next| next.at <= begun.elapsed()) {
                println!("{:>8.2} s  {}", begun.elapsed().as_secs_f64(), next.fault);
                self.begin(next)?;
            }
            self.finish(Instant::now())?;
        }
        Ok(())
    }

    /// Mends everything, and waits until all of them are well and every lock is worked under. What is missing, if the
    /// timeout is at its end.
    pub(crate) async fn mend(&mut self) -> Result<(Duration, Vec<String>)> {
        let begun = Instant::now();
        let last = self.running.iter().map(|running| running.ends).max().unwrap_or(begun);
        self.finish(last.max(begun) + SHOWS)?;
        loop {
            let missing = self.missing()?;
            if missing.is_empty() || begun.elapsed() > TIMEOUT {
                return Ok((begun.elapsed(), missing));
            }
            self.tick().await?;
        }
    }

    fn missing(&mut self) -> Result<Vec<String>> {
        let mut missing = vec![];
        for node in self.fleet.numbers() {
            let standing = self.fleet.standing(node);
            let fresh = now().saturating_sub(standing.at) < 2_000_000_000;
            let words = ["quorate", "held", "active", "calm", "settled"];
            let lacks: Vec<_> = words.into_iter().filter(|word| !standing.is(word)).collect();
            if !self.fleet.runs(node)? || !fresh || !lacks.is_empty() {
                missing.push(format!("n{node} is not back: not {}", lacks.join(", ")));
            }
        }
        let worked = ledger::lately(&self.fleet.run.join("ledger"));
        for lock in LOCKS {
            let lately = worked.get(lock).is_some_and(|at| now().saturating_sub(*at) < 1_000_000_000);
            if !lately {
                missing.push(format!("nobody works under lock {lock}"));
            }
        }
        Ok(missing)
    }

    /// Everybody comes to rest, looks at every record once more, and ends. How everybody had ended before that.
    pub(crate) async fn rest(&mut self) -> Result<Vec<(u64, u64, Ending)>> {
        self.all("quiet", "! quiet").await?;
        self.all("look", "! looked").await?;
        let endings = std::mem::take(&mut self.fleet.endings);
        self.fleet.end()?;
        Ok(endings)
    }

    /// Says a word to everybody and waits until each has answered; whoever begins anew meanwhile is told again.
    async fn all(&mut self, word: &str, answer: &str) -> Result<()> {
        let give_up = Instant::now() + TIMEOUT;
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut waits: BTreeSet<u64> = self.fleet.numbers().collect();
        while let Some(first) = waits.first().copied() {
            ensure!(Instant::now() < give_up, "n{first} does not say `{answer}`");
            self.tick().await?;
            for node in waits.clone() {
                let who = self.fleet.standing(node).who;
                if who.is_empty() {
                    continue;
                }
                if told.insert(who.clone()) {
                    self.fleet.tell(node, word)?;
                }
                let text = std::fs::read_to_string(log::of(&self.fleet.run, node)).context("a log")?;
                if text.contains(&format!("\n{answer} {who}\n")) {
                    waits.remove(&node);
                }
            }
        }
        Ok(())
    }
}
