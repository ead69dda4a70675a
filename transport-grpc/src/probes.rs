//! Probes of every link to every voter: whether the node answers there, and whether large messages pass.
//!
//! ```text
//!   each address ─┬─ small, every 250 ms ── the connection of heartbeats ─────┐
//!                 └─ large, every 2 s ───── a connection of its own ──────────┴──▶ Probe ──▶ who answers? ──▶ addresses.rs
//! ```
//!
//! A large probe fills whole packets, there and back, so it is lost where a smaller MTU is. What is behind it on the same
//! connection then waits for it for ever: hence its own connection. Where a node has one address there is nothing to choose, and
//! only large ones are sent; a small one only tells whether large messages are lost or all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use quorate_membership::NodeId;
use quorate_raft_core::rpc::Caller;
use quorate_raft_core::{NodeLinks, Refusal, TransportError};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use crate::addresses::Addresses;
use crate::grpc_errors::transport_error;
use crate::links::Link;
use crate::pb;
use crate::settings::ClientSettings;

/// The size of a large probe, in bytes: more than the largest packet of any Ethernet.
const LARGE: usize = 9216;

/// How many times as seldom a large probe is sent.
const SELDOM: u32 = 8;

/// How many times as long its answer may take.
const PATIENT: u32 = 3;

/// One address that is probed.
#[derive(Debug)]
pub(crate) struct Probed {
    /// As whom this node asks, and whom.
    pub(crate) caller: Caller,
    /// The connection of small probes.
    pub(crate) small: Arc<Link>,
    /// The connection of large ones.
    pub(crate) large: Arc<Link>,
    /// The index of the address.
    pub(crate) at: usize,
    pub(crate) settings: ClientSettings,
}

/// The nodes that are probed, each by a task of its own.
#[derive(Debug, Default)]
pub(crate) struct Probes(BTreeMap<NodeId, Probing>);

/// The task that probes one node. Dropping it ends it.
#[derive(Debug)]
struct Probing {
    caller: Caller,
    addresses: Arc<Addresses>,
    task: JoinHandle<()>,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// Probes the callees from now on, and no others. A node whose addresses are the same is probed on.
    pub(crate) fn set(
        &mut self,
        nodes: impl Iterator<Item = (Caller, Arc<Addresses>)>,
        probed: impl Fn(Caller, &Arc<Addresses>, usize) -> Probed,
    ) {
        let mut former = std::mem::take(&mut self.0);
        for (caller, addresses) in nodes {
            let node = caller.to;
            let same = former
                .remove(&node)
                .filter(|probing| Arc::ptr_eq(&probing.addresses, &addresses) && probing.caller == caller);
            let probing = same.unwrap_or_else(|| {
                let all: Vec<Probed> = (0..addresses.all().len()).map(|at| probed(caller, &addresses, at)).collect();
                let several = all.len() > 1;
                let task = tokio::spawn(async move {
                    join_all(all.iter().map(|probed| probed.run(several))).await;
                });
                Probing { caller, addresses, task }
            });
            self.0.insert(node, probing);
        }
    }

    /// What is known of the links to each node.
    pub(crate) fn view(&self) -> BTreeMap<NodeId, NodeLinks> {
        self.0.iter().map(|(node, probing)| (*node, probing.addresses.view())).collect()
    }
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Came,
    /// Nothing came in time, on an open connection or on none.
    Silence,
    /// The connection ended, or somebody else answers there.
    Wrong,
}

impl Probed {
    /// Never ends.
    async fn run(&self, several: bool) {
        match several {
            true => drop(join(self.small_ones(), self.large_ones(true)).await),
            false => self.large_ones(false).await,
        }
    }

    async fn small_ones(&self) {
        let mut pace = interval(self.settings.probe_every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let addresses = self.small.addresses();
        loop {
            pace.tick().await;
            let answer = self.probe(&self.small, 0, self.settings.probe_timeout).await;
            if answer == Answer::Silence && addresses.another_answers(self.at) {
                // The node runs, so it is the connection that is silent.
                self.small.replace_current();
            }
            addresses.note_small(self.at, answer == Answer::Came);
        }
    }

    async fn large_ones(&self, several: bool) {
        let mut pace = interval(self.settings.probe_every * SELDOM);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let addresses = self.large.addresses();
        loop {
            pace.tick().await;
            let (sent, mut answer) = (Instant::now(), self.large_one().await);
            if answer == Answer::Silence {
                // Once more: a busy network also loses packets.
                answer = self.large_one().await;
            }
            if !several && answer != Answer::Came {
                let small = self.probe(&self.small, 0, self.settings.probe_timeout).await;
                addresses.note_small(self.at, small == Answer::Came);
            } else if answer == Answer::Came {
                addresses.note_small(self.at, true);
            }
            addresses.note_large(self.at, answer == Answer::Came, sent);
        }
    }

    async fn large_one(&self) -> Answer {
        let answer = self.probe(&self.large, LARGE, self.settings.probe_timeout * PATIENT).await;
        if answer == Answer::Silence {
            self.large.replace_current();
        }
        answer
    }

    async fn probe(&self, link: &Arc<Link>, size: usize, within: Duration) -> Answer {
        let asked = timeout(within, async {
            let connection = link.connection(within).await.map_err(|_| Answer::Wrong)?;
            let padding = Bytes::from(vec![0; size]);
            let answer = connection.raft().probe(pb::ProbeRequest { caller: Some(self.caller.into()), padding }).await;
            answer.map(tonic::Response::into_inner).map_err(|status| match transport_error(&status, within) {
                TransportError::Timeout(_) => Answer::Silence,
                TransportError::Refused(Refusal::OtherNode { .. } | Refusal::OtherCluster { .. }) => {
                    link.reject_address();
                    Answer::Wrong
                }
                _ => Answer::Wrong,
            })
        });
        let pb::ProbeResponse { reaches, .. } = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failed)) => return failed,
            Err(_) => return Answer::Silence,
        };
        link.addresses().note_reaches(reaches.into_iter().map(NodeId::new).collect());
        Answer::Came
    }
}
