//! The ledger of a simulated machine: its notes are observations of the world.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::host::SimHost;
use super::observation::Observation;
use crate::lease::ledger::{LastEnd, Ledger, Note, Sink};

struct SimLedger(Arc<SimHost>);

/// The ledger of a process on a simulated machine. It does not know how the process before it ended.
pub(super) fn open(host: &Arc<SimHost>) -> Ledger {
    Ledger::on(Box::new(SimLedger(host.clone())), host.node(), LastEnd::None)
}

impl Sink for SimLedger {
    fn note(&self, note: Note) {
        self.0.tell(Observation::Noted(note));
    }

    fn close(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}
