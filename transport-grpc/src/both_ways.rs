//! What leases and leadership depend on goes over two networks at once, where a node has two addresses.
//!
//! ```text
//!   heartbeat, confirmation, renewal, keep-alive ─┬─▶ the chosen address ───────┐
//!                                                 └─▶ the best of the others ───┴─▶ the first answer counts
//!   everything else ────────────────────────────────▶ the chosen address
//! ```
//!
//! Such a call may arrive twice, and in any order. That does no harm: each states a fact that is true when it was sent, or asks a
//! question (`Call::may_come_twice`; simulated networks deliver such calls twice). A call that could take effect twice, such as a
//! proposal, goes one way only. When one network is cut, nothing has to be noticed first: the other copy is answered.

use std::sync::Arc;

use futures_util::future::{BoxFuture, Either, select};
use quorate_raft_core::rpc::Answer;
use quorate_raft_core::{Refusal, TransportError};

use crate::links::Link;

type Answering = BoxFuture<'static, Result<Answer, TransportError>>;

/// Makes a call on both links, and gives the answer that comes first. If neither has one, the error is that of the way which may
/// have reached the node.
pub(crate) fn call(links: [Arc<Link>; 2], make: impl Fn(Arc<Link>) -> Answering + Send + 'static) -> Answering {
    let [first, rest] = links.map(make);
    Box::pin(async move {
        match select(first, rest).await {
            Either::Left((answer, other)) | Either::Right((answer, other)) => match answer {
                Ok(answer) => Ok(answer),
                Err(error) if is_final(&error) => Err(error),
                Err(error) => match other.await {
                    Err(TransportError::Unreachable(_)) if !is_elsewhere(&error) => Err(error),
                    answered => answered,
                },
            },
        }
    })
}

/// Whether the node itself has given this error.
fn is_final(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused(_)) && !is_elsewhere(error)
}

/// Whether somebody else answers at that address: it says nothing about the node.
fn is_elsewhere(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused(Refusal::OtherNode { .. } | Refusal::OtherCluster { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::Addresses;
    use crate::dial::Traffic;
    use crate::settings::ClientSettings;

    #[tokio::test]
    async fn the_first_answer_counts_and_a_refusal_is_one() {
        let unreachable = || Err(TransportError::Unreachable("cut".into()));
        let broken = || Err(TransportError::Broken("closed".into()));
        let refused = || Err(TransportError::Refused(Refusal::NotReady));
        let elsewhere = || {
            let [meant, here] = [3, 1].map(quorate_membership::NodeId::new);
            Err(TransportError::Refused(Refusal::OtherNode { meant, here }))
        };
        let never = || Err(TransportError::Timeout(std::time::Duration::MAX));
        for (ways, expected) in [
            ([unreachable(), refused()], refused()),
            ([refused(), never()], refused()),
            ([broken(), unreachable()], broken()),
            ([unreachable(), broken()], broken()),
            ([unreachable(), unreachable()], unreachable()),
            // A wrong address says nothing about the node that is reached by the right one.
            ([elsewhere(), refused()], refused()),
            ([broken(), elsewhere()], elsewhere()),
            ([elsewhere(), unreachable()], unreachable()),
        ] {
            let [first, rest] = ways.map(|answer| -> Answering {
                Box::pin(async move {
                    match answer {
                        Err(TransportError::Timeout(_)) => std::future::pending().await,
                        answer => answer,
                    }
                })
            });
            let ways = std::sync::Mutex::new(vec![rest, first]);
            let nowhere = Arc::new(Addresses::new("nobody".into(), vec![], None));
            let to_nowhere = |()| {
                let settings = ClientSettings::default();
                Link::new("nobody".into(), nowhere.clone(), None, settings, None, Traffic::default())
            };
            let links = [(); 2].map(|()| Arc::new(to_nowhere(())));
            assert_eq!(call(links, move |_| ways.lock().unwrap().pop().unwrap()).await, expected);
        }
    }
}
