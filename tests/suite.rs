//! Every behaviour, one file each; `support` holds what they stand on (in-process servers, made wheels, a driver for the binary).

mod buildpacks;
mod cache;
mod check;
mod debian;
mod floors;
mod frame;
mod freshness;
mod graph;
mod hostile_debian;
mod hostile_index;
mod hostile_lock;
mod hostile_project;
mod hostile_wheels;
mod lock;
mod pickle;
mod resolve;
mod road;
mod road_peers;
mod run;
mod schema;
mod serving;
mod splice;
mod support;
mod sync;
mod wheel_command;
mod wheels;
