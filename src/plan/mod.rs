//! What goes in, decided once and written down with its reasons: the production set, and how it is launched.
//!
//! Takes a project's facts and a lock; gives decisions and no bytes. Detection is not repeated later: whoever makes
//! layers reads the plan.

pub mod launch;
pub mod production;

pub use launch::Launch;
pub use production::{Included, LeftOut, PlanError, Production, Reason, Roots, production};
