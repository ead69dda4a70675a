//! Logs each change of a node's own standing once: its life, what it waits for, who leads, and whether there is a quorum.
//!
//! ```text
//!   n3#2 has joined; it waits for a proof that n3#1 has ended: …    (again when that changes)
//!   n3#2 is active          n1 leads, term 7          no quorum: …          n3#2 has left
//! ```

use std::time::Duration;

use quorate_membership::detector::Moment;
use quorate_membership::{NodeId, Phase, awaited};

use crate::view::View;

/// For how long there has to be no leader, or no quorum, before that is worth a line. An election is shorter.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// What was logged last.
#[derive(Debug, Default)]
pub(super) struct StandingLog {
    life: Option<(Phase, String)>,
    leader: Option<(NodeId, u64)>,
    /// Since when there is no quorum, and whether that was logged.
    alone: Option<(Moment, bool)>,
}

impl StandingLog {
    /// Logs what has changed since the last look.
    pub(super) fn look(&mut self, view: &View, now: Moment) {
        self.look_at_life(view);
        self.look_at_leader(view);
        self.look_at_quorum(view, now);
    }

    fn look_at_life(&mut self, view: &View) {
        let Some(who) = view.local.identity else { return };
        let Some(phase) = view.cluster.life(who).map(|life| life.phase) else { return };
        let waits = awaited(&view.cluster, who).map(|awaited| awaited.to_string()).unwrap_or_default();
        if self.life.as_ref().is_some_and(|(before, waited)| *before == phase && *waited == waits) {
            return;
        }
        match phase {
            Phase::Joining => tracing::info!(%who, "this node has joined; before it may work, it waits for {waits}"),
            Phase::Active => tracing::info!(%who, "this node is active"),
            Phase::Left => tracing::info!(%who, "this node has left"),
            Phase::Fencing => tracing::warn!(%who, "this node is being fenced"),
            Phase::Fenced => tracing::warn!(%who, "this node has been fenced; start it again for a new life"),
        }
        self.life = Some((phase, waits));
    }

    fn look_at_leader(&mut self, view: &View) {
        let (local, node) = (&view.local, view.local.node);
        let Some(leader) = local.leader.filter(|_| local.quorate) else { return };
        // A term may pass without a new leader that anybody heard of.
        if self.leader.is_none_or(|(known, _)| known != leader) {
            tracing::info!(%node, %leader, term = local.term, "a leader is known");
        }
        self.leader = Some((leader, local.term));
    }

    fn look_at_quorum(&mut self, view: &View, now: Moment) {
        let (node, voters) = (view.local.node, view.cluster.configuration().voters().len());
        match (&mut self.alone, view.local.quorate) {
            (alone @ None, false) => *alone = Some((now, false)),
            (Some((since, logged @ false)), false) if now.since(*since) >= WORTH_A_LINE => {
                *logged = true;
                if voters > 0 {
                    tracing::warn!(%node, voters, "no majority is in contact; nothing can be committed until one is");
                }
            }
            (Some((since, logged)), true) => {
                if *logged {
                    tracing::info!(%node, after = ?now.since(*since), "a majority is in contact again");
                }
                self.alone = None;
            }
            (Some(_), false) | (None, true) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use quorate_membership::{
        Address, ClusterId, ClusterState, Command, Disk, DiskId, Identity, Incarnation, Nonce, Revision, Role, apply,
    };

    use super::*;
    use crate::view::Local;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn views() -> Vec<View> {
        let (node, mut state) = (NodeId::new(3), ClusterState::new());
        let who = Identity::new(node, Incarnation::new(1));
        let join = |opened| Command::Join {
            node,
            role: Role::Learner,
            addresses: vec![Address::new("a:1").unwrap()],
            disk: Disk { id: DiskId::new(3), opened },
            boot: Default::default(),
            nonce: Nonce::new(opened.into()),
            contract: Default::default(),
            left: None,
            hint: None,
        };
        let local = Local { identity: Some(who), ..Local::unknown(node) };
        let mut views = vec![];
        for (at, command) in
            [Command::Found { cluster: ClusterId::new(1) }, join(1), Command::Leave { who }].iter().enumerate()
        {
            apply(&mut state, Revision::new(at as u64 + 1), command).unwrap();
            views.push(View::new(Arc::new(state.clone()), local.clone()));
        }
        let led = Local { quorate: true, leader: Some(NodeId::new(1)), term: 7, ..local };
        views.push(View::new(Arc::new(state), led));
        views
    }

    #[test]
    fn each_change_is_one_line_with_the_node_and_nothing_is_repeated() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut log = StandingLog::default();
            for view in views() {
                for look in 0..3 {
                    log.look(&view, Moment::new(Duration::from_millis(look)));
                }
            }
        });
        let bytes = written.0.lock().unwrap().clone();
        let lines: Vec<&str> = std::str::from_utf8(&bytes).unwrap().lines().map(str::trim).collect();
        let said = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(
            said("before it may work, it waits for a place among those who receive the log who=n3#1"),
            1,
            "{lines:#?}"
        );
        assert_eq!(said("this node has left who=n3#1"), 1, "{lines:#?}");
        assert_eq!(said("a leader is known node=n3 leader=n1 term=7"), 1, "{lines:#?}");
        assert_eq!(lines.len(), 3, "{lines:#?}");
    }
}
