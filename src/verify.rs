//! Replays golden rows through an artifact.
