//! The fencing device of a simulated world. It powers machines off, or ends one process where it tells lives apart, and
//! fails in the ways that devices fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_membership::{Evidence, FenceHint, NodeId};

use super::host::SimHost;
use super::net::Net;
use super::observation::{End, Observation};
use super::rng::Rng;
use crate::fencer::{FenceFuture, FenceRequest, Fencer, ReachFuture};

/// How many of a thousand calls of the device fail in which way. The others succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceFaults {
    /// Reports a failure, and has done nothing.
    pub fails: u64,
    /// Powers off, and reports a failure.
    pub lies_down: u64,
    /// Never answers, and has done nothing.
    pub hangs: u64,
    /// Powers off, and answers much later.
    pub late: u64,
}

struct Inside {
    faults: DeviceFaults,
    /// The nodes from which it cannot be reached.
    cut_off: BTreeSet<NodeId>,
    rng: Rng,
    /// The least and the longest time that it works at a call.
    takes: (Duration, Duration),
    /// The process that runs on each machine, as its life names it. Told apart by it, a process that ended is left alone.
    processes: BTreeMap<NodeId, FenceHint>,
}

/// The device. Clones share it.
#[derive(Clone)]
pub struct Device {
    net: Net,
    tells_lives_apart: bool,
    inside: Arc<Mutex<Inside>>,
}

impl Device {
    pub(super) fn new(net: Net, rng: Rng, tells_lives_apart: bool) -> Self {
        let (faults, cut_off, processes) = Default::default();
        let takes = (Duration::from_millis(5), Duration::from_millis(150));
        let inside = Inside { faults, cut_off, rng, takes, processes };
        Self { net, tells_lives_apart, inside: Arc::new(Mutex::new(inside)) }
    }

    pub(super) fn runs(&self, node: NodeId, hint: FenceHint) {
        self.lock().processes.insert(node, hint);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    /// Sets how the device fails from now on.
    pub fn set_faults(&self, faults: DeviceFaults) {
        self.lock().faults = faults;
    }

    /// Sets the least and the longest time that it works at a call, from now on.
    pub fn set_pace(&self, least: Duration, longest: Duration) {
        self.lock().takes = (least, longest);
    }

    /// Sets the nodes from which it cannot be reached from now on, as where one host has lost the management network.
    pub fn cut_off(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.lock().cut_off = nodes.into_iter().collect();
    }

    fn says(&self, caller: Option<&Arc<SimHost>>, what: &str) {
        if let Some(host) = caller {
            host.tell(Observation::Said(format!("device {what}")));
        }
    }
}

impl Fencer for Device {
    fn fence(&self, request: FenceRequest) -> FenceFuture {
        let (roll, takes, late) = {
            let mut inside = self.lock();
            let ms = Duration::from_millis;
            let (least, longest) = inside.takes;
            (inside.rng.below(1000), inside.rng.span(least, longest), inside.rng.span(ms(500), ms(8000)))
        };
        let (device, faults) = (self.clone(), self.lock().faults);
        Box::pin(async move {
            let caller = SimHost::current();
            tokio::time::sleep(takes).await;
            let bounds = [faults.fails, faults.lies_down, faults.hangs, faults.late];
            let mut upto = 0;
            let conduct = bounds.iter().position(|part| {
                upto += part;
                roll < upto
            });
            let target = request.target;
            if device.lock().cut_off.contains(&request.by) {
                device.says(caller.as_ref(), "cannot be reached");
                anyhow::bail!("the simulated device cannot be reached from {}", request.by);
            }
            let power_off = || {
                let host = device.net.lock().hosts.get(&target.node).cloned();
                let same = request.hint.is_some() && request.hint.as_ref() == device.lock().processes.get(&target.node);
                match (host, device.tells_lives_apart) {
                    (Some(host), false) => host.end(End::PowerCut),
                    (Some(host), true) if same => host.end(End::Killed),
                    (Some(_), true) | (None, _) => {}
                }
            };
            match conduct {
                Some(0) => {
                    device.says(caller.as_ref(), "fails");
                    anyhow::bail!("the simulated device fails")
                }
                Some(1) => {
                    power_off();
                    device.says(caller.as_ref(), "powers off and says that it failed");
                    anyhow::bail!("the simulated device does not know")
                }
                Some(2) => {
                    device.says(caller.as_ref(), "hangs");
                    std::future::pending().await
                }
                Some(_) => {
                    power_off();
                    device.says(caller.as_ref(), "is late");
                    tokio::time::sleep(late).await;
                }
                None => power_off(),
            }
            device.says(caller.as_ref(), &format!("has {} off", target.node));
            Ok(Evidence::new(format!("the simulated device reads {} as off", target.node))?)
        })
    }

    fn reach(&self, request: FenceRequest) -> ReachFuture {
        let device = self.clone();
        Box::pin(async move {
            anyhow::ensure!(!device.lock().cut_off.contains(&request.by), "it cannot be reached from {}", request.by);
            Ok(())
        })
    }
}
