//! The parts of a running node, and how they are started and stopped. Only this room knows all of them.
//!
//! ```text
//!   engine ◀── monitor, reconciler, grantor, session table     (leader/)
//!     ▲  ◀──── renewer, releaser, succession, locks            (member/)
//!   keeper ──▶ stop mechanism, ledger                          (lease/)
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::{Address, Event, FenceProof, NodeId, Nonce};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::log_store::LogStore;
use crate::engine::lost_leader;
use crate::engine::open::Opening;
use crate::engine::retention;
use crate::error::{Fatal, StartError};
use crate::fencer::Fencer;
use crate::folder::Folder;
use crate::host::{self, random};
use crate::leader::ended;
use crate::leader::grantor;
use crate::leader::monitor::Monitor;
use crate::leader::reach::Reach;
use crate::leader::reconciler::{Reconciler, Uses};
use crate::leader::session_table::{self, SessionTable};
use crate::lease::keeper::Keeper;
use crate::lease::ledger::{Ledger, Note};
use crate::lease::renewals::{self, GrantorHandle, GrantorQueue};
use crate::lease::stop::{self, Nothing, StopMechanism};
use crate::member::departure::Departing;
use crate::member::gate::Gate;
use crate::member::join::Entrance;
use crate::member::locks::Locks;
use crate::member::releaser::{self, Releaser};
use crate::member::renewer::Renewer;
use crate::member::succession;
use crate::transport::Transport;
use crate::view::{Local, View};

/// How many findings of machines that refuse may wait for the monitor.
const REFUSING: usize = 64;

/// How long a shutdown waits until the last lines of the ledger are on the disk.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that a node needs to start.
pub struct NodeSettings {
    /// The number of the node: at least 1, chosen once for a data folder and never reused.
    pub node: NodeId,
    /// The data folder, which belongs to this node alone. It is created if it does not exist.
    pub data: PathBuf,
    /// The addresses at which other nodes reach this one: 1 to 8, most preferred first. Committed with each join.
    pub addresses: Vec<Address>,
    /// The timing and every other setting. Use the same values on every node of a cluster.
    pub config: Config,
    /// Sends calls to other nodes.
    pub transport: Arc<dyn Transport>,
    /// Ends the lives of lost nodes while this node leads. With `None`, open fence orders wait until time proves the
    /// end, an operator confirms it, or a node with a fencer leads.
    pub fencer: Option<Arc<dyn Fencer>>,
    /// Stops the work of this node at the end of its lease. With `None` nothing does so reliably, so elapsed time alone
    /// never proves the end of its lives.
    pub stop: Option<Box<dyn StopMechanism>>,
    /// Declares that the clock of this virtual machine keeps counting, because the host never freezes it. Without this,
    /// a stop mechanism that relies on time is refused in a virtual machine.
    pub trust_vm_clock: bool,
}

/// The parts of a running node.
pub(crate) struct Parts {
    pub(crate) engine: Engine,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) ledger: Ledger,
    pub(crate) releaser: Releaser,
    pub(crate) grantor: GrantorHandle,
    pub(crate) sessions: SessionTable,
    pub(crate) reach: Arc<Reach>,
    pub(crate) views: watch::Sender<View>,
    pub(crate) gate: Gate,
    folder: Arc<Mutex<Option<Folder>>>,
    addresses: Vec<Address>,
}

impl Parts {
    /// Starts everything on an open folder and an open log. The tasks run until `stop`.
    pub(crate) async fn start(
        settings: NodeSettings,
        folder: Folder,
        store: LogStore,
        ledger: Ledger,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let NodeSettings { node, data: _, addresses, mut config, transport, fencer, stop: mechanism, trust_vm_clock } =
            settings;
        let mut mechanism: Box<dyn StopMechanism> = mechanism.unwrap_or_else(|| Box::new(Nothing));
        config.timing = stop::admit(mechanism.as_mut(), config.timing, trust_vm_clock)?;
        let data = folder.path().to_path_buf();
        let unusable = |cause| StartError::Folder { path: data.clone(), cause };
        let process = Nonce::new(random().map_err(unusable)?);
        ledger.note(Note::Started { session: process });
        let (plan, process_bound) = (*config.timing.plan(), config.work_dies_with_process);
        let (disk, cluster, former_gone) = (folder.disk(), folder.cluster(), folder.former_gone());
        let noted = ledger.clone();
        // The ledger notes the end before any reader of the events can act on it.
        let on_event = Arc::new(move |event: &Event| end_of_life(event).into_iter().for_each(|note| noted.note(note)));
        let opening = Opening { node, process, config, data, disk, cluster, store, transport, on_event };
        let engine = Engine::start(opening).await?;
        let (views, _) = watch::channel(View { cluster: engine.state(), local: Local::unknown(node) });
        let (sent, outbox) = tokio::sync::mpsc::unbounded_channel();
        let mut keeper = Keeper::start(plan, mechanism, sent, ledger.clone())
            .map_err(|e| StartError::Engine(format!("the keeper's thread: {e}")))?;
        keeper.process_bound = process_bound;
        let (grantor, granting) = renewals::channel();
        let (sessions, keep_alives) = SessionTable::new();
        let parts = Arc::new(Self {
            engine,
            keeper: Arc::new(keeper),
            ledger,
            releaser: Releaser::default(),
            grantor,
            sessions,
            reach: Arc::new(Reach::new(fencer)),
            views,
            gate: Gate::default(),
            folder: Arc::new(Mutex::new(Some(folder))),
            addresses,
        });
        parts.spawn_tasks(Inputs { granting, keep_alives, outbox, former_gone }, stop);
        Ok(parts)
    }

    fn spawn_tasks(self: &Arc<Self>, inputs: Inputs, stop: &CancellationToken) {
        let Inputs { granting, keep_alives, outbox, former_gone } = inputs;
        let (engine, activation) = (&self.engine, self.grantor.activation());
        let (findings, refusing) = mpsc::channel(REFUSING);
        let urgent = Arc::new(Notify::new());
        let (keeper, views) = (self.keeper.clone(), self.views.clone());
        let monitor = Monitor::new(engine.clone(), keeper, views, refusing, urgent.clone());
        let (parts, stopped) = (self.clone(), stop.clone());
        host::spawn(async move {
            if let Some(fatal) = monitor.run(stopped).await {
                parts.shut_down(fatal).await;
            }
        });
        let (views, under) = (self.views.subscribe(), activation.clone());
        let uses = Uses { engine: engine.clone(), views, activation: under, reach: self.reach.clone(), urgent };
        host::spawn(Reconciler::new(uses).run(stop.clone()));
        host::spawn(retention::run(engine.clone(), stop.clone()));
        host::spawn(lost_leader::run(engine.clone(), stop.clone()));
        host::spawn(ended::run(engine.clone(), findings, stop.clone()));
        let (ledger, reach) = (self.ledger.clone(), self.reach.clone());
        host::spawn(grantor::run(engine.clone(), ledger, reach, granting, stop.clone()));
        let (keeper, grantor, ledger) = (self.keeper.clone(), self.grantor.clone(), self.ledger.clone());
        let renewer = Renewer { engine: engine.clone(), keeper, grantor, ledger };
        host::spawn(renewer.run(outbox, stop.clone()));
        host::spawn(releaser::run(engine.clone(), self.releaser.clone(), stop.clone()));
        host::spawn(succession::run(engine.clone(), former_gone, stop.clone()));
        host::spawn(session_table::run(engine.clone(), activation, keep_alives, stop.clone()));
    }

    /// What this node enters a cluster with.
    pub(crate) fn entrance(&self) -> Entrance {
        let (folder, addresses) = (self.folder.clone(), self.addresses.clone());
        let left = folder.lock().as_ref().and_then(Folder::left);
        Entrance { engine: self.engine.clone(), folder, addresses, views: self.views.clone(), left }
    }

    /// What this node leaves with.
    pub(crate) fn departing(&self) -> Departing {
        Departing { engine: self.engine.clone(), keeper: self.keeper.clone(), folder: self.folder.clone() }
    }

    /// What this node acquires locks with.
    pub(crate) fn locks(&self) -> Locks {
        Locks { engine: self.engine.clone(), releaser: self.releaser.clone(), keeper: self.keeper.clone() }
    }

    /// The present view: the last observation of the monitor, with the state applied since.
    pub(crate) fn latest(&self) -> View {
        let local = self.views.borrow().local.clone();
        let applied = self.engine.applied().max(local.applied);
        let (identity, lease) = (self.engine.identity(), self.keeper.view());
        View { cluster: self.engine.state(), local: Local { identity, applied, lease, ..local } }
    }

    /// Stops the engine, writes what is pending to the log and the ledger, and releases the data folder.
    pub(crate) async fn shut_down(&self, why: Fatal) {
        if !self.engine.stop(&why).await {
            return;
        }
        self.views.send_modify(|view| view.local.stopped = Some(why));
        self.engine.close();
        // The ledger is closed before another process can open the folder.
        if !self.ledger.close(LEDGER_TIMEOUT).await {
            tracing::warn!(node = %self.engine.node(), "the last lines of the ledger were not written in time");
        }
        self.folder.lock().take();
    }
}

/// What the tasks own.
struct Inputs {
    granting: GrantorQueue,
    keep_alives: session_table::SessionQueue,
    outbox: tokio::sync::mpsc::UnboundedReceiver<crate::rpc::Renewal>,
    former_gone: bool,
}

/// The ledger's note of an event that ends a life, after which others may take its work over; `None` for other events.
fn end_of_life(event: &Event) -> Option<Note> {
    let left = FenceProof::CleanLeave;
    let (who, token, order, proof) = match event {
        Event::Fenced { who, token, order, proof } => (*who, *token, Some(*order), proof),
        Event::Left { who, token } => (*who, *token, None, &left),
        _ => return None,
    };
    let (under, waited) = match proof {
        FenceProof::Expired { under, waited } => (Some(*under), Some(*waited)),
        FenceProof::Device { .. }
        | FenceProof::CleanLeave
        | FenceProof::Operator { .. }
        | FenceProof::Succeeded { .. } => (None, None),
    };
    Some(Note::Ended { who, token, order, proof: proof.kind().into(), under, waited })
}
