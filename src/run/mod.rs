//! The pipeline runner: plan, execute, record.
