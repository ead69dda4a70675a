//! A whole cluster in one thread and in its own time.
//!
//! ```text
//!   seed ──▶ World ── machine n1 ── host: engine, log, keeper, grantor, locks, records (as shipped)
//!                  ── machine n2 ── …                       ▲ tasks, clocks, chance, disk of that machine
//!                  ── net ─────────────────────────────────┘
//!                  ── device (fences)         everything seen ──▶ trace, oracles
//! ```
//!
//! It has to run inside [`World::run`], which gives it a runtime of one thread whose time jumps from timer to timer. The
//! same seed gives the same trace, in a process of its own: task numbers are global to a process, and tokio ends tasks in
//! an order that rests on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_membership::{NodeId, Role};
use tokio::time::Instant;

use super::clocks::Rate;
use super::device::Device;
use super::host::{Machine, SimHost};
use super::net::Net;
use super::observation::{End, Observation, Sink, TraceEntry};
use super::process::{Process, Running, Setting};
use super::rng::Rng;
use super::sim_disk::Pace;
use super::time::{ManualTime, Time};
use super::transport::SimTransport;

struct Place {
    machine: Arc<Machine>,
    running: Option<Running>,
}

/// A simulated world.
pub struct World {
    /// The network between the machines.
    pub net: Net,
    /// The fencing device.
    pub device: Device,
    setting: Setting,
    time: Time,
    rng: Rng,
    sink: Sink,
    places: BTreeMap<NodeId, Place>,
}

impl World {
    /// Runs `story` in a world's time: on one thread, whose clock jumps to the next timer when nothing else is to do.
    ///
    /// Built with `--cfg tokio_unstable`, the same seed gives the same trace ([`World::IS_DETERMINISTIC`]).
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn run<F: Future>(seed: u64, story: F) -> std::io::Result<F::Output> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
        #[cfg(not(tokio_unstable))]
        let _unused = seed;
        Ok(builder.build()?.block_on(story))
    }

    /// Whether the order in which tokio wakes tasks is decided by the seed, too.
    pub const IS_DETERMINISTIC: bool = cfg!(tokio_unstable);

    /// An empty world in the time of this runtime.
    pub fn new(setting: Setting) -> Self {
        Self::made(setting, Time::of_this_runtime())
    }

    /// An empty world whose time the caller moves, for machines with a runtime each that move in step.
    pub fn with_manual_time(setting: Setting) -> (Self, ManualTime) {
        let (time, hand) = Time::with_manual_time();
        (Self::made(setting, time), hand)
    }

    fn made(setting: Setting, time: Time) -> Self {
        let mut rng = Rng::new(setting.seed);
        let net = Net::new(rng.fork());
        let device = Device::new(net.clone(), rng.fork(), setting.config.fencer_tells_lives_apart);
        let sink = Sink::new(time.clone(), setting.aloud);
        Self { net, device, setting, time, rng, sink, places: BTreeMap::new() }
    }

    /// How old it is.
    pub fn age(&self) -> Duration {
        self.time.elapsed()
    }

    /// Its random numbers, for the test that drives it.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The setting that it was made with.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The observations since the last call.
    pub fn entries(&self) -> Vec<TraceEntry> {
        self.sink.take()
    }

    /// How many lines the trace has, and their hash.
    pub fn trace(&self) -> (u64, u64) {
        self.sink.trace()
    }

    /// Adds a line to the trace.
    pub fn say(&self, what: impl Into<String>) {
        self.sink.tell(NodeId::new(0), Observation::Said(what.into()));
    }

    /// Adds a machine with clocks of that rate.
    pub fn add_machine(&mut self, node: NodeId, rate: Rate) {
        let machine = Arc::new(Machine::new(node, self.time.clone(), self.rng.fork(), rate, self.sink.clone()));
        self.places.insert(node, Place { machine, running: None });
    }

    /// Every machine.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.places.keys().copied().collect()
    }

    /// The processes that run.
    pub fn running(&self) -> impl Iterator<Item = &Running> {
        self.places.values().filter_map(|place| place.running.as_ref()).filter(|running| running.host.is_alive())
    }

    /// The process of a node, if one runs.
    pub fn process(&self, node: NodeId) -> Option<&Running> {
        self.places.get(&node)?.running.as_ref().filter(|running| running.host.is_alive())
    }

    /// Starts a process on the machine of `node`: opens its folder and its log and puts it on the network. Whether and how
    /// it comes into the cluster is [`World::enter`]'s.
    ///
    /// # Errors
    /// When it does not start, or there is no such machine.
    pub async fn start(&mut self, node: NodeId) -> anyhow::Result<Running> {
        let process = self.begin(node)?;
        let (running, _bound) =
            process.start(Arc::new(SimTransport::new(self.net.clone(), node)), vec![Net::address(node)?]).await?;
        self.net.connect(running.node.service(), running.host.clone());
        self.runs(running.clone());
        Ok(running)
    }

    /// Begins a process on the machine of `node`, for a caller that starts it over a network of its own and then reports that
    /// it [runs](World::runs).
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn begin(&mut self, node: NodeId) -> anyhow::Result<Process> {
        self.bury(node);
        let place = self.places.get(&node).with_context(|| format!("there is no machine for {node}"))?;
        let host = SimHost::new(place.machine.clone());
        host.tell(Observation::Began);
        self.net.lock().hosts.insert(node, host.clone());
        Ok(Process { host, device: self.device.clone(), setting: self.setting.clone() })
    }

    /// Registers a process that has started.
    pub fn runs(&mut self, running: Running) {
        if let Some(place) = self.places.get_mut(&running.host.node()) {
            place.running = Some(running);
        }
    }

    /// Brings a started process in, as a service does: [`Running::enter`], with all others as seeds.
    pub fn enter(&self, running: &Running, founder: bool, role: Role) {
        let others = self.nodes().into_iter().filter(|node| *node != running.host.node());
        running.enter(others.filter_map(|node| Net::address(node).ok()).collect(), founder, role);
    }

    /// Ends the process of a node, if one runs.
    pub fn end(&mut self, node: NodeId, how: End) {
        if let Some(place) = self.places.get(&node)
            && let Some(running) = &place.running
        {
            running.host.end(how);
        }
        self.bury(node);
    }

    /// Removes what is left of a process that has ended.
    pub fn bury(&mut self, node: NodeId) {
        let Some(place) = self.places.get_mut(&node) else { return };
        if let Some(running) = place.running.take_if(|running| !running.host.is_alive()) {
            self.net.disconnect(node);
            let Running { host, node } = running;
            host.enter(|| drop(node));
        }
    }

    /// Shuts the process of a node down, as a service manager does, without leaving; what has not ended within two seconds
    /// is killed.
    ///
    /// # Errors
    /// When none runs.
    pub async fn shut_down(&mut self, node: NodeId) -> anyhow::Result<()> {
        let running = self.process(node).cloned().with_context(|| format!("{node} does not run"))?;
        let handle = running.node.clone();
        // It may be killed in the middle, or hang on its disk: it ends all the same.
        let closing = running.host.spawn(async move { handle.shutdown().await });
        let _ended = tokio::time::timeout(Duration::from_secs(2), closing).await;
        drop(running);
        self.end(node, End::Killed);
        Ok(())
    }

    /// How fast the disk of a machine is from now on.
    pub fn set_pace(&self, node: NodeId, pace: Pace) {
        if let Some(place) = self.places.get(&node) {
            place.machine.sim_disk.set_pace(pace);
        }
    }

    /// The disk under the log of a node, while it runs: to set its faults.
    pub fn disk(&self, node: NodeId) -> Option<crate::testing::disk::FaultyDisk> {
        self.places.get(&node)?.machine.sim_disk.faulty()
    }

    /// How fast the clocks of a machine run from now on.
    pub fn set_rate(&self, node: NodeId, rate: Rate) {
        if let Some(place) = self.places.get(&node) {
            place.machine.set_rate(rate);
        }
    }

    /// Waits, in the world's time, until `what` holds, looking every 10 ms.
    ///
    /// # Errors
    /// When it does not within `timeout`.
    pub async fn until(&self, claim: &str, timeout: Duration, what: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let give_up = Instant::now() + timeout;
        while !what(self) {
            ensure!(Instant::now() < give_up, "not within {timeout:?}: {claim}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
