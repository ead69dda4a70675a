//! The run: carries the schedule out, keeps the hosts going, and notes what was done to whom and when.
//!
//! ```text
//!   schedule ─▶ begin ─▶ the world is worse ─▶ end ─▶ better again          every tick: who has ended, who is due,
//!   health   ◀── who is hurt, down, cut off, and since when                 how does each stand
//!   at last: everything is mended, everybody must come back and work, then quiet, a last look, the end
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::faults::{Aim, FLAP, Fault, Planned};
use crate::fleet::Fleet;
use crate::health::{Health, Moment};
use crate::log::{self, now};
use crate::worker::LOCKS;
use crate::{SPIN, ledger};

/// How often the director looks.
const TICK: Duration = Duration::from_millis(20);

/// How long the hosts may take to come back when everything is mended. It is to find who never does.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long after its end a fault may show its first effect.
const SHOWS: Duration = Duration::from_secs(2);

/// What has to be undone at the end of a fault.
enum Undo {
    Nothing,
    Ways(Vec<(u64, u64)>),
    Cable(u64),
    Flapping { host: u64, pulled: bool, next: Instant },
    Switch,
    Continue(u64, u32),
    Free(u64),
    Spinners(Vec<Child>),
}

/// A fault that has begun.
struct Running {
    kind: &'static str,
    ends: Instant,
    undo: Option<Undo>,
    hurts: BTreeSet<u64>,
    frays: BTreeSet<(u64, u64)>,
    bit: bool,
    term: u64,
}

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
    running: Vec<Running>,
    /// Who has been active in its present process.
    came: BTreeSet<u64>,
    interrupted: tokio::signal::unix::Signal,
    terminated: tokio::signal::unix::Signal,
}

impl Drop for Director {
    fn drop(&mut self) {
        for running in &mut self.running {
            if let Some(Undo::Spinners(children)) = &mut running.undo {
                end(children);
            }
        }
    }
}

fn end(children: &mut [Child]) {
    for child in children {
        // One that has ended already cannot be killed; it is waited for all the same.
        let _ended = child.kill();
        let _reaped = child.wait();
    }
}

impl Director {
    /// Founds the cluster; all hosts are active when it returns.
    pub(crate) async fn found(fleet: Fleet) -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (health, met, running) = (Health::new(fleet.numbers().count() as u64), BTreeMap::new(), vec![]);
        let (interrupted, terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut all = Self { fleet, health, met, running, came: BTreeSet::new(), interrupted, terminated };
        for node in all.fleet.numbers() {
            all.fleet.start(node)?;
            let give_up = Instant::now() + PATIENCE;
            while !all.came.contains(&node) {
                ensure!(Instant::now() < give_up, "n{node} did not come in; see n{node}.err and n{node}.log");
                all.tick().await?;
            }
            all.fleet.belongs(node)?;
        }
        Ok(all)
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
        let mut moment = Moment { down, ..Moment::default() };
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

    fn term(&self) -> u64 {
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
        let mut coming: VecDeque<_> = schedule.iter().collect();
        while begun.elapsed() < length || !coming.is_empty() {
            self.tick().await?;
            while let Some(next) = coming.pop_front_if(|next| next.at <= begun.elapsed()) {
                println!("{:>8.2} s  {}", begun.elapsed().as_secs_f64(), next.fault);
                self.begin(next)?;
            }
            self.finish(Instant::now())?;
        }
        Ok(())
    }

    fn host(&self, aim: Aim) -> u64 {
        match aim {
            Aim::Host(host) => host,
            Aim::Leader => {
                let standings = self.fleet.numbers().map(|node| self.fleet.standing(node));
                let latest = standings.filter(|standing| standing.leader > 0).max_by_key(|standing| standing.term);
                latest.map_or(1, |standing| standing.leader)
            }
        }
    }

    /// All ways from and to some hosts, from and to the others.
    fn around(&self, side: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        self.fleet.net.ways().filter(|(from, to)| side.contains(from) != side.contains(to)).collect()
    }

    fn begin(&mut self, planned: &Planned) -> Result<()> {
        let all = self.fleet.numbers().count() as u64;
        let next = |host: u64| host % all + 1;
        let (mut hurts, mut frays, mut bit) = (BTreeSet::new(), BTreeSet::new(), false);
        let undo = match &planned.fault {
            Fault::OneWay { from, to } => {
                let from = self.host(*from);
                let way = (from, if *to == from { next(from) } else { *to });
                frays.insert(way);
                Undo::Ways(vec![way])
            }
            Fault::BothWays { between, and } => {
                let one = self.host(*between);
                let other = if *and == one { next(one) } else { *and };
                frays.insert((one, other));
                Undo::Ways(vec![(one, other), (other, one)])
            }
            Fault::CutOff { host } => {
                hurts.insert(self.host(*host));
                Undo::Ways(self.around(&hurts))
            }
            Fault::Half { host, hears } => {
                let host = self.host(*host);
                hurts.insert(host);
                let mut ways = self.around(&hurts);
                ways.retain(|(from, _)| (*from == host) == *hears);
                Undo::Ways(ways)
            }
            Fault::Partition { side } => {
                hurts.extend(side);
                Undo::Ways(self.around(side))
            }
            Fault::Link { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                self.fleet.net.pull(host, true)?;
                Undo::Cable(host)
            }
            Fault::Flap { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                Undo::Flapping { host, pulled: false, next: Instant::now() }
            }
            Fault::Switch => {
                hurts.extend(self.fleet.numbers());
                self.fleet.net.darken(true)?;
                Undo::Switch
            }
            Fault::Kill { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                bit = self.fleet.kill(host, planned.lasts)?;
                Undo::Nothing
            }
            Fault::KillMany { hosts } => {
                hurts.extend(hosts);
                for host in hosts {
                    bit |= self.fleet.kill(*host, planned.lasts)?;
                }
                Undo::Nothing
            }
            Fault::Pause { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                match self.fleet.process(host)? {
                    Some(process) => {
                        bit = self.fleet.signal(host, process, Signal::STOP)?;
                        Undo::Continue(host, process)
                    }
                    None => Undo::Nothing,
                }
            }
            Fault::Fill { host } => {
                hurts.insert(*host);
                self.fleet.disk(*host)?.fill()?;
                Undo::Free(*host)
            }
            Fault::Load { spinners } => Undo::Spinners(spin(*spinners, planned.lasts)?),
            Fault::Leave { host } => {
                let host = self.host(*host);
                hurts.insert(host);
                self.fleet.stays_away(host, planned.lasts)?;
                bit = self.fleet.tell(host, "leave")?;
                Undo::Nothing
            }
            Fault::HandOver { to } => {
                let leads = self.host(Aim::Leader);
                let to = if *to == leads { next(leads) } else { *to };
                // Whoever leads afterwards has been elected: that is no election that nobody wanted.
                frays.insert((leads, to));
                self.fleet.tell(leads, &format!("lead {to}"))?;
                Undo::Nothing
            }
        };
        if let Undo::Ways(ways) = &undo {
            for (from, to) in ways {
                self.fleet.net.cut(*from, *to, true)?;
            }
        }
        let (kind, ends, term) = (planned.fault.kind(), Instant::now() + planned.lasts, self.term());
        self.running.push(Running { kind, ends, undo: Some(undo), hurts, frays, bit, term });
        Ok(())
    }

    /// Ends what is over, and counts what can show nothing any more.
    fn finish(&mut self, upto: Instant) -> Result<()> {
        let mut running = std::mem::take(&mut self.running);
        for one in running.iter_mut().filter(|one| one.ends <= upto) {
            match one.undo.take() {
                Some(Undo::Ways(ways)) => {
                    for (from, to) in ways {
                        self.fleet.net.cut(from, to, false)?;
                    }
                }
                Some(Undo::Cable(host) | Undo::Flapping { host, pulled: true, .. }) => {
                    self.fleet.net.pull(host, false)?;
                }
                Some(Undo::Switch) => self.fleet.net.darken(false)?,
                // Nobody there any more: it was killed meanwhile.
                Some(Undo::Continue(host, process)) => {
                    self.fleet.signal(host, process, Signal::CONT)?;
                }
                Some(Undo::Free(host)) => self.fleet.disk(host)?.free()?,
                Some(Undo::Spinners(mut children)) => end(&mut children),
                Some(Undo::Nothing | Undo::Flapping { .. }) | None => {}
            }
        }
        for one in running {
            if one.undo.is_some() || one.ends + SHOWS > upto {
                self.running.push(one);
                continue;
            }
            let met = self.met.entry(one.kind).or_default();
            met.times += 1;
            met.bit += usize::from(one.bit);
        }
        Ok(())
    }

    /// Mends everything, and waits until all of them are well and every lock is worked under. What is missing, if the
    /// patience is at its end.
    pub(crate) async fn mend(&mut self) -> Result<(Duration, Vec<String>)> {
        let begun = Instant::now();
        let last = self.running.iter().map(|running| running.ends).max().unwrap_or(begun);
        self.finish(last.max(begun) + SHOWS)?;
        loop {
            let missing = self.missing()?;
            if missing.is_empty() || begun.elapsed() > PATIENCE {
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

    /// Everybody comes to rest, looks at every record once more, and ends.
    pub(crate) async fn rest(&mut self) -> Result<()> {
        self.all("quiet", "! quiet").await?;
        self.all("look", "! looked").await?;
        self.fleet.end()
    }

    /// Says a word to everybody and waits until each has answered; whoever begins anew meanwhile is told again.
    async fn all(&mut self, word: &str, answer: &str) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
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

/// Processes that want a processor each, and end by themselves at the latest a little after their time.
fn spin(spinners: u64, lasts: Duration) -> Result<Vec<Child>> {
    let mut children = vec![];
    for _ in 0..spinners {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(SPIN, (lasts.as_millis() + 1000).to_string()).stdin(Stdio::null()).process_group(0);
        match command.spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                end(&mut children);
                return Err(error).context("a spinner");
            }
        }
    }
    Ok(children)
}
