//! A simulated machine, and one process on it: its clocks, tasks and random bits; paused and ended at will.
//!
//! ```text
//!   Machine       clocks, disk, data folder, boot id      outlives every process on it
//!     └ SimHost   tasks of one process: each is polled only while the process is awake and alive
//! ```
//!
//! A pause holds every task between two of its polls, as SIGSTOP would; an end drops them all where they are, as SIGKILL
//! would. What is on its way in the network then still arrives.

use std::any::Any;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::lease::Reading;
use quorate_membership::{BootId, ClusterState, Command, Event, Identity, Name, NodeId, Rejection, Revision};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::clocks::{Clocks, Rate, Timers, unscaled};
use super::observation::{Durable, End, Observation, Sink, Told};
use super::rng::Rng;
use super::sim_disk::SimDisk;
use super::time::Time;
use crate::host::{self, Host, SIMULATED, TurnTaker, task};
use crate::rpc::{Position, VoterSets};

/// A machine, which outlives the processes on it.
pub(super) struct Machine {
    pub(super) node: NodeId,
    time: Time,
    clocks: Mutex<Clocks>,
    boot: Mutex<BootId>,
    rng: Mutex<Rng>,
    pub(super) sim_disk: SimDisk,
    pub(super) sink: Sink,
}

impl Machine {
    pub(super) fn new(node: NodeId, time: Time, mut rng: Rng, rate: Rate, sink: Sink) -> Self {
        let up = Duration::from_secs(rng.between(100, 100_000));
        let boot = BootId::new(u128::from(rng.draw()) << 64 | u128::from(rng.draw()));
        let sim_disk = SimDisk::new(rng.fork());
        let clocks = Mutex::new(Clocks::new(time.elapsed(), up, rate));
        Self { node, time, clocks, boot: Mutex::new(boot), rng: Mutex::new(rng), sim_disk, sink }
    }

    /// The readings of its two clocks.
    pub(super) fn reading(&self) -> Reading {
        self.clocks.lock().read(self.time.elapsed())
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        self.clocks.lock().change(self.time.elapsed(), rate, false);
    }

    fn sleep(&self, asleep: bool) {
        let mut clocks = self.clocks.lock();
        let rate = clocks.rate();
        clocks.change(self.time.elapsed(), rate, asleep);
    }

    fn reboot(&self) {
        let mut rng = self.rng.lock();
        *self.boot.lock() = BootId::new(u128::from(rng.draw()) << 64 | u128::from(rng.draw()));
        let rate = self.clocks.lock().rate();
        *self.clocks.lock() = Clocks::new(self.time.elapsed(), Duration::from_secs(rng.between(5, 60)), rate);
    }
}

#[derive(Default)]
struct Sleepers {
    paused: bool,
    wakers: Vec<Waker>,
}

/// One process on a simulated machine.
pub struct SimHost {
    pub(super) machine: Arc<Machine>,
    alive: AtomicBool,
    /// After how many more polls it ends; 0: it does not.
    ends_after: AtomicU64,
    end: Mutex<End>,
    sleepers: Mutex<Sleepers>,
    tasks: Mutex<Vec<AbortHandle>>,
    timers: Timers,
    pub(super) told: Mutex<Option<Told>>,
}

impl std::fmt::Debug for SimHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimHost").field("node", &self.node()).field("alive", &self.is_alive()).finish_non_exhaustive()
    }
}

impl SimHost {
    pub(super) fn new(machine: Arc<Machine>) -> Arc<Self> {
        Arc::new(Self {
            machine,
            alive: AtomicBool::new(true),
            ends_after: AtomicU64::new(0),
            end: Mutex::new(End::Killed),
            sleepers: Mutex::default(),
            tasks: Mutex::default(),
            timers: Timers::default(),
            told: Mutex::default(),
        })
    }

    /// The process that the current task belongs to.
    pub(crate) fn current() -> Option<Arc<Self>> {
        let host = host::simulated()?;
        let host: Arc<dyn Any + Send + Sync> = host;
        host.downcast().ok()
    }

    /// Calls `what` as part of this process, outside of any task.
    pub(super) fn enter<T>(self: &Arc<Self>, what: impl FnOnce() -> T) -> T {
        SIMULATED.sync_scope(self.clone(), what)
    }

    /// The node of the machine.
    pub fn node(&self) -> NodeId {
        self.machine.node
    }

    /// Whether the process lives.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// The readings of the machine's clocks.
    pub fn reading(&self) -> Reading {
        self.machine.reading()
    }

    pub(crate) fn sim_disk(&self) -> &SimDisk {
        &self.machine.sim_disk
    }

    /// Whether the machine sleeps.
    pub(super) fn is_asleep(&self) -> bool {
        self.machine.clocks.lock().is_asleep()
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// How late something is, as a fraction of its bound. Mostly little.
    pub(super) fn draw_late(&self) -> f64 {
        let mut rng = self.machine.rng.lock();
        let part = if rng.chance(200) { rng.below(1000) } else { rng.below(20) };
        part as f64 / 1000.0
    }

    pub(crate) fn tell(&self, seen: Observation) {
        if self.is_alive() {
            self.machine.sink.tell(self.node(), seen);
        }
    }

    /// Observes an effect of work of `who` under a lock, now. The effect may have begun in time and come after the end of the
    /// process.
    pub fn acts(&self, lock: Name, who: Identity, token: Revision) {
        self.machine.sink.tell(self.node(), Observation::Acted { lock, who, token });
    }

    pub(crate) fn is_unsure(&self, of: Vec<Durable>) {
        self.machine.sink.tell(self.node(), Observation::Unsure(of));
    }

    /// Adds a line to the trace.
    pub fn say(&self, what: impl Into<String>) {
        self.tell(Observation::Said(what.into()));
    }

    /// Runs a task in this process. After the end of the process it never runs.
    pub fn spawn<F>(self: &Arc<Self>, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn_on(self.clone(), task)
    }

    pub(crate) fn bind<F: Future>(self: &Arc<Self>, task: F) -> impl Future<Output = F::Output> + use<F> {
        task::bind(self.clone(), task)
    }

    /// Pauses every task of the process. With `asleep` the machine sleeps, and its raw clock stands still.
    pub fn pause(&self, asleep: bool) {
        self.sleepers.lock().paused = true;
        if asleep {
            self.machine.sleep(true);
        }
    }

    /// Lets the tasks go on.
    pub fn resume(&self) {
        if self.is_asleep() {
            self.machine.sleep(false);
            // The kernel serves its timers before any process runs again.
            if self.timers.are_due(self.reading().boottime()) {
                self.fire();
            }
        }
        let woken = {
            let mut sleepers = self.sleepers.lock();
            sleepers.paused = false;
            std::mem::take(&mut sleepers.wakers)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether the tasks are paused.
    pub fn is_paused(&self) -> bool {
        self.sleepers.lock().paused
    }

    /// Ends the process by its dead-man.
    pub(super) fn fire(&self) {
        self.tell(Observation::Fired);
        self.end(End::Killed);
    }

    /// Ends the process now.
    pub fn end(&self, how: End) {
        if !self.alive.swap(false, Ordering::AcqRel) {
            return;
        }
        let told = self.told.lock().take();
        told.into_iter().for_each(|told| told(self.node(), how));
        self.machine.sink.tell(self.node(), Observation::Ended { how });
        self.machine.sleep(false);
        self.machine.sim_disk.end(how);
        if how == End::PowerCut {
            self.machine.reboot();
        }
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    /// Ends the process after `polls` more polls of its tasks: between two steps that no clock could tell apart.
    pub fn end_after(&self, polls: u64, how: End) {
        *self.end.lock() = how;
        self.ends_after.store(polls.max(1), Ordering::Release);
    }

    /// Cancels [`SimHost::end_after`].
    pub fn spare(&self) {
        self.ends_after.store(0, Ordering::Release);
    }
}

impl Host for SimHost {
    fn reading(&self) -> Reading {
        self.machine.reading()
    }

    fn boot_id(&self) -> BootId {
        *self.machine.boot.lock()
    }

    fn draw(&self) -> io::Result<u64> {
        Ok(self.machine.rng.lock().draw())
    }

    /// By its oscillator, counted from the beginning of the world.
    fn instant(&self) -> Instant {
        self.machine.time.began() + self.machine.reading().raw()
    }

    fn lasting(&self, span: Duration) -> Duration {
        unscaled(span, self.machine.clocks.lock().rate().oscillator)
    }

    /// A task instead of a thread: a second thread would make each run of a world another.
    fn run(&self, _name: &str, mut work: Box<dyn TurnTaker>, bell: Arc<Notify>) -> io::Result<()> {
        let _runs_as_long_as_the_host = host::spawn(async move {
            loop {
                let nap = work.turn();
                let _rung_or_not = tokio::time::timeout(nap, bell.notified()).await;
                if !work.handle_messages() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// A task that is started on a process that has ended never runs.
    fn started(&self, task: AbortHandle) {
        if !self.is_alive() {
            return task.abort();
        }
        let mut tasks = self.tasks.lock();
        if tasks.len() > 256 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }

    fn admits(&self, waker: &Waker) -> bool {
        if !self.is_alive() {
            return false;
        }
        let mut sleepers = self.sleepers.lock();
        if sleepers.paused {
            sleepers.wakers.push(waker.clone());
        }
        !sleepers.paused
    }

    fn stepped(&self) -> bool {
        let left = self.ends_after.load(Ordering::Acquire);
        if left > 0 {
            self.ends_after.store(left - 1, Ordering::Release);
            if left == 1 {
                let how = *self.end.lock();
                self.end(how);
            }
        }
        self.is_alive()
    }

    fn observes(&self) -> bool {
        true
    }

    fn applied(
        &self,
        at: Position,
        command: Option<Command>,
        answer: Result<Vec<Event>, Rejection>,
        state: Arc<ClusterState>,
        voters: Option<VoterSets>,
    ) {
        self.tell(Observation::Applied { at, command, answer, state, voters });
    }

    fn installed(&self, last: Option<Position>, state: Arc<ClusterState>) {
        self.tell(Observation::Installed { last, state });
    }
}
