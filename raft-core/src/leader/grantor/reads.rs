//! The reads that grants rest on, and what voters say of the grants of earlier leaders.
//!
//! ```text
//!   renewals that wait ─▶ named in every call ─▶ one linearizable read ─▶ granted, or not
//!   activated ─▶ receipts of a quorum ─▶ the waits begin when a voter heard of each life last
//! ```

use quorate_membership::lease::Round;
use quorate_membership::{Activation, Configuration, Identity};
use tokio::time::Instant;

use super::Task;
use crate::engine::receipts::Answers;
use crate::host;
use crate::host::clock;
use crate::lease::ledger::Note;
use crate::rpc::{RenewRefusal, Renewal, Renewed};

impl Task {
    /// Asks the voters when they heard of each life last, so that the waits need not begin anew. Without an answer they do.
    pub(super) fn ask_for_receipts(&mut self, activation: Activation) {
        if !self.grantor.has_unheard() {
            return;
        }
        let engine = self.engine.clone();
        self.receipts.abort_all();
        self.receipts.spawn(host::bound(async move {
            let limit = engine.config().election_max() * 2;
            let (answers, configuration) = engine.ask_for_receipts(limit).await?;
            Some((activation, answers, configuration))
        }));
    }

    pub(super) fn receipts(&mut self, asked: Option<(Activation, Answers, Configuration)>) {
        let Some((activation, answers, configuration)) = asked else { return };
        let now = clock::reading();
        if let Some(since) = self.grantor.handle_receipts(activation, &answers, &configuration, now) {
            tracing::debug!(%activation, ?since, "the voters have said when they heard of each life last");
            self.ledger.note(Note::Receipts { activation, since });
            self.tick();
        }
    }

    /// P8: at most one read per heartbeat interval, begun after the receipts that it serves.
    pub(super) fn begin_read(&mut self) {
        let heartbeat = self.engine.config().heartbeat();
        if let Some(begun) = self.read_begun.filter(|begun| begun.elapsed() < heartbeat) {
            if self.grantor.renewals().0.next().is_some() {
                self.is_due(begun + heartbeat);
            }
            return;
        }
        #[cfg(quorate_mutants)]
        if quorate_membership::mutant!("grant_without_read") {
            for (who, seq, granted) in self.grantor.poll_unread() {
                self.answer(who, seq, granted);
            }
        }
        let Some(round) = self.grantor.poll_read() else { return };
        self.read_begun = Some(Instant::now());
        // Before the read begins: whatever confirms it names the lives.
        self.engine.name_renewed(self.grantor.taken().map(|(who, _)| who).collect());
        let engine = self.engine.clone();
        self.reads.spawn(host::bound(async move {
            let limit = engine.config().timing.plan().lease;
            let Some(index) = engine.read_index_by_heartbeats(limit).await else { return (round, false) };
            let reached =
                tokio::time::timeout(limit, async { engine.progress().wait_for(|at| *at >= index).await.is_ok() });
            (round, reached.await.unwrap_or(false))
        }));
    }

    pub(super) fn read(&mut self, read: Option<(Round, bool)>) {
        // A read panicked, and it is not known which.
        let Some((round, confirmed)) = read.or_else(|| Some((self.grantor.renewals().1?.0, false))) else { return };
        let answers = match confirmed {
            true => self.engine.look(|state| self.grantor.handle_read(round, state)),
            false => self.grantor.handle_read_failed(round).into_iter().map(|(who, seq)| (who, seq, false)).collect(),
        };
        for (who, seq, granted) in answers {
            self.answer(who, seq, granted);
        }
        self.begin_read();
    }

    /// Answers a renewal. Earlier renewals of the same life, for which no read was begun, are refused.
    fn answer(&mut self, who: Identity, seq: u64, granted: bool) {
        let refused = self.refusal(RenewRefusal::NotConfirmed);
        let earlier: Vec<_> = self.waiting.range((who, 0)..(who, seq)).map(|(key, _)| *key).collect();
        for waiter in earlier.iter().filter_map(|key| self.waiting.remove(key)).flat_map(|(waiters, _)| waiters) {
            let _gone = waiter.send(refused);
        }
        let Some((waiters, received)) = self.waiting.remove(&(who, seq)) else { return };
        if let (true, Some(activation)) = (granted, self.grantor.activation()) {
            self.ledger.note(Note::Granted { who, seq, activation, received });
        }
        for waiter in waiters {
            let _gone = waiter.send(if granted { Renewed::Granted(Renewal { who, seq }) } else { refused });
        }
    }
}
