//! Ctrl-C and a polite kill: exit code 130 or 143, with nothing left behind.
//!
//! Most commands have nothing to do then but to end: what they write appears whole or not at all, and what must not outlive them
//! is registered in `interrupt`. `run` and `serve` stop their processes in their own way and end by themselves. A second
//! signal ends any command at once.

use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

/// What a command does at its first signal instead of ending.
type Answer = Box<dyn FnOnce() + Send>;

static ANSWER: Mutex<Option<Answer>> = Mutex::new(None);

/// Begins to listen. Returns when a signal is heard for certain.
pub fn listen() {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Signals alone: no network, and no threads but this one.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
            return;
        };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            // A file that grows over the limit of `ulimit -f` is an error of that write, and not the process's end.
            let _heard = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
            let _ = ready.send(());
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                let answer = ANSWER.lock().unwrap_or_else(PoisonError::into_inner).take();
                match answer {
                    Some(answer) => answer(),
                    None => {
                        crate::interrupt::end();
                        std::process::exit(code);
                    }
                }
            }
        });
    });
    let _ = is_ready.recv();
}

/// At the first signal from now on, `answer` is called, and the command goes on.
pub fn answer(answer: impl FnOnce() + Send + 'static) {
    *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(answer));
}
