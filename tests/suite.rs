//! Every behaviour, one file each; `support` holds what they stand on (in-process servers, made wheels, a driver for the binary).

mod cache;
mod debian;
mod floors;
mod frame;
mod hostile_debian;
mod support;
