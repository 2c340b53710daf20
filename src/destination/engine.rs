//! The engine on this machine, Docker or Podman, over its socket: `docker load` without the docker command.
//!
//! Streams a Docker archive, the one form that every engine reads; nothing is written in between. An engine that has
//! the image already, which its id (the config's digest) tells, is only asked to name it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard::Docker;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};

use super::archive::{Form, WriteError, for_engine, write};
use super::{PublishError, Published};
use crate::oci::Publishable;
use crate::reporter::{Reporter, Unit};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no engine: neither DOCKER_HOST nor CONTAINER_HOST is set, and none of these sockets is there: {}", tried.join(", "))]
    None { tried: Vec<String> },
    #[error("`{host}` is not an engine's address: unix:///path, tcp://host:port or http://host:port")]
    Address { host: String },
    #[error("cannot reach the engine at {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("the engine at {host} did not load the image: {reason}")]
    Load { host: String, reason: String },
    #[error("there is no image to load")]
    Empty,
}

/// The engine's address: `DOCKER_HOST`, `CONTAINER_HOST`, else the first default socket that is there: Docker's,
/// Podman's, and both rootless ones. `variable` reads the environment.
pub fn address(variable: &dyn Fn(&str) -> Option<String>, user: u32) -> Result<String, EngineError> {
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(host) = variable(name).filter(|host| !host.is_empty()) {
            return Ok(host);
        }
    }
    let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{user}"));
    let home = variable("HOME").unwrap_or_default();
    let sockets: Vec<PathBuf> = [
        "/var/run/docker.sock".to_owned(),
        format!("{runtime}/docker.sock"),
        format!("{home}/.docker/run/docker.sock"),
        "/run/podman/podman.sock".to_owned(),
        format!("{runtime}/podman/podman.sock"),
    ]
    .into_iter()
    .map(PathBuf::from)
    .collect();
    let found = sockets.iter().find(|path| is_reachable(path));
    found
        .map(|path| format!("unix://{}", path.display()))
        .ok_or_else(|| EngineError::None {
            tried: sockets.iter().map(|path| path.display().to_string()).collect(),
        })
}

/// There, and ours to talk to: a root engine's socket must not hide the user's own.
fn is_reachable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

fn connect(host: &str) -> Result<Docker, EngineError> {
    // No upload takes an hour; an engine that is silent for one is gone.
    const SECONDS: u64 = 3600;
    let version = bollard::API_DEFAULT_VERSION;
    let wrong = || EngineError::Address {
        host: host.to_owned(),
    };
    let connected = if host.starts_with("unix://") {
        Docker::connect_with_unix(host, SECONDS, version)
    } else if host.starts_with("tcp://") || host.starts_with("http://") {
        Docker::connect_with_http(host, SECONDS, version)
    } else {
        return Err(wrong());
    };
    connected.map_err(|error| EngineError::Unreachable {
        host: host.to_owned(),
        reason: error.to_string(),
    })
}

/// Loads `image` into the engine at `host` under `names` (whole references with tags). All of its layers' bytes must be
/// on this machine.
pub async fn publish(
    host: &str,
    names: &[String],
    image: &Publishable,
    reporter: &dyn Reporter,
) -> Result<Published, PublishError> {
    let chosen = for_engine(image).ok_or(EngineError::Empty)?.clone();
    let docker = connect(host)?;
    let unreachable = |error: bollard::errors::Error| EngineError::Unreachable {
        host: host.to_owned(),
        reason: error.to_string(),
    };
    let version = docker.version().await.map_err(unreachable)?;
    let docker = match version.api_version {
        // An engine older than this client knows none of its newer addresses.
        Some(_) => docker.negotiate_version().await.map_err(unreachable)?,
        None => docker,
    };
    let id = chosen.config_digest().to_string();
    let total: u64 = layers_size(&chosen);
    let location = names.first().cloned().unwrap_or_else(|| id.clone());
    let is_there = match docker.inspect_image(&id).await {
        Ok(found) => found
            .id
            .is_some_and(|found| id.ends_with(found.trim_start_matches("sha256:"))),
        Err(_) => false,
    };
    if is_there && tag_all(&docker, &id, names).await {
        return Ok(Published {
            digest: image.digest(),
            location,
            reused: total,
            reused_layers: chosen.layers.len(),
            sent: 0,
            sent_layers: 0,
        });
    }
    let task = reporter.start(&location, Unit::Bytes, Some(total));
    let layers = chosen.layers.len();
    let outcome = load(&docker, host, names, Publishable::Image(chosen), &|count| {
        reporter.advance(task, count)
    })
    .await;
    reporter.finish(task);
    outcome?;
    Ok(Published {
        digest: image.digest(),
        location,
        reused: 0,
        reused_layers: 0,
        sent: total,
        sent_layers: layers,
    })
}

fn layers_size(image: &crate::oci::Image) -> u64 {
    image.layers.iter().map(|layer| layer.size).sum()
}

/// Names an image that the engine has. False where that did not work: loading it again does.
async fn tag_all(docker: &Docker, id: &str, names: &[String]) -> bool {
    for name in names {
        let Some((repository, tag)) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
            return false;
        };
        let options = bollard::query_parameters::TagImageOptionsBuilder::default()
            .repo(repository)
            .tag(tag)
            .build();
        if docker.tag_image(id, Some(options)).await.is_err() {
            return false;
        }
    }
    true
}

async fn load(
    docker: &Docker,
    host: &str,
    names: &[String],
    image: Publishable,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<(), PublishError> {
    let (stream, written, writer) = archive_stream(names.to_vec(), image);
    let options = bollard::query_parameters::ImportImageOptionsBuilder::default().build();
    let mut answers = std::pin::pin!(docker.import_image(options, bollard::body_try_stream(stream), None));
    let mut told = 0;
    let mut failed = None;
    // An engine answers in lines; the upload goes on while the first is awaited, so progress has a clock of its own.
    loop {
        let next = tokio::time::timeout(std::time::Duration::from_millis(100), answers.next()).await;
        let now = written.load(Ordering::Relaxed);
        advance(now - told);
        told = now;
        match next {
            Err(_) => {}
            Ok(None) => break,
            Ok(Some(Ok(line))) => {
                failed = failed.or(line.error_detail.and_then(|detail| detail.message));
            }
            Ok(Some(Err(error))) => {
                failed = failed.or_else(|| Some(error.to_string()));
                break;
            }
        }
    }
    // What was wrong on this side explains more than an engine's "unexpected EOF".
    match writer.await {
        Ok(Err(error)) if !error.is_hung_up() => return Err(error.of(Path::new(host))),
        _ => {}
    }
    match failed {
        None => Ok(()),
        Some(reason) => Err(EngineError::Load {
            host: host.to_owned(),
            reason,
        }
        .into()),
    }
}

impl WriteError {
    /// Whether only the receiving side is gone.
    fn is_hung_up(&self) -> bool {
        match self {
            Self::Io(error) | Self::Layer(_, super::CopyError::Write(error)) => {
                error.kind() == io::ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }
}

type Writer = tokio::task::JoinHandle<Result<(), WriteError>>;

/// The archive as it is written by a thread, layer bytes so far, and the thread.
fn archive_stream(
    names: Vec<String>,
    image: Publishable,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    Arc<AtomicU64>,
    Writer,
) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(8);
    let written = Arc::new(AtomicU64::new(0));
    let counter = written.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut sink = io::BufWriter::with_capacity(256 << 10, Pipe(sender.clone()));
        let advance = |count: u64| {
            counter.fetch_add(count, Ordering::Relaxed);
        };
        let outcome = write(Form::Docker, &names, &image, &mut sink, &advance)
            .and_then(|()| sink.flush().map_err(WriteError::Io));
        if outcome.is_err() {
            // Without this the engine would take a cut archive for a whole one.
            let _ = sender.blocking_send(Err(io::ErrorKind::InvalidData.into()));
        }
        outcome
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (stream.into_stream(), written, writer)
}

/// Hands what is written to a stream.
struct Pipe(tokio::sync::mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(buffer);
        self.0
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_engine() {
        let only = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        let docker = only("DOCKER_HOST", "tcp://127.0.0.1:2375");
        assert_eq!(address(&docker, 0).unwrap(), "tcp://127.0.0.1:2375");
        let podman = only("CONTAINER_HOST", "unix:///run/p.sock");
        assert_eq!(address(&podman, 0).unwrap(), "unix:///run/p.sock");
        assert!(matches!(connect("ssh://h"), Err(EngineError::Address { .. })));
    }
}
