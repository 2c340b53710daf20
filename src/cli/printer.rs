//! Where text goes: data to stdout, talk to stderr, colour only where it is wanted.

use std::io::{IsTerminal, Write};

use super::diagnostics::Failure;
use super::{Format, Global, When};

/// Decides once what is shown and how.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    format: Format,
    quiet: bool,
    verbose: bool,
    color: bool,
    bars: bool,
}

impl Printer {
    pub fn new(global: &Global) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let color = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        Self {
            format: global.format,
            quiet: global.quiet,
            verbose: global.verbose,
            color,
            bars: terminal && !dumb && !ci && !global.quiet && !global.no_progress,
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn color(&self) -> bool {
        self.color
    }

    /// Whether progress bars are drawn: a terminal, not CI, and nobody said no.
    pub fn bars(&self) -> bool {
        self.bars
    }

    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// A line of data. A reader that went away (`| head`) is no error.
    pub fn data(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// A document on stdout, in JSON.
    pub fn json(&self, value: &impl serde::Serialize) {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.data(&text);
    }

    /// A line of talk on stderr.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    /// Talk that only `--verbose` shows.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    pub fn warn(&self, line: &str) {
        if !self.quiet {
            let head = self.paint("warning", "1;33");
            let _ = writeln!(std::io::stderr().lock(), "{head}: {line}");
        }
    }

    /// A failure with its causes and its hint; in JSON also as an object on stdout.
    pub fn failure(&self, failure: &Failure) {
        let mut stderr = std::io::stderr().lock();
        if let Some(shown) = failure.rendered(self.color) {
            let _ = writeln!(stderr, "{shown}");
        }
        if let Some(message) = failure.message() {
            let _ = writeln!(stderr, "{}: {message}", self.paint("error", "1;31"));
        }
        for hint in failure.hints() {
            let _ = writeln!(stderr, "{}: {hint}", self.paint("hint", "1;36"));
        }
        if self.format == Format::Json {
            self.json(&failure.to_json());
        }
    }

    /// `text` in an ANSI style, where colour is on.
    pub fn paint(&self, text: &str, style: &str) -> String {
        if self.color {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
