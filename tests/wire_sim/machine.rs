//! What runs on a host of the simulation: nothing, or one process of a node that is reached over gRPC.
//!
//! ```text
//!   director ──Order──▶ host boots: node, Server on its port, workers ──▶ Running, to be looked at
//!            ──Wish───▶ hand over │ leave │ shut down
//! ```
//!
//! A host without a process is a machine that is up: who connects is refused at once. One that has crashed answers nothing.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quorate::testing::sim::{End, Process, Rng, Running};
use quorate::{Address, Name, NodeId, Role};
use quorate_transport_grpc::{GrpcTransport, Server};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::oracle::Book;
use crate::workers::{Shift, Temper};

const PORT: u16 = 7400;

/// A process to be started.
pub(crate) struct Order {
    pub(crate) process: Process,
    pub(crate) seeds: Vec<Address>,
    pub(crate) founder: bool,
    pub(crate) locks: u64,
    /// How long something begun in time may take to land.
    pub(crate) in_flight: Duration,
    /// How long a slow worker goes on.
    pub(crate) slow: Duration,
    pub(crate) client: u64,
    pub(crate) book: Book,
    pub(crate) rng: Rng,
    pub(crate) wishes: mpsc::UnboundedReceiver<Wish>,
}

/// What an operator asks of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    HandOver,
    Leave,
    ShutDown,
}

/// What the director and a host tell each other.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) order: Option<Order>,
    pub(crate) came: Option<Result<Running, String>>,
}

/// Where a node is reached.
pub(crate) fn address(node: NodeId) -> anyhow::Result<Address> {
    Ok(Address::new(format!("{node}:{PORT}"))?)
}

/// Everything that a host does until it is crashed or booted anew.
pub(crate) async fn boot(control: Rc<RefCell<Control>>) -> turmoil::Result {
    let order = control.borrow_mut().order.take();
    if let Some(order) = order {
        let told = control.clone();
        if let Err(error) = run(order, move |running| told.borrow_mut().came = Some(Ok(running))).await {
            control.borrow_mut().came = Some(Err(format!("{error:#}")));
        }
    }
    std::future::pending().await
}

async fn run(order: Order, came: impl FnOnce(Running)) -> anyhow::Result<()> {
    let Order { process, seeds, founder, locks, in_flight, slow, client, book, mut rng, mut wishes } = order;
    let here = address(process.node())?;
    let (running, service) = process.start(Arc::new(GrpcTransport::new()), vec![here]).await?;
    let server = Server::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), service).await?;
    running.enter(seeds, founder, Role::Voter);
    let (over, watched) = watch::channel(false);
    let shift = Shift { running: running.clone(), over: watched, book, in_flight };
    for number in 0..locks {
        let temper = Temper::draw(&mut rng, slow);
        shift.work(Name::new(format!("lock{number}"))?, temper, rng.fork());
    }
    shift.ask(client, rng.fork());
    drop(shift);
    came(running.clone());
    while let Some(wish) = wishes.recv().await {
        let Running { host, node } = running.clone();
        match wish {
            Wish::HandOver => drop(host.spawn(async move { node.hand_over(None).await })),
            Wish::Leave => {
                over.send_replace(true);
                let told = host.clone();
                drop(host.spawn(async move {
                    sleep(Duration::from_millis(300)).await;
                    let left = node.leave().await;
                    told.say(format!("left: {left:?}"));
                    told.end(End::Killed);
                }));
            }
            Wish::ShutDown => {
                server.shutdown().await;
                let closing = host.spawn(async move { node.shutdown().await });
                // It may be ended in the middle, or hang on its disk: it ends all the same.
                let _ended_or_not = timeout(Duration::from_secs(2), closing).await;
                running.host.end(End::Killed);
                break;
            }
        }
    }
    Ok(())
}
