//! How libraries say what they are doing, without knowing who listens: the trait, and a reporter that says nothing.
//!
//! Bars, colours and terminals are `cli/progress.rs`'s business. Methods may be called from any thread.

/// Told about long work as it happens. Implementations must be cheap: calls come once per chunk of bytes.
pub trait Reporter: Send + Sync {
    /// A piece of work starts. `total` is its size in `unit`s where known beforehand.
    fn start(&self, what: &str, unit: Unit, total: Option<u64>) -> TaskId;
    /// `amount` more units of `task` are done.
    fn advance(&self, task: TaskId, amount: u64);
    /// `task` is over, well or badly.
    fn finish(&self, task: TaskId);
    /// A line for people that is not an error: something was assumed, skipped or retried.
    fn note(&self, line: &str);
    /// A line that people should act on, though the work goes on.
    fn warn(&self, line: &str);
}

/// What a task's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Items,
}

/// Names a running task to the reporter that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub u64);

/// Listens to nothing: for tests and `--quiet`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Reporter for Silent {
    fn start(&self, _: &str, _: Unit, _: Option<u64>) -> TaskId {
        TaskId(0)
    }
    fn advance(&self, _: TaskId, _: u64) {}
    fn finish(&self, _: TaskId) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
