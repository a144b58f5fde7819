//! Making one Key with another: what the person is asked, and what is then written.

pub mod wizard;
