//! What programs outside of the cluster ask of a node, through a server.
//!
//! ```text
//!   other programs ~~~ network ~~~▶ server ──▶ ClientService ┐
//!   other nodes    ~~~ network ~~~▶ server ──▶ PeerService   ┴─ both implemented by the node: Service
//! ```

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{ClusterState, Command, NodeId, Request, Revision, SessionId};
use tokio::sync::watch;

use crate::error::{HandOverError, ProposeError, ReadError};
use crate::feed::{FeedItem, Filter};
use crate::rpc::{Committed, KeptAlive};
use crate::transport::{PeerService, RequestName};
use crate::view::View;

/// Makes the command of a request. It is called once with a request of zeros, only to see what is asked for, and then
/// again before each attempt that goes by another name.
pub type MakeCommand = Box<dyn Fn(Request) -> Command + Send + Sync>;

/// What programs outside of the cluster ask of a node.
pub trait ClientService: Send + Sync + 'static {
    /// The latest view of the cluster and of this node.
    fn view(&self) -> View;

    /// Calls `look` once, with the committed state of the latest view. Nothing is applied on this node meanwhile, so `look`
    /// should be short, and must not call this node. A view costs more: it holds a picture of the state, and each change after
    /// it copies what it touches.
    fn look(&self, look: &mut dyn FnMut(&ClusterState)) {
        look(&self.view().cluster);
    }

    /// Proposes an operator's command. Any node forwards it to the leader.
    fn command(&self, command: Command) -> BoxFuture<'static, Result<Committed, ProposeError>>;

    /// Makes a client's command take effect once. Without a name it is proposed anew until it has taken effect or
    /// certainly has not; with one, this is one of several copies. Returns the request and the revision at which it took
    /// effect, which for a repetition is that of the first copy.
    fn once(
        &self,
        named: Option<RequestName>,
        make: MakeCommand,
    ) -> BoxFuture<'static, Result<(Request, Revision), ProposeError>>;

    /// Hands leadership over to `to`, or to the node with the longest log.
    fn hand_over(&self, to: Option<NodeId>) -> BoxFuture<'static, Result<NodeId, HandOverError>>;

    /// Every event after `revision` that matches the filter, and then new ones as they are committed.
    fn events_since(&self, revision: Revision, filter: Filter) -> BoxStream<'static, FeedItem>;

    /// Keeps a client's session alive, through the leader, within `timeout`.
    fn keep_session(&self, session: SessionId, timeout: Duration) -> BoxFuture<'static, KeptAlive>;

    /// Waits until this node has applied everything that was committed before the call.
    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'static, Result<Revision, ReadError>>;

    /// The revision up to which this node has applied the log, as it moves.
    fn applied(&self) -> watch::Receiver<Revision>;
}

/// A look at the committed state that finds something.
pub trait ClientServiceExt: ClientService {
    /// What `look` finds in the committed state of the latest view. See [`ClientService::look`] for what it must not do.
    fn looked<R>(&self, look: impl Fn(&ClusterState) -> R) -> R {
        let mut found = None;
        self.look(&mut |state| found = Some(look(state)));
        found.unwrap_or_else(|| look(&self.view().cluster))
    }
}

impl<T: ClientService + ?Sized> ClientServiceExt for T {}

/// Everything that a server offers to the network on behalf of a node.
pub trait Service: PeerService + ClientService {}

impl<T: PeerService + ClientService> Service for T {}
