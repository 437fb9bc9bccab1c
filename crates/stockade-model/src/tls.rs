//! The one TLS implementation of the process.

use std::sync::Once;

/// Makes `ring` the process's TLS provider, once. Later calls do nothing.
///
/// A TLS client cannot be made before; every constructor of this crate that makes one
/// calls this first. A provider that the process installed earlier stays.
pub fn install_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // `Err` carries the provider that somebody else installed first; it is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
