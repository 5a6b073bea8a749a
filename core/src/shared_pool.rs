//! What many hold, held once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// So many are looked up before others have their turn.
const SLICE: usize = 512;

/// Values by their keys, each for as long as somebody holds it. A handle; clones are the same pool.
#[derive(Debug)]
pub(crate) struct SharedPool<K: Ord, V>(Arc<Entries<K, V>>);

type Entries<K, V> = Mutex<BTreeMap<K, Weak<Pooled<K, V>>>>;

/// A value that others find by its key.
#[derive(Debug)]
pub(crate) struct Pooled<K: Ord, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pool: Weak<Entries<K, V>>,
}

impl<K: Ord, V> Pooled<K, V> {
    /// One that nobody else finds.
    pub(crate) fn alone(key: K, value: V) -> Self {
        Self { key, value, pool: Weak::new() }
    }
}

impl<K: Ord, V> Drop for Pooled<K, V> {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut entries = lock(&pool);
        // Somebody may have made another one meanwhile.
        if entries.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.key);
        }
    }
}

impl<K: Ord, V> Default for SharedPool<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone, V> SharedPool<K, V> {
    /// Those that others hold, or new ones: `make` gives their keys a form that is fit to be kept, and their values.
    pub(crate) fn share(&self, keys: &[K], make: impl Fn(&K) -> (K, V)) -> Vec<Arc<Pooled<K, V>>> {
        let mut shared = Vec::with_capacity(keys.len());
        for keys in keys.chunks(SLICE) {
            let mut entries = lock(&self.0);
            for key in keys {
                if let Some(known) = entries.get(key).and_then(Weak::upgrade) {
                    shared.push(known);
                    continue;
                }
                let (key, value) = make(key);
                let new = Arc::new(Pooled { key: key.clone(), value, pool: Arc::downgrade(&self.0) });
                entries.insert(key, Arc::downgrade(&new));
                shared.push(new);
            }
        }
        shared
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<K> {
        lock(&self.0).keys().cloned().collect()
    }
}

fn lock<K: Ord, V>(entries: &Entries<K, V>) -> MutexGuard<'_, BTreeMap<K, Weak<Pooled<K, V>>>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_held_once_and_forgotten_with_its_last_holder() {
        let pool = SharedPool::default();
        let share = |keys: &[u32]| pool.share(keys, |key| (*key, key.to_string()));
        let one = share(&[1, 2]);
        let other = share(&[2, 3]);
        assert!(Arc::ptr_eq(&one[1], &other[0]));
        assert_eq!(one[1].value, "2");
        assert_eq!(pool.keys(), [1, 2, 3]);
        drop(one);
        assert_eq!(pool.keys(), [2, 3]);
        drop(other);
        assert!(pool.keys().is_empty());
    }
}
