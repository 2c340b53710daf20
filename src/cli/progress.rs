//! The reporter that people see: bars on a terminal, nothing but notes and warnings elsewhere.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Printer;
use crate::reporter::{Reporter, TaskId, Unit};

/// Draws one line per running task, below what was already said.
pub struct Progress {
    printer: Printer,
    bars: MultiProgress,
    running: Mutex<HashMap<TaskId, ProgressBar>>,
    next: AtomicU64,
}

impl Progress {
    pub fn new(printer: Printer) -> Self {
        let target = if printer.bars() {
            ProgressDrawTarget::stderr_with_hz(12)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            printer,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    fn bar(&self, task: TaskId) -> Option<ProgressBar> {
        self.running.lock().ok()?.get(&task).cloned()
    }
}

impl Reporter for Progress {
    fn start(&self, what: &str, unit: Unit, total: Option<u64>) -> TaskId {
        let task = TaskId(self.next.fetch_add(1, Ordering::Relaxed));
        if !self.printer.bars() {
            return task;
        }
        let template = match (unit, total.is_some()) {
            (Unit::Bytes, true) => "  {msg:<36!} {bar:20} {bytes:>10}/{total_bytes:<10}",
            (Unit::Bytes, false) => "  {msg:<36!} {spinner} {bytes:>10}",
            (Unit::Items, true) => "  {msg:<36!} {bar:20} {pos:>5}/{len:<5}",
            (Unit::Items, false) => "  {msg:<36!} {spinner} {pos:>5}",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━━╌");
        let bar = self.bars.add(
            ProgressBar::no_length()
                .with_style(style)
                .with_message(what.to_owned()),
        );
        if let Some(total) = total {
            bar.set_length(total);
        }
        if let Ok(mut running) = self.running.lock() {
            running.insert(task, bar);
        }
        task
    }

    fn advance(&self, task: TaskId, amount: u64) {
        if let Some(bar) = self.bar(task) {
            bar.inc(amount);
        }
    }

    fn finish(&self, task: TaskId) {
        if let Ok(mut running) = self.running.lock()
            && let Some(bar) = running.remove(&task)
        {
            bar.finish_and_clear();
        }
    }

    fn note(&self, line: &str) {
        self.bars.suspend(|| self.printer.say(line));
    }

    fn warn(&self, line: &str) {
        self.bars.suspend(|| self.printer.warn(line));
    }
}
