//! A Key without hardware, and the USB that carries it to a kernel: what [`usb`] has, tests plug in of their own, too.
#![forbid(unsafe_code)]

pub mod usb;
