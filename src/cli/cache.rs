//! `mlrails cache`: where the cache is, how large, and its cleaning.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::{Exit, Failure, Session};
use crate::layers;
use crate::quantity;
use crate::store::{Keep, Store};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  mlrails cache dir              where it is
  mlrails cache size             how much it holds, by kind
  mlrails cache verify           hash everything; what is damaged is removed and made again when needed
  mlrails cache prune --older-than 30d       remove what nobody used for a month
  mlrails cache prune --max-size 20GB        remove what was used longest ago until no more than this is left
  mlrails cache clean            remove all of it; the next build downloads and makes again what it needs
  mlrails cache clean --layers   remove the layers that were made; they are put together again from what is here
  mlrails cache clean --made     remove all that was made here; wheels and Debian packages stay")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the cache's folder
    Dir,
    /// Print how many bytes it holds
    Size,
    /// Hash every blob and remove those that are damaged
    Verify,
    /// Remove what was not used for long, or is too much
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
    Prune {
        /// What was used within this time stays: 30d, 12h, 2w
        #[arg(long, value_name = "TIME", group = "what", value_parser = time)]
        older_than: Option<Duration>,
        /// No more than this stays, what was used last: 20GB, 500 MiB
        #[arg(long, value_name = "SIZE", group = "what", value_parser = size)]
        max_size: Option<u64>,
    },
    /// Remove everything
    Clean {
        /// Only finished layers
        #[arg(long, conflicts_with = "made")]
        layers: bool,
        /// All that was made here, layers and bytecode too: nothing needs to be downloaded again
        #[arg(long)]
        made: bool,
    },
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let store = session.store()?;
    match args.action {
        Action::Dir => {
            let folder = store.folder().display().to_string();
            show(session, &folder, &json!({ "dir": folder }));
        }
        Action::Size => {
            let usage = store.usage()?;
            let text = format!(
                "{} in {} blobs, {} in {} records",
                megabytes(usage.blob_bytes),
                usage.blobs,
                megabytes(usage.record_bytes),
                usage.records
            );
            show(
                session,
                &text,
                &json!({
                    "blobs": usage.blobs, "blob_bytes": usage.blob_bytes,
                    "records": usage.records, "record_bytes": usage.record_bytes,
                }),
            );
        }
        Action::Verify => {
            let (sound, damaged) = verify(&store)?;
            let names: Vec<String> = damaged.iter().map(ToString::to_string).collect();
            for name in &names {
                session
                    .printer()
                    .warn(&format!("{name} was damaged, and is removed"));
            }
            let text = format!("{sound} blobs are sound, {} were damaged", names.len());
            show(session, &text, &json!({ "sound": sound, "damaged": names }));
            if !names.is_empty() {
                return Ok(Exit::Refused);
            }
        }
        Action::Prune { older_than, max_size } => {
            let keep = Keep {
                within: older_than,
                bytes: max_size,
            };
            let (files, bytes) = store.prune(&keep)?;
            show(
                session,
                &format!("{} freed in {files} files", megabytes(bytes)),
                &json!({ "freed_bytes": bytes, "files": files }),
            );
        }
        Action::Clean { layers, made } => {
            let bytes = if layers {
                layers::forget_layers(&store)?
            } else if made {
                layers::forget_made(&store)?
            } else {
                let freed = store.usage()?;
                store.clean()?;
                freed.blob_bytes + freed.record_bytes
            };
            show(
                session,
                &format!("{} freed", megabytes(bytes)),
                &json!({ "freed_bytes": bytes }),
            );
        }
    }
    Ok(Exit::Done)
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number and a unit: 30d, 12h, 2w".to_owned();
    quantity::duration(text).ok_or_else(wrong)
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || "a size is a number and a unit: 20GB, 500 MiB".to_owned();
    quantity::bytes(text).ok_or_else(wrong)
}

/// Hashes every blob; how many are sound, and which were damaged and are removed.
pub(super) fn verify(store: &Store) -> Result<(u64, Vec<crate::digest::Digest>), Failure> {
    let mut sound = 0;
    let mut damaged = Vec::new();
    for digest in store.blobs()? {
        match store.verified(&digest)? {
            Some(_) => sound += 1,
            None => damaged.push(digest),
        }
    }
    Ok((sound, damaged))
}

fn show(session: &Session, text: &str, json: &serde_json::Value) {
    if session.is_json() {
        session.printer().json(json)
    } else {
        session.printer().data(text)
    }
}

/// Bytes as people read them, in units of 1000.
fn megabytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
