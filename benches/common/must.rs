//! What a benchmark does when that which it measures fails: it ends, loudly.

/// The value, or the end of this run.
#[expect(clippy::panic, reason = "a number for something that failed would be worse than none")]
pub(crate) fn must<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}
