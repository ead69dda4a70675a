//! What every process told of the log, set beside what the others told, and beside what their clients believe.
//!
//! ```text
//!   n1.log   ! event r40 granted lock `a` to n2#1, token r40
//!   n3.log   ! event r40 granted lock `a` to n2#1, token r40      the same, in every life of every node
//!   n2.log   < 20001000007 81234567890 granted r40                and what the client was told is in it
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::op::{CallResult, Op};
use crate::report::Violation;

/// The end of the line of a lock that passed on because its holder's end was proved.
const BY_PROOF: &str = "its holder has ended";

/// What the log has, revision by revision, as far as any process told.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    entries: BTreeMap<u64, Vec<String>>,
}

impl Agreed {
    /// Takes in what the processes of one node wrote, one life after another; `! up` begins a life.
    pub(crate) fn take_in(&mut self, text: &str) -> Result<Vec<Violation>> {
        let mut wrong = vec![];
        for life in text.split("! up ") {
            let mut told: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            // The last line may have been cut off by the end of its process.
            for line in life.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                let Some(event) = line.strip_prefix("! event r") else { continue };
                let (at, event) = event.split_once(' ').with_context(|| line.to_string())?;
                let at = at.parse().with_context(|| line.to_string())?;
                if told.last_key_value().is_some_and(|(last, _)| *last > at) {
                    wrong.push(Violation::new(format!("an event out of order: {line}"), []));
                }
                told.entry(at).or_default().push(event.into());
            }
            for (at, events) in told {
                let known = self.entries.entry(at).or_default();
                // One of the two may have been told only in part.
                let same = events.iter().zip(known.iter()).all(|(one, other)| one == other);
                if !same {
                    let title = format!("two replicas differ at r{at}:\n    {known:?}\n    {events:?}");
                    wrong.push(Violation::new(title, []));
                }
                if events.len() > known.len() {
                    *known = events;
                }
            }
        }
        Ok(wrong)
    }

    /// Whether every grant that a client was told is in the log, as that life's.
    pub(crate) fn check(&self, ops: &[Op]) -> Vec<Violation> {
        let granted = |op: &&Op| {
            let CallResult::Granted(token) = op.outcome else { return false };
            let life = op.client.split('/').next().unwrap_or_default();
            let wanted = format!("granted lock `{}` to {life}, token r{token}", op.lock().unwrap_or_default());
            !self.entries.get(&token).is_some_and(|events| events.contains(&wanted))
        };
        ops.iter().filter(granted).map(|op| Violation::new("no replica knows of this grant", [op])).collect()
    }

    /// How many locks passed on because the end of their holder was proved.
    pub(crate) fn passed_on_by_proof(&self) -> usize {
        self.entries.values().flatten().filter(|event| event.ends_with(BY_PROOF)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Call;

    const FIRST: &str = "! up n1#1\n! event r4 granted lock `a` to n1#1, token r4\n! event r9 one\n! event r9 two\n";

    #[test]
    fn replicas_that_differ_are_found_and_one_that_was_cut_off_is_not() {
        let mut agreed = Agreed::default();
        assert!(agreed.take_in(FIRST).unwrap().is_empty());
        assert!(agreed.take_in("! up n2#1\n! event r9 one\n! event r9 tw").unwrap().is_empty());
        assert_eq!(agreed.take_in("! up n3#1\n! event r9 two\n").unwrap().len(), 1);
        assert_eq!(agreed.take_in("! up n3#1\n! event r10 x\n! event r9 one\n").unwrap().len(), 1);
        // A new life tells the old entries again.
        assert!(agreed.take_in("! up n3#1\n! event r10 x\n! up n3#2\n! event r9 one\n").unwrap().is_empty());
    }

    #[test]
    fn a_grant_that_is_in_no_log_is_found() {
        let mut agreed = Agreed::default();
        agreed.take_in(FIRST).unwrap();
        let call = Call::Lock { name: "a".into() };
        let own = Op { client: "n1#1/a".into(), call, invoked: 0, returned: 1, outcome: CallResult::Granted(4) };
        assert!(agreed.check(std::slice::from_ref(&own)).is_empty());
        assert_eq!(agreed.check(&[Op { client: "n2#1/a".into(), ..own.clone() }]).len(), 1);
        assert_eq!(agreed.check(&[Op { outcome: CallResult::Granted(9), ..own }]).len(), 1);
    }
}
