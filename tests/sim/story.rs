//! One run: a cluster forms, things go wrong for a while, everything is mended, and all must be well again; whatever is
//! seen on the way is judged.
//!
//! ```text
//!   form ─▶ calm ─▶ chaos: faults begin, last, overlap; whoever ended is started again ─▶ heal ─▶ all well ─▶ calm
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::testing::sim::{End, NetConditions, Pace, Rng, Running, Setting, TraceEntry, World};
use quorate::{Name, NodeId, Role};
use quorate_membership::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::faults::{Deed, FollowUp, Kind, Then, good_device, strike, undo};
use crate::judge::{self, Judge, Told};
use crate::majority::Majorities;
use crate::plan::Plan;
use crate::workers::{Shift, Temper};

/// How often the director looks.
const STEP: Duration = Duration::from_millis(50);

pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    judge: Judge,
    rng: Rng,
    due: Vec<(Instant, Then)>,
    returns: BTreeMap<NodeId, Instant>,
    shifts: BTreeMap<NodeId, watch::Sender<bool>>,
    /// What is kept for who plays a story of its own; empty unless asked for.
    pub(crate) kept: Vec<TraceEntry>,
    pub(crate) keep: bool,
    /// Whoever has ended is started again after so long, rather than after a time that chance has chosen.
    pub(crate) returns_after: Option<Duration>,
    /// After the last fault.
    healing: bool,
    votes_asked_for: Option<Instant>,
    clients: u64,
    faults: u64,
    /// While there are faults: every majority that is whole.
    majorities: Option<Majorities>,
}

type Done = Result<(), String>;

/// Plays a whole run.
pub(crate) async fn play(plan: Plan, aloud: bool) -> Told {
    let setting = Setting { seed: plan.seed, config: plan.config.clone(), stop: plan.stop, device: plan.device, aloud };
    let mut story = Story::new(World::new(setting), plan);
    let violation = story.whole().await.err();
    story.judge.tally.count_messages(&story.world.net.fault_counts());
    let Story { world, judge, faults, .. } = story;
    judge.tell(&world, violation, faults)
}

impl Story {
    pub(crate) fn new(world: World, plan: Plan) -> Self {
        let rng = Rng::new(plan.seed ^ 0x0d1e);
        Self {
            world,
            plan,
            judge: Judge::new(),
            rng,
            due: vec![],
            returns: BTreeMap::new(),
            shifts: BTreeMap::new(),
            kept: vec![],
            keep: false,
            returns_after: None,
            healing: false,
            votes_asked_for: None,
            clients: 0,
            faults: 0,
            majorities: None,
        }
    }

    async fn whole(&mut self) -> Done {
        self.form().await?;
        self.rest(Duration::from_secs(3)).await?;
        self.chaos().await?;
        self.heal().await?;
        self.rest(Duration::from_secs(3)).await?;
        self.judge.judge_writes()
    }

    /// A cluster of so many voters, all of them active, each lock in use.
    pub(crate) async fn form(&mut self) -> Done {
        for number in 1..=self.plan.nodes {
            let node = NodeId::new(number);
            let rate = self.plan.rates.get(number as usize).copied().unwrap_or_default();
            self.world.add_machine(node, rate);
            self.begin(node).await?;
            self.until("the cluster forms", Duration::from_secs(60), |story| judge::is_active(&story.world, node))
                .await?;
        }
        self.until("everybody holds a lease", Duration::from_secs(60), Self::all_well).await
    }

    /// Nothing is wrong, so nothing may happen: nobody is suspected, ended, or told to stop (I13).
    pub(crate) async fn rest(&mut self, span: Duration) -> Done {
        self.judge.begin_calm(&self.world);
        self.run_for(span).await?;
        self.judge.end_calm();
        Ok(())
    }

    async fn chaos(&mut self) -> Done {
        self.majorities = Some(Majorities::new(&self.plan.config));
        let ends = Instant::now() + self.plan.chaos;
        while Instant::now() < ends && !self.plan.kinds.is_empty() {
            let gap = self.rng.span(STEP, self.plan.gap);
            self.run_for(gap).await?;
            let (kind, rng) = (self.rng.pick(&self.plan.kinds).copied(), self.rng.fork());
            self.faults += 1;
            if let Some(kind) = kind.filter(|_| self.faults <= self.plan.upto) {
                self.judge.tally.count(&format!("fault {kind:?}"));
                self.strike(kind, rng).await?;
            }
        }
        self.majorities.take().into_iter().for_each(|majorities| majorities.tell(&mut self.judge.tally));
        Ok(())
    }

    fn look_at_majorities(&mut self) -> Done {
        self.majorities.as_mut().map_or(Ok(()), |majorities| majorities.look(&self.world, &self.due))
    }

    async fn strike(&mut self, kind: Kind, rng: Rng) -> Done {
        match strike(&mut self.world, kind, rng) {
            FollowUp::Later(after, then) => self.due.push((Instant::now() + after, then)),
            FollowUp::Now(deed) => self.carry_out(deed).await?,
            FollowUp::Nothing => {}
        }
        self.look_at_majorities()
    }

    async fn carry_out(&mut self, deed: Deed) -> Done {
        self.majorities.iter_mut().for_each(|majorities| majorities.expect(&deed));
        match deed {
            Deed::HandOver => {
                for Running { host, node } in self.world.running().cloned().collect::<Vec<_>>() {
                    drop(host.spawn(async move { node.hand_over(None).await }));
                }
            }
            Deed::Leave(who) => {
                let Some(Running { host, node }) = self.world.process(who).cloned() else { return Ok(()) };
                self.stop_work(who);
                let told = host.clone();
                drop(host.spawn(async move {
                    sleep(Duration::from_millis(300)).await;
                    let left = node.leave().await;
                    told.say(format!("left: {left:?}"));
                    told.end(End::Killed);
                }));
            }
            Deed::ShutDown(who) => {
                // A pause must not hold the director up.
                if self.world.process(who).is_some_and(|running| !running.host.is_paused()) {
                    drop(self.world.shut_down(who).await);
                }
            }
            Deed::Remove(who) => {
                if self.spares_a_voter() && !self.judge.gone.contains(&who) {
                    self.propose_beside(who, Command::Remove { node: who, by: None });
                }
            }
            Deed::SetRole(who, role) => {
                if role.votes() || self.spares_a_voter() {
                    self.propose_beside(who, Command::SetRole { node: who, role, by: None });
                }
            }
            Deed::Add => {
                let next = self.world.nodes().iter().map(|node| node.get()).max().unwrap_or_default() + 1;
                if self.world.nodes().len() - self.judge.gone.len() < 5 && next < 12 {
                    let rate = self.plan.rates.get(next as usize).copied().unwrap_or_default();
                    self.world.add_machine(NodeId::new(next), rate);
                    self.returns.insert(NodeId::new(next), Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Tells the workers of a node to stop.
    pub(crate) fn stop_work(&self, node: NodeId) {
        if let Some(over) = self.shifts.get(&node) {
            over.send_replace(true);
        }
    }

    /// Whether three votes are left without one: fewer survive nobody's end.
    fn spares_a_voter(&self) -> bool {
        let voters = |running: &Running| running.node.view().cluster.configuration().voters().len();
        self.world.running().all(|running| voters(running) > 3)
    }

    /// Maintenance is over: whoever is no voter is asked to be one, until it is.
    fn give_votes_back(&mut self) {
        if !self.healing || self.votes_asked_for.is_some_and(|at| at.elapsed() < Duration::from_secs(2)) {
            return;
        }
        self.votes_asked_for = Some(Instant::now());
        let Some(view) = self.world.running().next().map(|running| running.node.view()) else { return };
        for (node, _) in view.cluster.members().filter(|(_, member)| member.role != Role::Voter) {
            self.propose_beside(node, Command::SetRole { node, role: Role::Voter, by: None });
        }
    }

    /// Somebody else asks for something that concerns `who`.
    fn propose_beside(&self, who: NodeId, command: Command) {
        if let Some(Running { host, node }) = self.world.running().find(|r| r.host.node() != who).cloned() {
            drop(host.spawn(async move { node.propose(command).await }));
        }
    }

    /// Takes everything back, and waits until all is well (I14).
    pub(crate) async fn heal(&mut self) -> Done {
        self.world.say("heal");
        self.healing = true;
        self.due.clear();
        self.world.net.mend_all();
        self.world.net.set_conditions(NetConditions::default());
        good_device(&self.world);
        for node in self.world.nodes() {
            self.world.set_pace(node, Pace::Quick);
            if let Some(disk) = self.world.disk(node) {
                disk.fail_sync(0);
            }
            if let Some(running) = self.world.process(node) {
                running.host.resume();
                running.host.spare();
            }
        }
        let timeout = self.plan.timeout();
        self.until("after healing all is well again (I14)", timeout, Self::all_well).await?;
        // What was asked for last may still be under way: a node to be removed, a leader to be changed.
        self.run_for(self.plan.config.propose_timeout * 2).await?;
        self.until("after healing all stays well (I14)", timeout, Self::all_well).await
    }

    /// Lets the world go on, looking at it all the while.
    pub(crate) async fn run_for(&mut self, span: Duration) -> Done {
        let ends = Instant::now() + span;
        while Instant::now() < ends {
            sleep(STEP.min(ends - Instant::now())).await;
            self.look().await?;
        }
        Ok(())
    }

    pub(crate) async fn until(&mut self, claim: &str, timeout: Duration, what: impl Fn(&Self) -> bool) -> Done {
        let ends = Instant::now() + timeout;
        while !what(self) {
            if Instant::now() > ends {
                return Err(format!("violated: {claim}: not within {timeout:?}\n{}", self.judge.picture(&self.world)));
            }
            self.run_for(STEP).await?;
        }
        Ok(())
    }

    /// Takes in what was seen, and does what is due.
    pub(crate) async fn look(&mut self) -> Done {
        for entry in self.world.entries() {
            self.judge.see(&entry)?;
            self.majorities.as_mut().map_or(Ok(()), |majorities| majorities.see(&entry))?;
            if self.keep {
                self.kept.push(entry);
            }
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, Then)> = due;
        for (_, then) in due {
            if let Some((after, then)) = undo(&self.world, &then) {
                self.due.push((now + after, then));
            }
        }
        self.give_votes_back();
        self.look_at_majorities()?;
        self.tend().await
    }

    /// Does what a service manager does: starts what has ended, or has stopped for good.
    async fn tend(&mut self) -> Done {
        for node in self.world.nodes() {
            if self.judge.gone.contains(&node) {
                self.world.end(node, End::Killed);
                continue;
            }
            let over = self.world.process(node).and_then(|running| judge::has_ended(&running.node.view()));
            if let Some(why) = over {
                self.judge.tally.count(why);
                self.world.end(node, End::Killed);
            }
            if self.world.process(node).is_some() {
                continue;
            }
            self.world.bury(node);
            let delay = match self.rng.chance(700) {
                true => self.rng.span(Duration::from_millis(20), Duration::from_millis(1500)),
                false => self.rng.span(Duration::from_millis(1500), Duration::from_millis(9000)),
            };
            let delay = self.returns_after.unwrap_or(delay);
            let due = *self.returns.entry(node).or_insert_with(|| Instant::now() + delay);
            if due <= Instant::now() {
                self.returns.remove(&node);
                self.begin(node).await?;
            }
        }
        Ok(())
    }

    /// Starts the process of a machine, and what runs on it.
    pub(crate) async fn begin(&mut self, node: NodeId) -> Done {
        let founder = node == NodeId::new(1);
        let running = match self.world.start(node).await {
            Ok(running) => running,
            // Ended while it started: it is started again.
            Err(error) if error.to_string().contains("ended while") => return Ok(()),
            Err(error) => return Err(format!("violated: a node starts from what its machine kept: {error:#}")),
        };
        self.world.enter(&running, founder, Role::Voter);
        let (over, watched) = watch::channel(false);
        self.shifts.insert(node, over);
        let in_flight = self.plan.config.timing.plan().in_flight;
        let shift = Shift { running, over: watched, book: self.judge.book.clone(), in_flight };
        for number in 0..self.plan.locks {
            let Ok(lock) = Name::new(format!("lock{number}")) else { continue };
            let temper = Temper::draw(&mut self.rng, self.plan.config.timing.plan().margin * 2);
            shift.work(lock, temper, self.rng.fork());
        }
        self.clients += 1;
        shift.ask(self.clients, self.rng.fork());
        Ok(())
    }

    fn all_well(&self) -> bool {
        self.judge.all_well(&self.world, self.plan.locks)
    }
}
