//! How many bytes the entries of the log take, as a sum that begins anywhere.
//!
//! ```text
//!   index      5    6    7    8
//!   bytes     10   20    5   40
//!   upto      10   30   35   75        after 6: 75 - 30 = 45
//! ```

use std::collections::VecDeque;

/// What an entry takes beside its command.
const BESIDE: u64 = 64;

/// The bytes of each entry and all before it, counted from an arbitrary beginning.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    /// The index of the first entry.
    first: u64,
    /// What came before it.
    before: u64,
    upto: VecDeque<u64>,
}

impl Weights {
    /// Appends the entry at `index`, which follows on the last one, with a command of so many bytes.
    pub(crate) fn push(&mut self, index: u64, bytes: usize) {
        if self.upto.is_empty() {
            self.first = index;
        }
        self.upto.push_back(self.total_upto_end() + bytes as u64 + BESIDE);
    }

    /// Removes the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.upto.truncate(self.place(from));
    }

    /// Removes the entries up to `upto`, inclusive.
    pub(crate) fn purge(&mut self, upto: u64) {
        let gone = self.place(upto.saturating_add(1));
        if let Some(last) = self.upto.drain(..gone).next_back() {
            self.before = last;
        }
        self.first = self.first.saturating_add(gone as u64);
    }

    /// The bytes of all entries.
    pub(crate) fn total(&self) -> u64 {
        self.total_upto_end() - self.before
    }

    /// The bytes of the entries after `index`; of all for `None`.
    pub(crate) fn after(&self, index: Option<u64>) -> u64 {
        let Some(index) = index else { return self.total() };
        self.total_upto_end() - self.total_before(self.place(index.saturating_add(1)))
    }

    /// The last entry that has to go so that those after it take at most `bytes`. `None` if none has to.
    pub(crate) fn beyond(&self, bytes: u64) -> Option<u64> {
        let goes = self.total_upto_end().saturating_sub(bytes);
        let gone = match goes > self.before {
            true => self.upto.partition_point(|upto| *upto < goes) + 1,
            false => 0,
        };
        (gone as u64).checked_sub(1).map(|last| self.first.saturating_add(last))
    }

    fn total_upto_end(&self) -> u64 {
        self.total_before(self.upto.len())
    }

    fn total_before(&self, place: usize) -> u64 {
        place.checked_sub(1).and_then(|last| self.upto.get(last)).copied().unwrap_or(self.before)
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.upto.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums by hand, for every short history of appends, cuts at the end and purges.
    #[test]
    fn the_sums_agree_with_counting_by_hand() {
        for history in 0..4_u32.pow(7) {
            let (mut weights, mut entries): (_, Vec<(u64, u64)>) = (Weights::default(), vec![]);
            let mut next = 3;
            for step in 0..7 {
                let (first, last) = (entries.first().map(|e| e.0), entries.last().map(|e| e.0));
                match (history / 4_u32.pow(step) % 4, first, last) {
                    (kind @ (0 | 1), ..) | (kind, None, _) | (kind, _, None) => {
                        let bytes = 7 * u64::from(step) + u64::from(kind) * 100;
                        weights.push(next, bytes as usize);
                        entries.push((next, bytes + BESIDE));
                        next += 1;
                    }
                    (2, _, Some(last)) => {
                        weights.truncate(last);
                        entries.retain(|e| e.0 < last);
                        next = last;
                    }
                    (_, Some(first), _) => {
                        weights.purge(first);
                        entries.retain(|e| e.0 > first);
                    }
                }
                let sum = |after: u64| entries.iter().filter(|e| e.0 > after).map(|e| e.1).sum::<u64>();
                assert_eq!((weights.total(), weights.after(None)), (sum(0), sum(0)), "{history}");
                for index in 2..12 {
                    assert_eq!(weights.after(Some(index)), sum(index), "{history} after {index}");
                }
                for bytes in [0, 64, 100, 200, 500] {
                    let must_go = entries.iter().map(|e| e.0).find(|index| sum(*index) <= bytes);
                    let expected = must_go.filter(|_| sum(0) > bytes);
                    assert_eq!(weights.beyond(bytes), expected, "{history}: {entries:?} within {bytes}");
                }
            }
        }
    }
}
