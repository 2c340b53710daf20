//! One Python process of a run: started in a process group of its own, told what to do line by line, ended with everything it started.
//!
//! Gives what it says as [`Event`]s on a channel. The protocol is in templates/worker/mlrails_worker/main.py.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RunError;
use super::python::Interpreter;

/// A line that a node prints is shown up to this many bytes; the rest of it is dropped.
const LONGEST_LINE: u64 = 1 << 20;

/// Ends a run from another thread: all its processes, at once.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    stopped: bool,
    groups: Vec<Pid>,
}

impl Stop {
    pub fn now(&self) {
        let mut running = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        running.stopped = true;
        for group in running.groups.drain(..) {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    pub fn is_set(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why Python could not do what it was asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// `raised`, or a word for what is wrong with what the project does (`skew`, `not_a_table` …).
    pub kind: String,
    pub message: String,
    /// The project's frames, ready to be shown.
    pub traceback: Vec<String>,
    /// The module whose import failed, if that was it.
    pub missing_module: Option<String>,
    /// Modules that were hidden and asked for, in order.
    pub hidden: Vec<String>,
    /// How rows were being replayed: `together`, `one by one`, `shuffled`.
    pub during: Option<String>,
    /// More about the kind.
    pub facts: Map<String, Value>,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// What a worker says.
#[derive(Debug)]
pub enum Event {
    Done(Value),
    Failed(Box<Failed>),
    /// A line that a node or a library printed.
    Said(String),
    Ended,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Failed(Box<Failed>),
}

#[derive(Debug)]
pub struct Worker {
    child: Child,
    commands: Option<ChildStdin>,
    group: Option<Pid>,
    stop: Stop,
}

impl Worker {
    /// Starts one; what it says arrives at `events` under `number`.
    pub fn start(
        python: &Interpreter,
        number: usize,
        events: &Sender<(usize, Event)>,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let started = |source| RunError::Start {
            python: python.executable.clone(),
            source,
        };
        // Held until the group is listed: a stop must not miss a process that is being born.
        let mut running = stop.lock();
        if running.stopped {
            return Err(RunError::Stopped);
        }
        // A group of its own, so that whatever a node starts can be ended with it.
        let mut child = python.command().process_group(0).spawn().map_err(started)?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        running.groups.extend(group);
        drop(running);
        let commands = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            let events = events.clone();
            std::thread::spawn(move || {
                for line in lines(stdout, u64::MAX) {
                    let event = match serde_json::from_str(&line) {
                        Ok(Answer::Ok(value)) => Event::Done(value),
                        Ok(Answer::Failed(failed)) => Event::Failed(failed),
                        // Only the protocol writes there; anything else is a library's doing.
                        Err(_) => Event::Said(line),
                    };
                    if events.send((number, event)).is_err() {
                        return;
                    }
                }
                let _ = events.send((number, Event::Ended));
            });
        }
        if let Some(stderr) = child.stderr.take() {
            let events = events.clone();
            std::thread::spawn(move || {
                for line in lines(stderr, LONGEST_LINE) {
                    if events.send((number, Event::Said(line))).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            commands,
            group,
            stop: stop.clone(),
        })
    }

    /// Sends a command. A worker that is gone says so by its `Ended` event.
    pub fn tell(&mut self, command: &Value) {
        if let Some(commands) = &mut self.commands {
            let _ = writeln!(commands, "{command}").and_then(|()| commands.flush());
        }
    }

    /// How it ended, for people.
    pub fn status(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
            self.stop.lock().groups.retain(|other| *other != group);
        }
        let _ = self.child.wait();
    }
}

/// Lines of at most `longest` bytes; what is no UTF-8 is shown as good as it goes.
fn lines(stream: impl Read, longest: u64) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let count = (&mut reader)
            .take(longest)
            .read_until(b'\n', &mut line)
            .unwrap_or(0);
        if count == 0 {
            return None;
        }
        if line.last() != Some(&b'\n') {
            let _ = reader.skip_until(b'\n');
        }
        let text = String::from_utf8_lossy(&line);
        Some(text.trim_end_matches(['\n', '\r']).to_owned())
    })
}
