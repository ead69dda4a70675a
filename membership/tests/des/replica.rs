//! A replica applies what is committed, through the production rules, and tells both sides of the leases.

use std::time::Duration;

use quorate_membership::lease::Reading;
use quorate_membership::{Command, Rejection, Revision, apply};

use crate::setup::Weakness;
use crate::world::World;

impl World {
    /// Applies all that is committed, as far as this node knows.
    pub(crate) fn apply_committed(&mut self, i: usize) {
        let Some(commit) = self.seat(i).map(|seat| seat.commit) else { return };
        if self.machines[i].disk.applied >= commit {
            return;
        }
        while self.machines[i].disk.applied < commit {
            self.apply_next(i);
        }
        self.tell_grantor(i);
        self.look_at_own_life(i);
    }

    fn apply_next(&mut self, i: usize) {
        let disk = &mut self.machines[i].disk;
        disk.applied += 1;
        let index = disk.applied;
        let Some(command) = disk.log[index as usize - 1].command.clone() else { return };
        match apply(&mut disk.state, Revision::new(index), &command) {
            Ok(events) => {
                for event in &events {
                    disk.jobs.apply(event, index, &disk.state);
                }
                self.witness(&command, &events);
            }
            Err(Rejection::OtherActivation { .. }) => self.tally.count("an expiry of an earlier activation was void"),
            Err(Rejection::Majority { .. }) => self.tally.count(match *command {
                Command::Expire { .. } => "an expiry was refused for want of a majority",
                _ => "an order was refused for want of a majority",
            }),
            Err(_) => self.tally.count("a command was rejected"),
        }
    }

    fn tell_grantor(&mut self, i: usize) {
        let (now, weak, wait) = (self.reading(i), self.setup.is(Weakness::NewLeaderDoesNotWait), self.times.wait);
        let machine = &mut self.machines[i];
        let (Some(process), state) = (&mut machine.process, &machine.disk.state) else { return };
        let grantor = &mut process.leader_side.grantor;
        let before = grantor.activation();
        if weak {
            let mut tried = grantor.clone();
            tried.handle_applied(state, now);
            let long_ago = Duration::from_nanos(2 * wait);
            let earlier = |t: Duration| t.saturating_sub(long_ago);
            let fresh = tried.activation() != before;
            let from = if fresh { Reading::new(earlier(now.boottime()), earlier(now.raw())) } else { now };
            grantor.handle_applied(state, from);
        } else {
            grantor.handle_applied(state, now);
        }
        if grantor.activation().is_some() && grantor.activation() != before {
            self.tally.count("activated as leader");
        }
    }
}
