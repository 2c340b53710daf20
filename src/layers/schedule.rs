//! Which of several layers is made next, where what they are made from is still arriving.
//!
//! Whoever is free takes the largest one that can be made: one that begins last would keep a single processor busy. It knows sizes
//! and an order, and nothing of layers.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::splice::Threads;

struct State {
    /// Not begun; those that can be.
    ready: Vec<usize>,
    /// Of all that were not begun.
    left: u64,
    /// Nothing more becomes ready.
    closed: bool,
}

struct Schedule<'a> {
    sizes: &'a [u64],
    state: Mutex<State>,
    changed: Condvar,
}

impl Schedule<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, ready: &[usize]) {
        self.state().ready.extend(ready);
        self.changed.notify_all();
    }

    /// Nothing else is begun, or nothing but what is ready.
    fn close(&self, at_once: bool) {
        let mut state = self.state();
        state.closed = true;
        if at_once {
            state.ready.clear();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next one, and on how many threads; waits for one.
    fn next(&self, workers: u64) -> Option<(usize, Threads)> {
        let mut state = self.state();
        loop {
            let largest = (0..state.ready.len()).max_by_key(|place| self.sizes[state.ready[*place]]);
            if let Some(place) = largest {
                let index = state.ready.swap_remove(place);
                let size = self.sizes[index];
                // While the others keep every processor busy, a second thread would only be in their way.
                let alone = size.saturating_mul(workers) >= state.left;
                state.left = state.left.saturating_sub(size);
                let threads = match alone && workers > 1 {
                    true => Threads::Two,
                    false => Threads::One,
                };
                return Some((index, threads));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends the schedule when it is dropped.
struct Closing<'a>(&'a Schedule<'a>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close(true);
    }
}

/// Makes one thing for each of `sizes`, on all processors, in any order. `feed` tells, on this thread, which can be made, by their
/// indexes, each once; it is answered whether there is any use in going on. The first error ends it.
pub(super) fn run<T: Send, E: Send>(
    sizes: &[u64],
    feed: impl FnOnce(&dyn Fn(&[usize]) -> bool) -> Result<(), E>,
    make: impl Fn(usize, Threads) -> Result<T, E> + Sync,
) -> Result<Vec<Option<T>>, E> {
    let schedule = Schedule {
        sizes,
        state: Mutex::new(State {
            ready: Vec::new(),
            left: sizes.iter().sum(),
            closed: false,
        }),
        changed: Condvar::new(),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Mutex<Option<E>> = Mutex::new(None);
    let made: Mutex<Vec<Option<T>>> = Mutex::new(sizes.iter().map(|_| None).collect());
    let fail = |error| {
        schedule.close(true);
        lock(&failed).get_or_insert(error);
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.min(sizes.len()) {
            scope.spawn(|| {
                while let Some((index, threads)) = schedule.next(workers as u64) {
                    match make(index, threads) {
                        Ok(one) => lock(&made)[index] = Some(one),
                        Err(error) => return fail(error),
                    }
                }
            });
        }
        // Where feeding panics, those who wait must not do so for ever.
        let closing = Closing(&schedule);
        let fed = feed(&|ready| {
            schedule.add(ready);
            lock(&failed).is_none()
        });
        match fed {
            Ok(()) => schedule.close(false),
            Err(error) => fail(error),
        }
        std::mem::forget(closing);
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_made_once_and_the_largest_of_what_is_there_first() {
        let sizes: Vec<u64> = (0..50).map(|index| index * 7 % 50).collect();
        let begun = Mutex::new(Vec::new());
        let made = run::<_, ()>(
            &sizes,
            |arrived| {
                assert!(arrived(&(0..50).collect::<Vec<_>>()));
                Ok(())
            },
            |index, _| {
                lock(&begun).push(sizes[index]);
                Ok(index)
            },
        );
        assert_eq!(made, Ok((0..50).map(Some).collect()));
        let begun = begun.into_inner().unwrap();
        assert_eq!(begun.len(), 50);
        assert!(begun[..5].iter().all(|size| *size > 25), "{begun:?}");
    }

    #[test]
    fn an_error_ends_it() {
        let sizes = [1; 100];
        let outcome: Result<Vec<Option<()>>, _> = run(
            &sizes,
            |arrived| {
                // Until it is told that there is no use.
                (0..100).find(|index| !arrived(&[*index]));
                Ok(())
            },
            |index, _| Err(index),
        );
        assert!(outcome.is_err());
        let outcome = run(&sizes, |_| Err("no network"), |_, _| Ok(()));
        assert_eq!(outcome, Err("no network"));
    }

    #[test]
    fn a_panic_is_no_hang() {
        let feeding = || run::<(), ()>(&[1], |_| panic!("in feed"), |_, _| Ok(()));
        assert!(std::panic::catch_unwind(feeding).is_err());
    }

    #[test]
    fn what_never_comes_is_not_made() {
        let feed = |arrived: &dyn Fn(&[usize]) -> bool| {
            arrived(&[1]);
            Ok(())
        };
        let made = run::<_, ()>(&[1, 2], feed, |index, _| Ok(index));
        assert_eq!(made, Ok(vec![None, Some(1)]));
    }
}
