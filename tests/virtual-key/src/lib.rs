//! USB devices without hardware, which [`usb`] carries to a kernel. Tests use it for devices of their own, too.
#![forbid(unsafe_code)]

pub mod usb;
