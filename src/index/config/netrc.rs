//! `netrc`: credentials by machine, as curl, pip and uv read them.

use std::path::{Path, PathBuf};

use url::Url;

use super::LARGEST;
use crate::http::Credentials;
use crate::regular;

/// One machine's entry.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// `host`, or `host:port`; `None` is netrc's `default`, which is never used: it would answer any host.
    host: Option<String>,
    pub credentials: Credentials,
}

impl Machine {
    /// A bare host stands for the scheme's own port; another port has to be written.
    pub fn is(&self, url: &Url) -> bool {
        let (Some(host), Some(wanted)) = (url.host_str(), &self.host) else {
            return false;
        };
        match url.port() {
            None => wanted == host,
            Some(port) => *wanted == format!("{host}:{port}"),
        }
    }
}

pub(super) fn netrc(variable: &dyn Fn(&str) -> Option<String>) -> Vec<Machine> {
    let path = variable("NETRC")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".netrc")));
    path.and_then(|path| regular::text(&path, LARGEST).ok())
        .map(|text| netrc_machines(&text))
        .unwrap_or_default()
}

pub(super) fn netrc_machines(text: &str) -> Vec<Machine> {
    let mut machines: Vec<(Option<String>, String, String)> = Vec::new();
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    while let Some(word) = words.next() {
        match word {
            "machine" => machines.push((words.next().map(str::to_owned), String::new(), String::new())),
            "default" => machines.push((None, String::new(), String::new())),
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default().trim_matches('"').to_owned();
                match (machines.last_mut(), word) {
                    (Some(machine), "login") => machine.1 = value,
                    (Some(machine), "password") => machine.2 = value,
                    _ => {}
                }
            }
            // A macro's body ends at an empty line, which is lost here; nobody puts one in a netrc for indexes.
            _ => {}
        }
    }
    machines
        .into_iter()
        .map(|(host, user, password)| Machine {
            host,
            credentials: Credentials::Basic { user, password },
        })
        .collect()
}
