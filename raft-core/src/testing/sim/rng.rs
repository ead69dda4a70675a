//! The random numbers of a simulated world: splitmix64 (Steele, Lea, Flood 2014), the same numbers for the same seed.

use std::time::Duration;

/// A sequence of numbers that a seed decides.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A sequence of its own, whose draws do not change those of this one.
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A span between two.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    /// One of several; `None` of none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_draw_and_a_fork_has_draws_of_its_own() {
        let (mut one, mut two) = (Rng::new(7), Rng::new(7));
        let mut fork = one.fork();
        assert_eq!(fork.draw(), two.fork().draw());
        assert_eq!(one.draw(), two.draw());
        assert_ne!(fork.draw(), one.draw());
        assert!((0..100).all(|_| (3..=5).contains(&one.between(3, 5)) && one.below(0) == 0));
    }
}
