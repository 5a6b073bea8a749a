//! Named points at which a test process kills itself, to see what is left on disk.

/// Aborts the process if `SYNCLINE_FAILPOINT` is this name, or `name:N` at the Nth time it is reached. Without the
/// feature `failpoints` it is nothing.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("SYNCLINE_FAILPOINT").ok()?;
        match text.rsplit_once(':') {
            Some((name, times)) => Some((name.to_owned(), times.parse().ok()?)),
            None => Some((text, 1)),
        }
    });
    if let Some((wanted, times)) = wanted
        && wanted == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        std::process::abort();
    }
}

/// Nothing: the feature `failpoints` is off.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_name: &str) {}
