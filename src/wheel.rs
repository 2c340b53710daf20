//! The served pipeline as a wheel.
