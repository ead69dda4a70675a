//! A fencing device for tests: behaves as the test wants, and records its calls.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::{Evidence, NodeId};

use crate::fencer::{FenceFuture, FenceRequest, Fencer, ReachFuture};

/// How the device answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceBehaviour {
    /// Isolates the target, and reports success.
    Succeed,
    /// Says that it failed.
    Fail,
    /// Never answers.
    Hang,
    /// Isolates the target, and reports success only after that time.
    Late(Duration),
    /// Panics.
    Panic,
}

#[derive(Debug, Default)]
struct Device {
    next: VecDeque<DeviceBehaviour>,
    always: Option<DeviceBehaviour>,
    asked: Vec<FenceRequest>,
    out_of_reach: BTreeSet<NodeId>,
}

/// The device. Clones share it, so that one is asked by every node of a [`TestCluster`](super::TestCluster).
#[derive(Debug, Clone, Default)]
pub struct TestFencer(Arc<Mutex<Device>>);

impl TestFencer {
    /// How the next requests are answered, in order; after them it succeeds.
    pub fn then(&self, conduct: impl IntoIterator<Item = DeviceBehaviour>) {
        self.0.lock().next.extend(conduct);
    }

    /// How every request is answered once those of [`Self::then`] are used up.
    pub fn always(&self, conduct: DeviceBehaviour) {
        self.0.lock().always = Some(conduct);
    }

    /// From now on it cannot be reached from `node`: calls from there fail. Other settings are for other nodes.
    pub fn out_of_reach_of(&self, node: NodeId) {
        self.0.lock().out_of_reach.insert(node);
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<FenceRequest> {
        self.0.lock().asked.clone()
    }
}

impl Fencer for TestFencer {
    fn fence(&self, request: FenceRequest) -> FenceFuture {
        let mut device = self.0.lock();
        if device.out_of_reach.contains(&request.by) {
            device.asked.push(request);
            return Box::pin(async { anyhow::bail!("the test device cannot be reached from here") });
        }
        let conduct = device.next.pop_front().or(device.always).unwrap_or(DeviceBehaviour::Succeed);
        let seen = format!("the test device reports {} off", request.target);
        device.asked.push(request);
        drop(device);
        Box::pin(async move {
            match conduct {
                DeviceBehaviour::Succeed => Ok(Evidence::new(seen)?),
                DeviceBehaviour::Fail => anyhow::bail!("the test device was told to fail"),
                DeviceBehaviour::Hang => std::future::pending().await,
                DeviceBehaviour::Late(after) => {
                    tokio::time::sleep(after).await;
                    Ok(Evidence::new(seen)?)
                }
                #[expect(clippy::panic, reason = "the point of this conduct")]
                DeviceBehaviour::Panic => panic!("the test device was told to panic"),
            }
        })
    }

    fn reach(&self, request: FenceRequest) -> ReachFuture {
        let reached = !self.0.lock().out_of_reach.contains(&request.by);
        Box::pin(async move {
            anyhow::ensure!(reached, "the test device cannot be reached from here");
            Ok(())
        })
    }
}
