//! Tests of the registry as a whole.

use super::*;

#[test]
fn a_new_registry_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("registry");
    let registry = Registry::open(&dir).unwrap();
    let first = registry.take_serialization_number().unwrap();
    assert!(matches!(Registry::open(&dir), Err(RegistryError::InUse { .. })));
    drop(registry);
    let registry = Registry::open(&dir).unwrap();
    registry.verify().unwrap();
    assert!(registry.take_serialization_number().unwrap() > first);
}
