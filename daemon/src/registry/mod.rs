//! What a station knows, on disk.
pub mod records;
