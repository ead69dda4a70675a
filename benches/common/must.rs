//! Ends a benchmark with a panic when the operation that it measures fails.

/// Returns the value, or panics with the error.
#[expect(clippy::panic, reason = "the time of a failed operation would be misleading")]
pub(crate) fn must<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}
