//! A map whose values are made once each by async work, and waited for by threads and by other async work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::watch;

/// Values by key; each key's work is started at most once.
pub struct OnceMap<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    done: Condvar,
}

struct Slot<V> {
    value: Option<V>,
    changed: watch::Sender<bool>,
}

impl<K: Hash + Eq + Clone, V: Clone> OnceMap<K, V> {
    pub fn new() -> Self {
        Self {
            slots: Mutex::new(HashMap::new()),
            done: Condvar::new(),
        }
    }

    /// Whether the caller is the first to name `key`, and so has to make its value and [`OnceMap::fill`] it.
    pub fn claim(&self, key: &K) -> bool {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.entry(key.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(Slot {
                    value: None,
                    changed: watch::Sender::new(false),
                });
                true
            }
        }
    }

    pub fn fill(&self, key: &K, value: V) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(key) {
            slot.value = Some(value);
            slot.changed.send_replace(true);
        }
        self.done.notify_all();
    }

    /// The value of a claimed key; blocks the thread until it is filled.
    pub fn wait(&self, key: &K) -> V {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = slots.get(key).and_then(|slot| slot.value.clone()) {
                return value;
            }
            slots = self.done.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Like [`OnceMap::wait`], for async work.
    pub async fn get(&self, key: &K) -> Option<V> {
        let mut changed = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(key)?;
            if slot.value.is_some() {
                return slot.value.clone();
            }
            slot.changed.subscribe()
        };
        let _ = changed.wait_for(|done| *done).await;
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(key)?.value.clone()
    }
}
