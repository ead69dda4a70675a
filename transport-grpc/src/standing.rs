//! A watcher on a node without a majority is told so. Otherwise it would wait in silence for events that cannot come.
//!
//! ```text
//!   events ────────────────────────────────▶ ┐
//!   once a second: quorate? ─ not for two ─▶ ├──▶ watcher: Standing{quorate: false} … Standing{quorate: true}
//!                             looks          ┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use quorate_raft_core::ClientService;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::pb;

/// How often the node is looked at.
const LOOKS: Duration = Duration::from_secs(1);

struct Watcher<T> {
    events: BoxStream<'static, T>,
    service: Arc<dyn ClientService>,
    looks: Interval,
    /// What the last look saw.
    quorate: bool,
    /// What the watcher knows.
    told: bool,
}

impl<T> Watcher<T> {
    /// Looks at the node. Returns what the watcher has to be told, if it is news.
    fn look(&mut self) -> Option<pb::Standing> {
        let view = self.service.view();
        let before = std::mem::replace(&mut self.quorate, view.local.quorate);
        // One look may fall into an election.
        let news = before == self.quorate && self.told != self.quorate;
        news.then(|| {
            self.told = self.quorate;
            let leader = view.local.leader.map(|node| node.get());
            pb::Standing { quorate: self.quorate, leader, revision: view.local.applied.get() }
        })
    }
}

/// The events, and between them each loss and return of the majority. Ends with the events.
pub(crate) fn with_standing<T: Send + 'static>(
    service: Arc<dyn ClientService>,
    events: impl Stream<Item = T> + Send + 'static,
    told: fn(pb::Standing) -> T,
) -> impl Stream<Item = T> + Send + 'static {
    let mut looks = interval(LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher { events: events.boxed(), service, looks, quorate: true, told: true };
    stream::unfold(watcher, move |mut watcher| async move {
        loop {
            tokio::select! { biased;
                event = watcher.events.next() => return event.map(|event| (event, watcher)),
                _ = watcher.looks.tick() => {
                    if let Some(standing) = watcher.look() {
                        return Some((told(standing), watcher));
                    }
                }
            }
        }
    })
    .fuse()
}
