//! Every behaviour, one file each; `support` holds what they stand on (in-process servers, made wheels, a driver for the binary).

mod cache;
mod floors;
mod frame;
mod support;
