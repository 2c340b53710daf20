//! What the tests stand on.

pub mod debian;
pub mod driver;
pub mod index;
pub mod peers;
pub mod registry;
pub mod road;
pub mod sdists;
pub mod small;
pub mod store;
pub mod validator;
pub mod wheels;
