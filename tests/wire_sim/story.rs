//! One run: a cluster forms, its wires fail for a while, everything is mended, and all must be well again; whatever is seen
//! on the way is judged.
//!
//! ```text
//!   director ─┬─ turmoil: one step of every host ─▶ the world's time ─▶ look: judge what was seen, bury, start again
//!             └─ deeds that are due: cut, hold, lag, lose, end, ask
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use quorate::NodeId;
use quorate::testing::sim::{DeviceFaults, End, ManualTime, Observation, Pace, Rng, Setting, World};
use tokio::sync::mpsc;

use crate::faults::Deed;
use crate::judge::{self, Judge, Told};
use crate::machine::{Control, Order, Wish, address, boot};
use crate::plan::Plan;

/// How far every host runs on by itself before the others follow.
const STEP: Duration = Duration::from_millis(1);

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Until connections are found dead.
const RECONNECTED: Duration = Duration::from_secs(4);

type Done = Result<(), String>;

/// One machine, as the director knows it.
#[derive(Default)]
struct Seat {
    control: Rc<RefCell<Control>>,
    wishes: Option<mpsc::UnboundedSender<Wish>>,
    /// Somebody was told to start a process there, and it has not come yet.
    starting: bool,
    /// It has lost power, and is cut off until it boots.
    dark: bool,
    /// When a process is started there; drawn when there is none.
    returns: Option<Duration>,
}

struct Story {
    sim: turmoil::Sim<'static>,
    hand: ManualTime,
    world: World,
    plan: Plan,
    /// The longest way of a packet, in fair conditions.
    latency: Duration,
    seats: BTreeMap<NodeId, Seat>,
    judge: Judge,
    rng: Rng,
    due: Vec<(Duration, Deed)>,
    clients: u64,
    faults: u64,
}

/// Plays a whole run.
pub(crate) fn play(plan: Plan, aloud: bool) -> Told {
    let setting = Setting { seed: plan.seed, config: plan.config.clone(), stop: plan.stop, device: plan.device, aloud };
    let mut story = Story::new(setting, plan);
    let violation = story.whole().err();
    let Story { world, judge, faults, .. } = story;
    judge.tell(&world, violation, faults)
}

impl Story {
    fn new(setting: Setting, plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x0d1e);
        let latency = Duration::from_millis(*rng.pick(&[1, 2, 5]).unwrap_or(&2));
        let mut builder = turmoil::Builder::new();
        builder.rng_seed(plan.seed).tick_duration(STEP).simulation_duration(Duration::from_secs(86_400));
        builder.min_message_latency(Duration::ZERO).max_message_latency(latency).tcp_capacity(1024);
        let mut sim = builder.enable_random_order().build();
        let (mut world, hand) = World::with_manual_time(setting);
        let mut seats = BTreeMap::new();
        for number in 1..=plan.nodes {
            let node = NodeId::new(number);
            world.add_machine(node, plan.rates.get(number as usize).copied().unwrap_or_default());
            // Told to start when it is its turn.
            let seat = Seat { returns: Some(Duration::MAX), ..Seat::default() };
            let control = seat.control.clone();
            sim.host(node.to_string(), move || boot(control.clone()));
            seats.insert(node, seat);
        }
        Self { sim, hand, world, judge: Judge::new(), rng, latency, plan, seats, due: vec![], clients: 0, faults: 0 }
    }

    fn whole(&mut self) -> Done {
        for node in self.world.nodes() {
            if let Some(seat) = self.seats.get_mut(&node) {
                seat.returns = None;
            }
            self.until("the cluster forms", Duration::from_secs(60), |story| judge::is_active(&story.world, node))?;
        }
        self.until("everybody holds a lease", Duration::from_secs(60), Self::all_well)?;
        self.rest(Duration::from_secs(3))?;
        self.chaos()?;
        self.heal()?;
        self.rest(Duration::from_secs(3))?;
        self.judge.judge_writes()
    }

    /// Nothing is wrong, so nothing may happen: nobody is suspected, ended, or told to stop (I13).
    fn rest(&mut self, span: Duration) -> Done {
        self.judge.begin_calm(&self.world);
        self.run_for(span)?;
        self.judge.end_calm();
        Ok(())
    }

    fn chaos(&mut self) -> Done {
        let ends = self.now() + self.plan.chaos;
        let nodes = self.world.nodes();
        while self.now() < ends {
            let gap = self.rng.span(LOOK, self.plan.gap);
            self.run_for(gap)?;
            let (kind, mut rng) = (self.rng.pick(&self.plan.kinds).copied(), self.rng.fork());
            self.faults += 1;
            if let Some(kind) = kind.filter(|_| self.faults <= self.plan.upto) {
                self.judge.tally.count(&format!("fault {kind:?}"));
                self.world.say(format!("fault {kind:?}"));
                let (now, deeds) = (self.now(), kind.unfold(&nodes, self.latency, &mut rng));
                self.due.extend(deeds.into_iter().map(|(after, deed)| (now + after, deed)));
            }
        }
        Ok(())
    }

    /// Takes everything back, and waits until all is well (I14).
    fn heal(&mut self) -> Done {
        self.due.clear();
        let nodes = self.world.nodes();
        let links: Vec<_> = nodes.iter().flat_map(|a| nodes.iter().map(|b| (*a, *b))).filter(|(a, b)| a < b).collect();
        self.carry_out(Deed::Mend(links.clone()));
        for (a, b) in links {
            self.carry_out(Deed::Lose(a, b, 0.0));
            self.carry_out(Deed::Lag(a, b, self.latency));
        }
        self.carry_out(Deed::Device(DeviceFaults::default()));
        nodes.into_iter().for_each(|node| self.carry_out(Deed::Disk(node, Pace::Quick)));
        // A stream that lost a packet before is broken, and looks well until its keep-alive finds out: that is not calm yet.
        self.run_for(RECONNECTED)?;
        self.until("after healing all is well again (I14)", self.plan.timeout(), Self::all_well)
    }

    fn carry_out(&mut self, deed: Deed) {
        self.world.say(format!("{deed:?}"));
        let name = |node: &NodeId| node.to_string();
        match deed {
            Deed::Cut(links) => links.iter().for_each(|(a, b)| self.sim.partition(name(a), name(b))),
            Deed::CutOneWay(from, to) => self.sim.partition_oneway(name(&from), name(&to)),
            Deed::Hold(links) => links.iter().for_each(|(a, b)| self.sim.hold(name(a), name(b))),
            Deed::Mend(links) => {
                // What is held arrives; what was dropped is gone. A machine without power stays out of reach.
                let dark = |node: &NodeId| self.seats.get(node).is_some_and(|seat| seat.dark);
                for (a, b) in links.iter().filter(|(a, b)| !dark(a) && !dark(b)) {
                    self.sim.release(name(a), name(b));
                }
            }
            Deed::Lag(a, b, longest) => self.sim.set_link_max_message_latency(name(&a), name(&b), longest),
            Deed::Lose(a, b, rate) => self.sim.set_link_fail_rate(name(&a), name(&b), rate),
            // What else an end means to the wire, follows when it is seen.
            Deed::End(nodes, how) => nodes.iter().for_each(|node| {
                if let Some(running) = self.world.process(*node) {
                    running.host.end(how);
                }
            }),
            Deed::Disk(node, pace) => self.world.set_pace(node, pace),
            Deed::Device(faults) => self.world.device.set_faults(faults),
            Deed::Ask(node, wish) => {
                if let Some(wishes) = self.seats.get(&node).and_then(|seat| seat.wishes.as_ref()) {
                    let _gone_or_told = wishes.send(wish);
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets the world go on, looking at it all the while.
    fn run_for(&mut self, span: Duration) -> Done {
        let ends = self.now() + span;
        while self.now() < ends {
            self.sim.step().map_err(|error| format!("violated: nothing in a host fails unnoticed: {error}"))?;
            self.hand.show(self.sim.elapsed());
            self.look()?;
        }
        Ok(())
    }

    fn until(&mut self, claim: &str, timeout: Duration, what: impl Fn(&Self) -> bool) -> Done {
        let ends = self.now() + timeout;
        while !what(self) {
            if self.now() > ends {
                return Err(format!("violated: {claim}: not within {timeout:?}\n{}", self.judge.picture(&self.world)));
            }
            self.run_for(LOOK)?;
        }
        Ok(())
    }

    fn look(&mut self) -> Done {
        for entry in self.world.entries() {
            self.judge.see(&entry)?;
            if let Observation::Ended { how } = entry.seen {
                self.fell(entry.node, how);
            }
        }
        let now = self.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        due.into_iter().for_each(|(_, deed)| self.carry_out(deed));
        self.tend()
    }

    /// A process has ended. Killed: its kernel closes what it had open, and refuses who comes. Without power: silence.
    fn fell(&mut self, node: NodeId, how: End) {
        if how == End::PowerCut {
            for other in self.world.nodes().into_iter().filter(|other| *other != node) {
                self.sim.partition(node.to_string(), other.to_string());
            }
            self.sim.crash(node.to_string());
        } else {
            self.sim.bounce(node.to_string());
        }
        self.world.bury(node);
        if let Some(seat) = self.seats.get_mut(&node) {
            *seat = Seat { control: seat.control.clone(), dark: how == End::PowerCut, ..Seat::default() };
            *seat.control.borrow_mut() = Control::default();
        }
    }

    /// Does what a service manager does: starts what has ended, or has stopped for good.
    fn tend(&mut self) -> Done {
        let now = self.now();
        for node in self.world.nodes() {
            if let Some(running) = self.world.process(node) {
                // Twenty times a second is often enough for views.
                if now.as_millis().is_multiple_of(LOOK.as_millis())
                    && let Some(why) = judge::has_ended(&running.node.view())
                {
                    self.judge.tally.count(why);
                    running.host.end(End::Killed);
                }
                continue;
            }
            let Some(seat) = self.seats.get_mut(&node) else { continue };
            let came = seat.control.borrow_mut().came.take();
            match came {
                Some(Ok(running)) => {
                    seat.starting = false;
                    self.world.runs(running);
                }
                Some(Err(why)) if !why.contains("ended while") => {
                    return Err(format!("violated: a node starts from what its machine kept: {node}: {why}"));
                }
                Some(Err(_)) => seat.starting = false,
                None if seat.starting => {}
                None => {
                    let rng = &mut self.rng;
                    let span = if rng.chance(700) { 20..1500 } else { 1500..9000 };
                    let mut delay = || rng.span(Duration::from_millis(span.start), Duration::from_millis(span.end));
                    if *seat.returns.get_or_insert_with(|| now + delay()) <= now {
                        self.start(node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, node: NodeId) -> Done {
        let process = self.world.begin(node).map_err(|error| format!("violated: {error:#}"))?;
        self.clients += 1;
        let (wishes, heard) = mpsc::unbounded_channel();
        let order = Order {
            process,
            seeds: self
                .world
                .nodes()
                .into_iter()
                .filter(|other| *other != node)
                .filter_map(|node| address(node).ok())
                .collect(),
            founder: node == NodeId::new(1),
            locks: self.plan.locks,
            in_flight: self.plan.config.timing.plan().in_flight,
            slow: self.plan.config.timing.plan().margin * 2,
            client: self.clients,
            book: self.judge.book.clone(),
            rng: self.rng.fork(),
            wishes: heard,
        };
        let Some(seat) = self.seats.get_mut(&node) else { return Ok(()) };
        let was_dark = std::mem::take(&mut seat.dark);
        (seat.wishes, seat.starting, seat.returns) = (Some(wishes), true, None);
        seat.control.borrow_mut().order = Some(order);
        if was_dark {
            let others = self.world.nodes().into_iter().filter(|other| *other != node);
            let links = others.map(|other| (node, other)).collect();
            self.carry_out(Deed::Mend(links));
        }
        self.sim.bounce(node.to_string());
        Ok(())
    }

    fn all_well(&self) -> bool {
        self.judge.all_well(&self.world, self.plan.locks)
    }
}
