//! The network between the nodes, which can be cut: a relay in front of each node passes every connection on.
//!
//! ```text
//!   n1 ──▶ relay of n2 ──▶ n2          the kernel tells which node calls (sockets.rs)
//!               │
//!               └ n1 ─▶ n2 dark: accepted, open, and silent; no byte passes from n1 to n2 on any connection,
//!                                be it a call of n1's or n1's answer to a call of n2's
//! ```
//!
//! Once the process of a node has ended, its relay closes the port too, as the kernel of its machine would.
//!
//! A dark direction acts like a cable without a signal: no connection is refused or reset. When both directions of a
//! pair are light again, its old connections are closed, as they would be after so long a loss of packets, and new ones
//! pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{process, sockets};

/// How soon a relay closes its port after the process behind it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The direction from one node to another.
type Way = (u64, u64);

/// The processes that the relays know, and the directions that are dark.
#[derive(Debug, Clone, Default)]
struct Net {
    /// The process of each node that runs.
    processes: BTreeMap<u64, i32>,
    dark: BTreeSet<Way>,
    /// How often each direction was made dark.
    cuts: BTreeMap<Way, u64>,
}

impl Net {
    fn is_dark(&self, (from, to): Way) -> bool {
        self.dark.contains(&(from, to))
    }

    fn is_cut(&self, (from, to): Way) -> bool {
        self.is_dark((from, to)) || self.is_dark((to, from))
    }

    fn cuts_between(&self, (from, to): Way) -> u64 {
        [(from, to), (to, from)].iter().filter_map(|way| self.cuts.get(way)).sum()
    }
}

/// The relays of all nodes.
#[derive(Debug)]
pub(crate) struct Relays {
    net: watch::Sender<Net>,
}

impl Relays {
    pub(crate) fn new() -> Self {
        Self { net: watch::Sender::new(Net::default()) }
    }

    /// Opens the relay in front of `node`. It runs as long as this process does, even if the node ends.
    pub(crate) async fn open(&self, node: u64) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a relay")?;
        let here = listener.local_addr()?;
        let net = self.net.subscribe();
        tokio::spawn(async move {
            let mut open = Some(listener);
            // Looks whether the node listens, at this pace.
            let mut pace = tokio::time::interval(LOOK);
            loop {
                let accepted = async {
                    match &open {
                        Some(listener) => listener.accept().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    accepted = accepted => if let Ok((caller, from)) = accepted {
                        let net = net.clone();
                        // An error here is an ordinary connection failure, which the nodes must handle.
                        tokio::spawn(async move { carry(net, caller, from.port(), node, here.port()).await });
                    },
                    _ = pace.tick() => match (listens(&net, node), &open) {
                        (false, Some(_)) => open = None,
                        // Its port may be taken for a moment by a connection that is being closed.
                        (true, None) => open = TcpListener::bind(here).await.ok(),
                        _ => {}
                    },
                }
            }
        });
        Ok(here)
    }

    /// Sets the process that runs as `node` from now on.
    pub(crate) fn runs(&self, node: u64, process: i32) {
        self.net.send_modify(|net| {
            net.processes.insert(node, process);
        });
    }

    /// Makes each direction in `ways` dark.
    pub(crate) fn darken(&self, ways: impl IntoIterator<Item = Way>) {
        self.net.send_modify(|net| {
            for way in ways {
                net.dark.insert(way);
                *net.cuts.entry(way).or_default() += 1;
            }
        });
    }

    /// Makes every direction light again.
    pub(crate) fn lighten(&self) {
        self.net.send_if_modified(|net| !std::mem::take(&mut net.dark).is_empty());
    }
}

/// Both directions between two nodes.
pub(crate) fn between(one: u64, other: u64) -> [Way; 2] {
    [(one, other), (other, one)]
}

/// Whether a caller of `node` is not refused. While a process runs as it, it listens. A cable without a signal refuses nothing.
fn listens(net: &watch::Receiver<Net>, node: u64) -> bool {
    let net = net.borrow();
    let dark = net.dark.iter().any(|(from, to)| *from == node || *to == node);
    let runs = |process: &i32| matches!(process::started(*process), Ok(Some(_)));
    dark || net.processes.get(&node).is_none_or(runs)
}

/// Carries one connection until it ends.
async fn carry(net: watch::Receiver<Net>, caller: TcpStream, port: u16, to: u64, relay: u16) -> Result<()> {
    // A node that only looks whether somebody listens says nothing, and its connection is gone already.
    if caller.peek(&mut [0]).await? == 0 {
        return Ok(());
    }
    let from = calling_node(&net, port, relay).await?;
    let (begun, cut) = {
        let net = net.borrow();
        (net.cuts_between((from, to)), net.is_cut((from, to)))
    };
    let mut changes = net.clone();
    let stale = changes.wait_for(|net| !net.is_cut((from, to)) && (cut || net.cuts_between((from, to)) != begun));
    let carried = async {
        if cut {
            std::future::pending::<()>().await;
        }
        let node = *net.borrow().processes.get(&to).context("the node does not run")?;
        let port = tokio::task::spawn_blocking(move || sockets::listens_on(node)).await??;
        let there = TcpStream::connect((Ipv4Addr::LOCALHOST, port.context("the node does not listen")?)).await?;
        there.set_nodelay(true)?;
        caller.set_nodelay(true)?;
        let ((from_caller, to_caller), (from_node, to_node)) = (caller.into_split(), there.into_split());
        tokio::select! {
            done = pump(net.clone(), (from, to), from_caller, to_node) => done,
            done = pump(net.clone(), (to, from), from_node, to_caller) => done,
        }
    };
    tokio::select! {
        _ = stale => Ok(()),
        done = carried => done,
    }
}

/// The node that calls. A process that has just been started may not be known yet, so this tries several times.
async fn calling_node(net: &watch::Receiver<Net>, from: u16, to: u16) -> Result<u64> {
    for _ in 0..10 {
        let processes: Vec<_> = net.borrow().processes.iter().map(|(node, pid)| (*node, *pid)).collect();
        let found = tokio::task::spawn_blocking(move || sockets::caller(from, to, &processes)).await??;
        if let Some(node) = found {
            return Ok(node);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("no process of this demo calls from port {from}")
}

/// Carries the bytes of one direction while it is light. Bytes that are under way when it becomes dark are lost, and so
/// is the end of the connection.
async fn pump(
    mut net: watch::Receiver<Net>,
    way: Way,
    mut source: OwnedReadHalf,
    mut sink: OwnedWriteHalf,
) -> Result<()> {
    let mut piece = vec![0; 64 * 1024];
    let mut whole = true;
    loop {
        let count = source.read(&mut piece).await;
        whole &= !net.borrow_and_update().is_dark(way);
        if !whole {
            std::future::pending::<()>().await;
        }
        match count? {
            0 => return Ok(()),
            count => sink.write_all(&piece[..count]).await?,
        }
    }
}
