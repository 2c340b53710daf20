//! What the tests stand on.

pub mod debian;
pub mod driver;
pub mod index;
pub mod wheels;
